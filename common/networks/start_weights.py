"""Start weights that are bit-identical at every site, whatever the processor.

Each parameter has its own generator, seeded by SHA-256 of the seed and the parameter's name, so the encoder's weights
do not depend on the number of classes. Only integers are drawn and only correctly rounded operations (multiply, divide,
square root) follow: the vectorised Gaussian of torch differs between processors, integers of its Mersenne Twister do
not. The randomness is public; nothing secret may ever be drawn here.
"""

import hashlib
import math

import torch
from torch import Tensor, nn

from common.networks.prior import PRIOR
from common.networks.shapes import starts_at_zero

_STEPS = 1 << 24  # the integers a float32 holds exactly
_BLOCK = 1 << 16  # draws at once; consecutive blocks of one generator give the bits of a single draw


def set_start_weights(network: nn.Module, *, seed: int, zero_head: bool) -> None:
    """Overwrite every parameter of ``network``; beside them a megabyte is needed, whatever their size.

    Weights with two or more axes: uniform in ±sqrt(6 / fan-in) (He et al. 2015); norms: scale 1; all biases 0;
    with ``zero_head`` the last layer is 0, so that the first prediction is the uniform one.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name == PRIOR or (zero_head and starts_at_zero(name)):
                parameter.zero_()
            elif parameter.ndim >= 2:
                _draw_he_uniform(parameter, seed=_seed_of(seed, name))
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)


def _draw_he_uniform(parameter: Tensor, *, seed: int) -> None:
    """Fill a contiguous float32 parameter."""
    largest = math.sqrt(6.0 / math.prod(parameter.shape[1:]))
    generator = torch.Generator(device="cpu").manual_seed(seed)
    for block in torch.split(parameter.view(-1), _BLOCK):
        draws = torch.randint(0, _STEPS, block.shape, generator=generator, dtype=torch.int64)
        # (2 n + 1 - 2^24) / 2^24 lies in (-1, 1), symmetric about 0; float64 holds every value exactly.
        symmetric = draws.to(torch.float64).mul_(2).add_(1 - _STEPS).div_(_STEPS)
        block.copy_(symmetric.mul_(largest))


def _seed_of(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"fedward start weights {seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

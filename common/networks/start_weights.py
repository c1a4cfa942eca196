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

_STEPS = 1 << 24  # the integers a float32 holds exactly


def set_start_weights(network: nn.Module, *, seed: int, zero_head: bool) -> None:
    """Overwrite every parameter of ``network``.

    Weights with two or more axes: uniform in ±sqrt(6 / fan-in) (He et al. 2015); norms: scale 1; all biases 0;
    with ``zero_head`` everything under ``head.`` is 0, so that the first prediction is the uniform one.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(_start_value(name, parameter, seed=seed, zero_head=zero_head))


def _start_value(name: str, parameter: Tensor, *, seed: int, zero_head: bool) -> Tensor:
    if zero_head and name.startswith("head."):
        return torch.zeros_like(parameter)
    if parameter.ndim >= 2:
        return _he_uniform(parameter.shape, seed=_seed_of(seed, name))
    return torch.ones_like(parameter) if name.endswith("weight") else torch.zeros_like(parameter)


def _he_uniform(shape: torch.Size, *, seed: int) -> Tensor:
    fan_in = math.prod(shape[1:])
    generator = torch.Generator(device="cpu").manual_seed(seed)
    draws = torch.randint(0, _STEPS, shape, generator=generator, dtype=torch.int64)
    # (2 n + 1 - 2^24) / 2^24 lies in (-1, 1), symmetric about 0; float64 holds every value exactly.
    symmetric = (2 * draws + 1 - _STEPS).to(torch.float64) / _STEPS
    return (symmetric * math.sqrt(6.0 / fan_in)).to(torch.float32)


def _seed_of(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"fedward start weights {seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

"""A large convolution's forward and backward to its input, some output channels at a time.

    y[:, part] = convolution(x, W[part])        dx = sum over parts of its backward with g[:, part]

oneDNN reorders a weight before it uses it: a second copy of the largest weight, in both passes. Part by part the copy
is small, stays in the cache, and time is saved too (1168 -> 1168 channels, 3x3 at 8x8: 20 ms become 7, measured).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from client.private_gradients.layer_gradients import padded, unfold
from client.private_gradients.lone_volumes import convolved

# What is computed at a time (measured: 1 MiB costs calls, 8 MiB leave the cache). Just below 4 MiB the memory stays
# with the process, as our services tell glibc, instead of being asked for page by page each time.
PART_BYTES: Final = (4 << 20) - 4096
PART_CHANNELS: Final = 16  # oneDNN works on blocks of so many
# Up to so many positions for each tap of the kernel, a matrix product with the unfolded input is faster (measured).
PRODUCT_POSITIONS: Final = 4

CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@contextmanager
def in_parts(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Let large convolutions among ``layers`` run in parts; their weights get no gradient from autograd meanwhile."""
    large = [layer for layer in layers if _large(layer) and "forward" not in vars(layer)]
    try:
        for layer in large:
            vars(layer)["forward"] = _forward(layer)  # hides the class's own
        yield
    finally:
        for layer in large:
            vars(layer).pop("forward", None)


def parts_of(shape: Sequence[int]) -> list[slice]:
    """Return the parts of a parameter's first axis that are computed at a time."""
    channels = PART_BYTES // (4 * max(1, math.prod(shape[1:])))
    step = max(1, channels - channels % PART_CHANNELS if channels > PART_CHANNELS else channels)
    return [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]


def better_as_product(layer: Any, positions: int) -> bool:
    """Say whether a product with the unfolded input is faster for so many rows times positions of the output."""
    taps: int = math.prod(layer.kernel_size)
    return positions <= PRODUCT_POSITIONS * taps


def unfolded(layer: Any, x: Tensor) -> Tensor:
    """Unfold a convolution's input, whatever its padding: (N, channels, *size) -> (N, channels * taps, positions)."""
    x, padding = padded(layer, x)
    return unfold(x, layer.kernel_size, stride=layer.stride, padding=padding, dilation=layer.dilation)


def _large(layer: Any) -> bool:
    return type(layer) in CONVOLUTIONS and layer.groups == 1 and len(parts_of(layer.weight.shape)) > 1


def _forward(layer: Any) -> Callable[[Tensor], Tensor]:
    """Return a forward in parts. Autograd makes the backward of it, for the input only: the weights are detached."""

    def forward(x: Tensor) -> Tensor:
        weight = layer.weight.detach()
        bias = None if layer.bias is None else layer.bias.detach()
        size = _output_size(layer, x)
        if better_as_product(layer, len(x) * math.prod(size)):
            outputs: Tensor = (weight.flatten(1) @ unfolded(layer, x)).unflatten(2, size)
            return outputs if bias is None else outputs + bias.view(-1, *[1] * len(size))
        parts = parts_of(weight.shape)
        found = [convolved(layer, x, weight[part], None if bias is None else bias[part]) for part in parts]
        return torch.cat(found, dim=1)

    return forward


def _output_size(layer: Any, x: Tensor) -> list[int]:
    """Return the output's size without its batch and channels."""
    x, padding = padded(layer, x)
    geometry = zip(x.shape[2:], padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)
    return [(side + 2 * pad - reach * (kernel - 1) - 1) // stride + 1 for side, pad, reach, kernel, stride in geometry]

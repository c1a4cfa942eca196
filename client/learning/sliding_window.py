"""A whole scan's answer from a network that sees a patch: windows half over one another, blended by a Gaussian.

    logits(v) = sum over windows w of  g(v - w) network(scan[w])(v)  /  sum over w of g(v - w)
    g = product over the axes of  max(exp(-x^2 / (2 (side / 8)^2)), LEAST)       x: voxels from the window's middle

The windows' places are a grid and g a product, so the divisor is a product too. Along the first axis an answer is
finished as soon as no window to come reaches it, so memory is for one window's thickness, not for the scan.
Places and weights are those of MONAI's ``sliding_window_inference`` (mode "gaussian", overlap 0.5), which is the tests'
oracle, but for the least weight. One window at a time: a kernel's arithmetic may follow the batch.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.learning.logits import logits_of
from client.learning.whole_scan import Place, WholeScan

OVERLAP: Final = 0.5  # of a window's side
SPREAD: Final = 0.125  # standard deviation over the side
LEAST: Final = 0.01  # of an axis: the border of a scan is seen by one window's border alone


def window_starts(side: int, window: int) -> list[int]:
    """Return where windows begin along a side: every half window, the last one flush with the end."""
    step = max(1, int(window * (1 - OVERLAP)))
    return [min(number * step, side - window) for number in range(math.ceil((side - window) / step) + 1)]


def window_weights(window: int) -> Tensor:
    """Return the weight of each place of a window along one axis: (window,) float32, about 1 in the middle."""
    places = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    return torch.exp(-places.square() / (2 * (SPREAD * window) ** 2)).clamp(min=LEAST).float()


def answered_label_map(network: nn.Module, scan: WholeScan, window: Place) -> tuple[NDArray[np.uint8], bool]:
    """Return the class of each voxel, (*size) uint8, and whether every answer was a number.

    ``window``: voxels along each side, at most the scan's; the network is used where it lives, without gradients.
    """
    found, is_finite = np.empty(scan.size, np.uint8), True
    for begin, logits in blended_slabs(network, scan, window):
        found[begin : begin + logits.shape[1]] = logits.argmax(0).numpy()
        is_finite = is_finite and bool(torch.isfinite(logits).all())
    return found, is_finite


def blended_slabs(network: nn.Module, scan: WholeScan, window: Place) -> Iterator[tuple[int, Tensor]]:
    """Yield (first slice, logits (classes, slices, ...) float32), the slabs one after the other from the first slice.

    Raises: ValueError for a window larger than the scan.
    """
    if len(window) != len(scan.size) or any(np.greater(window, scan.size)):
        raise ValueError(f"a window of {window} voxels does not fit a scan of {scan.size}")
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    starts = [window_starts(side, length) for side, length in zip(scan.size, window, strict=True)]
    axes = [window_weights(length) for length in window]
    importance = _product(axes)
    divisors = [_summed(side, begins, axis) for side, begins, axis in zip(scan.size, starts, axes, strict=True)]
    buffer = torch.zeros(0)
    for number, first in enumerate(starts[0]):
        for rest in product(*starts[1:]):
            part = scan.image_part((first, *rest), window).unsqueeze(0).to(device)
            logits = logits_of(network, part)[0].cpu()
            if len(buffer) == 0:
                buffer = torch.zeros(len(logits), window[0], *scan.size[1:])
            place = tuple(slice(start, start + length) for start, length in zip(rest, window[1:], strict=True))
            buffer[(slice(None), slice(None), *place)] += importance * logits
        last = number == len(starts[0]) - 1
        done = window[0] if last else starts[0][number + 1] - first
        yield first, buffer[:, :done] / _product([divisors[0][first : first + done], *divisors[1:]])
        if not last:
            buffer = torch.cat((buffer[:, done:], torch.zeros_like(buffer[:, :done])), dim=1)


def _product(axes: Sequence[Tensor]) -> Tensor:
    """Return the outer product of vectors, one an axis."""
    found = axes[0]
    for axis in axes[1:]:
        found = found.unsqueeze(-1) * axis
    return found


def _summed(side: int, starts: Sequence[int], weights: Tensor) -> Tensor:
    """Return the sum of all windows' weights at each place of a side."""
    total = torch.zeros(side)
    for start in starts:
        total[start : start + len(weights)] += weights
    return total

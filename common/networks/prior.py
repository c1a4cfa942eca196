"""Where in a picture each structure usually lies: log-odds of the hospitals' mean label map, added to the logits.

    p_k = smoothed mean over labelled patients of "voxel v is of class k"      k = 1 .. K - 1, the structures
    prior_k(v) = log max(p_k, FLOOR) - log max(1 - sum_k p_k, FLOOR)           of the background: 0

A U-Net that begins with it tells structures apart from the first round, where a drawn or zero head may take a hundred
rounds or lose one of them for good (design page private-segmentation.md, section 3: 20 labels, Dice .824/.806 against
.514/.484). The mean label map is a released sum, so all of this is post-processing and costs no privacy.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

PRIOR: Final = "prior.odds"  # the network's parameter: (classes - 1, *size)
FLOOR: Final = 3e-3  # of a probability: a structure may lie where no label map had it
REACH: Final = 3.0  # of the smoothing, in standard deviations

Values = NDArray[np.floating]


def log_odds(mean_label_map: Values, *, size: tuple[int, ...], smoothing_px: float) -> NDArray[np.float32]:
    """Return the prior as one vector, in the order of the parameter.

    Shapes: mean_label_map (structures * voxels,), released, so noise may take it out of [0, 1]; result the same.
    ``smoothing_px``: standard deviation of the Gaussian in voxels, 0 for none. Finite for finite input, whatever it is.
    """
    label_maps = np.asarray(mean_label_map, np.float64).reshape(-1, *size)
    shares = np.clip(_smoothed(label_maps, smoothing_px), 0.0, 1.0)
    background = np.maximum(1.0 - shares.sum(0), FLOOR)
    odds = np.log(np.maximum(shares, FLOOR)) - np.log(background)
    found: NDArray[np.float32] = odds.reshape(-1).astype(np.float32)
    return found


def _smoothed(label_maps: Values, smoothing_px: float) -> Values:
    """Convolve every axis but the first with a Gaussian; beyond the border its last value goes on."""
    if smoothing_px == 0:
        return label_maps
    reach = max(1, math.ceil(REACH * smoothing_px))
    kernel = np.array([math.exp(-0.5 * (step / smoothing_px) ** 2) for step in range(-reach, reach + 1)])
    kernel /= kernel.sum()
    for axis in range(1, label_maps.ndim):
        widths = [(reach, reach) if other == axis else (0, 0) for other in range(label_maps.ndim)]
        padded, length = np.pad(label_maps, widths, mode="edge"), label_maps.shape[axis]
        moved = np.zeros_like(label_maps)
        for step, weight in enumerate(kernel.tolist()):  # one rounded operation after another: the same bits everywhere
            moved = moved + weight * padded.take(range(step, step + length), axis)
        label_maps = moved
    return label_maps

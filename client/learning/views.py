"""Weak and strong views of one patient's medical images: mild, made on the device, laterality kept.

No flips but where the plan allows mirrored anatomy: left and right mean something in a patient. Each scan has its own
draw; nothing is mixed between scans, so a view is free under patient-level privacy. Two and three dimensions, any
floating type, any device. Where a scan is moved to is computed for that scan alone, in plain numbers: a batched kernel
(``torch.linalg.matrix_exp``, for one) may give other bits for one matrix than for several.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.resampling import nearest_volume, resampled_volume

VOLUMES: Final = 5  # axes of (scans, channels, depth, height, width)


@dataclass(frozen=True, slots=True)
class ViewRange:
    """How far a view may go. shift and scale: share of the half image; angle in radians; the rest are intensities.

    gain: contrast about the mean, 1 ± gain; offset: brightness ± offset; gamma: exponent exp(± gamma);
    noise: largest standard deviation of added noise; cutout: side of the erased box as share of the image's side.
    elastic: largest bend of a smooth field, as shift; bias: largest exponent of a smooth field that the image is
    multiplied by, as coils leave it on MR. mirrored: axes that may be turned over, 0 = width, 1 = height, 2 = depth.
    """

    shift: float
    scale: float
    angle: float
    gain: float
    offset: float
    gamma: float
    noise: float
    cutout: float
    elastic: float = 0.0
    bias: float = 0.0
    mirrored: tuple[int, ...] = ()


WEAK = ViewRange(shift=0.06, scale=0.04, angle=0.05, gain=0.05, offset=0.02, gamma=0.0, noise=0.0, cutout=0.0)
WIDE = ViewRange(
    shift=0.1, scale=0.2, angle=0.35, gain=0.15, offset=0.05, gamma=0.2, noise=0.0, cutout=0.0, elastic=0.08, bias=0.3
)
STRONG = ViewRange(shift=0.12, scale=0.12, angle=0.2, gain=0.3, offset=0.1, gamma=0.3, noise=0.05, cutout=0.25)


FIELD_POINTS = 4  # along each side, of a smooth field
_MIRRORS, _ELASTIC, _BIAS = 1, 2, 3  # added to the seed: each purpose has numbers of its own


@dataclass(frozen=True)
class ViewDraws:
    """The random part of the views of one patient's scans, one row a scan.

    Shapes: geometry (scans, dimensions + 1 + angles) in [-1, 1] (shift, scale, angles; 1 angle in 2-D, 3 in 3-D);
    intensity (scans, 4) in [-1, 1] (gain, offset, gamma, noise); cutout (scans, dimensions) in [0, 1]. ``noise_seed``:
    of white noise and hidden patches.
    """

    geometry: Tensor
    intensity: Tensor
    cutout: Tensor
    noise_seed: int


def draw_views(scans: int, *, dimensions: int, generator: torch.Generator) -> ViewDraws:
    """Draw views for ``scans`` scans of one patient; equal generators give equal draws on every device."""
    angles = 1 if dimensions == 2 else 3
    columns = dimensions + 1 + angles
    uniform = torch.rand(scans, columns + 4 + dimensions, generator=generator)
    seed = int(torch.randint(0, 2**62, (1,), generator=generator))
    symmetric = 2 * uniform[:, : columns + 4] - 1
    return ViewDraws(symmetric[:, :columns], symmetric[:, columns:], uniform[:, columns + 4 :], seed)


def apply_geometry(images: Tensor, draws: ViewDraws, limits: ViewRange, *, mode: str = "bilinear") -> Tensor:
    """Shift, scale, turn, bend and mirror each scan: (scans, channels, *size) -> the same shape.

    Equal draws move an image and its label map alike. Outside of the picture its border is repeated. ``mode``:
    "nearest" for label maps (as float).
    """
    matrices = inverse_affine(draws.geometry, limits, dimensions=images.ndim - 2)
    if limits.mirrored:
        matrices = matrices * _mirrors(draws, limits.mirrored)
    if images.ndim == VOLUMES and not limits.elastic:
        moved = resampled_volume if mode == "bilinear" else nearest_volume
        found = [moved(each, matrix)[None] for each, matrix in zip(images, matrices.tolist(), strict=True)]
        return found[0] if len(found) == 1 else torch.cat(found)
    grid = functional.affine_grid(matrices.to(images), list(images.shape), align_corners=False)
    if limits.elastic:
        bend = smooth_fields(draws.noise_seed + _ELASTIC, len(images), images.ndim - 2, size=images.shape[2:])
        grid = grid + limits.elastic * bend.to(images).movedim(1, -1)
    return functional.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def apply_intensity(images: Tensor, draws: ViewDraws, limits: ViewRange) -> Tensor:
    """Change contrast, brightness, gamma; add noise; erase one box (to the scan's mean): shape and type stay."""
    column = (-1, *(1,) * (images.ndim - 1))
    gain, offset, gamma, noise = (value.view(column) for value in draws.intensity.to(images).unbind(1))
    mean = images.flatten(1).mean(1).view(column)
    if limits.bias:
        field = smooth_fields(draws.noise_seed + _BIAS, len(images), 1, size=images.shape[2:]).to(images)
        images = images * torch.exp(limits.bias * field)
    changed = (images - mean).mul_(1 + limits.gain * gain).add_(mean).add_(limits.offset * offset)
    if limits.gamma:
        changed = changed.clamp_(0, 1).pow_(torch.exp(limits.gamma * gamma))
    if limits.noise:
        changed.add_(_white_noise(draws.noise_seed, images).mul_(limits.noise * noise.abs()))
    if limits.cutout:
        for scan, corner, grey in zip(changed, draws.cutout, mean, strict=True):
            scan[(slice(None), *_box(corner, images.shape[2:], limits.cutout))] = grey
    return changed


def view(images: Tensor, draws: ViewDraws, limits: ViewRange) -> Tensor:
    """Return one view of each scan: geometry, then intensity; (scans, channels, *size) -> the same shape."""
    return apply_intensity(apply_geometry(images, draws, limits), draws, limits)


def chosen_rows(features: Tensor, generator: Callable[[], torch.Generator]) -> Tensor:
    """Return one row of each scan: (scans, rows, features) -> (scans, features), the same bits as kept.

    Rows: the unchanged scan, then its weak views, of which one is drawn for each scan; without views the unchanged one,
    and no ``generator`` is made.
    """
    scans, rows = features.shape[:2]
    if rows == 1:
        return features[:, 0]
    drawn = torch.randint(1, rows, (scans,), generator=generator())
    return features[torch.arange(scans), drawn.to(features.device)]


def hide_patches(images: Tensor, share: float, draws: ViewDraws, *, side: int = 4) -> Tensor:
    """Set about ``share`` of the square patches of each scan to the scan's mean: (scans, channels, *size) -> the same.

    ``side``: of a patch in pixels. Source: He et al. 2022 (masked autoencoders).
    """
    coarse = tuple(-(-length // side) for length in images.shape[2:])
    generator = torch.Generator(device="cpu").manual_seed(draws.noise_seed)
    kept = (torch.rand(len(images), 1, *coarse, generator=generator) >= share).to(images)
    shown = functional.interpolate(kept, scale_factor=float(side), mode="nearest")
    shown = shown[(slice(None), slice(None), *(slice(length) for length in images.shape[2:]))]
    mean = images.flatten(1).mean(1).view(-1, *(1,) * (images.ndim - 1))
    return torch.where(shown > 0, images, mean)


def inverse_affine(geometry: Tensor, limits: ViewRange, *, dimensions: int) -> Tensor:
    """Return (scans, dimensions, dimensions + 1) float64 matrices that map output to input positions in [-1, 1].

    Shapes: geometry as in ``ViewDraws``. A scan's matrix is the same bits whichever scans are beside it.
    """
    matrices = [_matrix(row, limits, dimensions) for row in geometry.tolist()]
    return torch.tensor(matrices, dtype=torch.float64).view(-1, dimensions, dimensions + 1)


def smooth_fields(seed: int, scans: int, channels: int, *, size: Sequence[int]) -> Tensor:
    """Return smooth random fields, (scans, channels, *size) float32 in [-1, 1], one scan's from its own numbers.

    Uniform at ``FIELD_POINTS`` points along each side, linear between them. Source: Simard et al. 2003 (bending).
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    coarse = 2 * torch.rand(scans, channels, *(FIELD_POINTS for _ in size), generator=generator) - 1
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return functional.interpolate(coarse, size=tuple(size), mode=mode, align_corners=True)


def _mirrors(draws: ViewDraws, axes: Sequence[int]) -> Tensor:
    """Return -1 for each row of a scan's matrix that is turned over, else 1: (scans, dimensions, 1)."""
    scans, dimensions = draws.cutout.shape
    generator = torch.Generator(device="cpu").manual_seed(draws.noise_seed + _MIRRORS)
    turned = torch.rand(scans, dimensions, generator=generator) < 0.5
    allowed = torch.tensor([axis in axes for axis in range(dimensions)])
    return torch.where(turned & allowed, -1.0, 1.0).unsqueeze(-1)


def _white_noise(seed: int, images: Tensor) -> Tensor:
    """Return standard normal noise like ``images``, drawn where they are.

    A GPU's generator is Philox, which counts: the patient's seed and the place of a voxel give its number, whoever is
    drawn for before or beside. Processor and GPU give other numbers for one seed.
    """
    generator = torch.Generator(device=images.device).manual_seed(seed)
    return torch.randn(images.shape, generator=generator, device=images.device).to(images)


def _matrix(draw: Sequence[float], limits: ViewRange, dimensions: int) -> list[list[float]]:
    """Return one scan's matrix, rows of (scaled turn, shift)."""
    shift = [limits.shift * value for value in draw[:dimensions]]
    scale = math.exp(limits.scale * draw[dimensions])
    angles = [limits.angle * value for value in draw[dimensions + 1 :]]
    turn = rotation_2d(angles[0]) if dimensions == 2 else rotation_3d(angles[0], angles[1], angles[2])
    return [[*(scale * value for value in row), moved] for row, moved in zip(turn, shift, strict=True)]


def rotation_2d(angle: float) -> list[list[float]]:
    """Return the turn by ``angle`` radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return [[cosine, -sine], [sine, cosine]]


def rotation_3d(x: float, y: float, z: float) -> list[list[float]]:
    """Return the turn about (x, y, z) by its length in radians, element by element; no length: the identity.

    Source: Rodrigues' formula, cos I + sin K / length + (1 - cos) a a' / length^2, with 1 - cos = 2 sin^2(length / 2).
    """
    length = math.sqrt(x * x + y * y + z * z)
    cosine = math.cos(length)
    sine = math.sin(length) / length if length else 1.0
    rest = 2 * (math.sin(length / 2) / length) ** 2 if length else 0.5
    return [
        [cosine + rest * x * x, rest * x * y - sine * z, rest * x * z + sine * y],
        [rest * x * y + sine * z, cosine + rest * y * y, rest * y * z - sine * x],
        [rest * x * z - sine * y, rest * y * z + sine * x, cosine + rest * z * z],
    ]


def _box(corner: Tensor, size: torch.Size, share: float) -> list[slice]:
    """Return where the erased box lies on each axis; its corner (dimensions,) is uniform over the places it fits."""
    box = []
    for start, length in zip((corner * (1 - share)).unbind(), size, strict=True):
        position = (torch.arange(length) + 0.5) / length
        inside = ((position >= start) & (position < start + share)).nonzero().flatten().tolist()
        box.append(slice(inside[0], inside[-1] + 1) if inside else slice(0))
    return box

"""Volumes moved by an affine map, in two passes over planes: several times faster than voxel by voxel on a processor.

A line of the result along y meets each plane y = k of the scan in one point, as long as the map does not turn the line
by 90 degrees (views turn by a few). So

    1. each plane y = k is sampled (bilinear, over z and x) where the lines meet it      -> line by line, at all k
    2. along each line the result is linear between the two planes beside it

which has the weights of trilinear interpolation with the four in-plane weights taken at each plane's own point. Planes
are sampled by PyTorch's kernel for pictures, which uses the processor's vector instructions; that for volumes does not.
Source: Lacroute and Levoy 1994 (shear-warp factorisation).
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

TOGETHER: Final = 16  # planes: their grid stays in a processor's cache
Matrix = Sequence[Sequence[float]]


def resampled_volume(volume: Tensor, matrix: Matrix) -> Tensor:
    """Sample one volume at ``matrix`` times the place of each voxel: (channels, depth, height, width) -> the same.

    ``matrix``: 3 rows of 4, from output to input, over (x, y, z, 1) in [-1, 1] as ``functional.affine_grid`` has it,
    with matrix[1][1] not 0. Outside of the volume its border is repeated.
    """
    depth, height, width = volume.shape[1:]
    (xx, xy, xz, x0), (yx, yy, yz, y0), (zx, zy, zz, z0) = matrix
    x, y, z = (_centres(length, volume) for length in (width, height, depth))
    # 1. for each plane y = k of the scan: where the line of (z, x) meets it
    x_turn, z_turn = xy / yy, zy / yy
    across = torch.empty(depth, width, 2).to(volume)
    across[..., 0] = (xz - x_turn * yz) * z[:, None] + ((xx - x_turn * yx) * x + (x0 - x_turn * y0))
    across[..., 1] = (zz - z_turn * yz) * z[:, None] + ((zx - z_turn * yx) * x + (z0 - z_turn * y0))
    along = torch.stack((x_turn * y, z_turn * y), dim=-1)
    lines = _sampled(volume.permute(2, 0, 1, 3), across, along)  # (height, channels, depth, width)
    # 2. for each z: along y, at the very x
    within = torch.empty(height, width, 2).to(volume)
    within[..., 0] = x
    within[..., 1] = yy * y[:, None] + (yx * x + y0)
    moved = torch.stack((torch.zeros_like(z), yz * z), dim=-1)
    return _sampled(lines.permute(2, 1, 0, 3), within, moved).transpose(0, 1)


def nearest_volume(volume: Tensor, matrix: Matrix) -> Tensor:
    """Take the nearest voxel instead: for label maps; shapes and ``matrix`` as in ``resampled_volume``."""
    x, y, z = (_centres(length, volume) for length in reversed(volume.shape[1:]))
    places = torch.zeros((), dtype=torch.int64, device=volume.device)
    for row, length in zip(reversed(matrix), volume.shape[1:], strict=True):
        at = row[2] * z[:, None, None] + row[1] * y[:, None] + (row[0] * x + row[3])
        place = at.add_(1).mul_(length / 2).sub_(0.5).round_().clamp_(0, length - 1)
        places = places * length + place.long()
    return volume.flatten(1).index_select(1, places.flatten()).view_as(volume)


def _sampled(planes: Tensor, grid: Tensor, moved: Tensor) -> Tensor:
    """Sample each plane on the grid, moved for each: (n, channels, ...), (rows, columns, 2), (n, 2) -> like planes.

    Rows of the grid are moved as wholes, some planes at a time: pair by pair, or for all planes, takes longer than the
    sampling itself.
    """
    rows, columns, _ = grid.shape
    flat, steps = grid.view(rows, 2 * columns), moved.repeat(1, columns)[:, None]
    sampled = planes.new_empty(*planes.shape[:2], rows, columns)
    for start in range(0, len(planes), TOGETHER):
        some = slice(start, start + TOGETHER)
        places = (flat + steps[some]).view(-1, rows, columns, 2)
        sampled[some] = functional.grid_sample(
            planes[some], places, mode="bilinear", padding_mode="border", align_corners=False
        )
    return sampled


def _centres(length: int, like: Tensor) -> Tensor:
    """Return the centres of ``length`` cells between -1 and 1."""
    return ((2 * torch.arange(length, dtype=torch.float64) + 1) / length - 1).to(like)

"""Do these slices form one volume, and on which grid? Asked of their geometry before any pixel is decoded.

Real archives round positions, tilt the gantry and change the spacing on the way; all three are undone exactly, because
the true positions are known. What would be guessed is refused: a gap of a missing slice, two slices at one place.
Source of positions: DICOM PS3.3 section C.7.6.2 (image plane), C.7.6.16.2.3 (plane position of a frame).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.dicom.limits import MAX_SERIES_SLICES
from client.dicom.parts import MIN_SLICES, SAME_PLACE_MM
from client.dicom.reject import RejectCode, Rejected
from client.dicom.slices import Slice

ROUNDED = 0.2  # of the usual gap: a slice further off its place is at another place
SAME_GAP = 0.1
MOST_SPACINGS = 3
STEEPEST_TILT = 1.0  # sideways per millimetre along the normal: 45 degrees
LEAST_SHEAR_PX = 0.05  # over the whole volume; less is rounding
ANY_GRID_MM = (np.inf, np.inf, np.inf)

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The grid of a volume in the scanner's own axes (slice, row, column).

    ``affine`` (4, 4): index -> position in millimetres (LPS); ``spacing_mm``: of the three axes. ``depths``: place of
    each slice in steps of the grid, where the slices lie unevenly (empty: one slice at each step). ``offsets_px``:
    (row, column) at which each slice lies on the grid, where the gantry was tilted (empty: all at 0, 0).
    """

    shape: tuple[int, int, int]
    affine: Vector
    spacing_mm: tuple[float, float, float]
    depths: tuple[float, ...] = ()
    offsets_px: tuple[tuple[float, float], ...] = ()


def ordered(slices: Sequence[Slice], grid_mm: tuple[float, ...] = ANY_GRID_MM) -> tuple[list[Slice], Geometry]:
    """Return the slices in the order in which they lie along their normal, and the grid they form.

    The order of files, their names and InstanceNumber play no part. ``grid_mm``: spacing of the plan's grid (towards
    the head, back, left): a slice may lie half of it off its even place, and no more than a fifth of the usual gap.
    Raises: Rejected (``series_...``).
    """
    if len(slices) < MIN_SLICES:
        raise Rejected(RejectCode.SERIES_TOO_SHORT)
    if len(slices) > MAX_SERIES_SLICES:
        raise Rejected(RejectCode.SERIES_TOO_LARGE)
    axes = _axes(slices[0].orientation)
    depths = np.array([slice_.position for slice_ in slices]) @ axes[0]
    order = np.argsort(depths, kind="stable")
    in_order, depths = [slices[index] for index in order], depths[order]
    if np.diff(depths).min() < SAME_PLACE_MM:
        raise Rejected(RejectCode.SERIES_DUPLICATE_POSITION)
    step_mm, places = _steps(depths, _across(axes[0], grid_mm))
    return in_order, _sheared(_upright(in_order, axes, step_mm, places), in_order, axes, depths)


def single(slice_: Slice, thickness_mm: float) -> Geometry:
    """Return the grid of one slice by itself; its depth is the slice's thickness."""
    return _upright([slice_], _axes(slice_.orientation), thickness_mm, ())


def _axes(orientation: tuple[float, ...]) -> Vector:
    """Return unit vectors along slices, rows and columns; exactly orthogonal, as rounded cosines are not."""
    along_row = np.array(orientation[:3]) / np.linalg.norm(orientation[:3])
    down_column = np.array(orientation[3:])
    down_column = down_column - (down_column @ along_row) * along_row
    down_column /= np.linalg.norm(down_column)
    return np.stack([np.cross(along_row, down_column), down_column, along_row])


def _across(normal: Vector, grid_mm: tuple[float, ...]) -> float:
    """Return the spacing of the plan's grid along the axis (head, back, left) nearest to the normal."""
    return grid_mm[(2, 1, 0)[int(np.abs(normal).argmax())]]


def _steps(depths: Vector, grid_mm: float) -> tuple[float, tuple[float, ...]]:
    """Return the step of the grid, and the places of the slices on it in steps (empty when they are even).

    Raises: Rejected(series_missing_slice), Rejected(series_geometry).
    """
    count = len(depths)
    step = float(depths[-1] - depths[0]) / (count - 1)
    off = np.abs(depths - depths[0] - step * np.arange(count)).max()
    if off <= min(ROUNDED * step, grid_mm / 2):
        return step, ()
    gaps = np.diff(depths)
    smallest = float(gaps.min())
    kinds = np.rint(gaps / (SAME_GAP * smallest)).astype(np.int64)
    changes = np.flatnonzero(np.diff(kinds)) + 1
    lengths = np.diff([0, *changes, len(kinds)])
    if len(np.unique(kinds)) <= MOST_SPACINGS and lengths.min() >= 2:  # stretches of one spacing after another
        return smallest, tuple((depths - depths[0]) / smallest)
    steps = gaps / smallest
    is_multiple = bool(np.abs(steps - np.rint(steps)).max() < ROUNDED)
    raise Rejected(RejectCode.SERIES_MISSING_SLICE if is_multiple else RejectCode.SERIES_GEOMETRY)


def _upright(in_order: Sequence[Slice], axes: Vector, step_mm: float, places: tuple[float, ...]) -> Geometry:
    first = in_order[0]
    affine = np.eye(4)
    spacing_mm = (step_mm, *first.spacing_mm)
    affine[:3, :3] = (axes * np.array(spacing_mm)[:, None]).T
    affine[:3, 3] = first.position
    count = int(np.floor(places[-1] + 1e-6)) + 1 if places else len(in_order)
    return Geometry((count, first.rows, first.columns), affine, spacing_mm, places)


def _sheared(upright: Geometry, in_order: Sequence[Slice], axes: Vector, depths: Vector) -> Geometry:
    """Return the grid with room for slices that wander sideways (a tilted gantry), and where each lies on it.

    Raises: Rejected(series_tilted) beyond 45 degrees, Rejected(series_geometry) when the wandering is not steady.
    """
    spacing_mm = np.array(upright.spacing_mm[1:])
    positions = np.array([slice_.position for slice_ in in_order])
    sideways = (positions - positions[0]) @ axes[1:].T
    share = (depths - depths[0]) / (depths[-1] - depths[0])
    steady = share[:, None] * sideways[-1]
    if np.abs(sideways - steady).max() > max(0.5 * float(spacing_mm.min()), ROUNDED * upright.spacing_mm[0]):
        raise Rejected(RejectCode.SERIES_GEOMETRY)
    if np.abs(sideways[-1]).max() > STEEPEST_TILT * (depths[-1] - depths[0]):
        raise Rejected(RejectCode.SERIES_TILTED)
    if np.abs(sideways[-1] / spacing_mm).max() < LEAST_SHEAR_PX:
        return upright
    offsets = steady / spacing_mm
    start = np.minimum(offsets[-1], 0.0)
    room = np.ceil(np.abs(offsets[-1])).astype(np.int64)
    affine = upright.affine.copy()
    affine[:3, 3] += axes[1:].T @ (start * spacing_mm)
    shape = (upright.shape[0], upright.shape[1] + int(room[0]), upright.shape[2] + int(room[1]))
    places = tuple((float(row), float(column)) for row, column in offsets - start)
    return Geometry(shape, affine, upright.spacing_mm, upright.depths, places)

"""Do these slices form one volume? Asked of their geometry before any pixel is decoded.

The gatekeeper is highdicom's ``get_volume_positions`` (the same rules as its ``get_volume_from_series``): it refuses
what other readers accept in silence, such as a missing slice, two slices at one place, a tilted gantry, uneven spacing.
Source of positions: DICOM PS3.3 section C.7.6.2 (image plane), C.7.6.16.2.3 (plane position of a frame).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from highdicom.spatial import get_volume_positions
from pydicom.dataset import Dataset

from client.dicom.attributes import integer, numbers, text
from client.dicom.describe import pixel_spacing_mm
from client.dicom.facts import Facts
from client.dicom.limits import MAX_FRAMES, MAX_SERIES_SLICES
from client.dicom.pixels import functional_group
from client.dicom.reject import RejectCode, Rejected

MIN_SLICES = 3
MAX_POSITION_MM = 1e4
UNIT_TOLERANCE = 1e-2
SAME_DIRECTION = 1e-3
SAME_SPACING_MM = 1e-3
SAME_PLACE_MM = 1e-3
PERPENDICULAR = 1e-3

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Slice:
    """Where one frame lies: in which file, and in the patient (millimetres, LPS)."""

    file_index: int
    frame_index: int
    instance_key: str
    rows: int
    columns: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    frame_of_reference: str


@dataclass(frozen=True, slots=True)
class Geometry:
    """The grid of a volume in the scanner's own axes (slice, row, column).

    ``affine`` (4, 4): index -> position in millimetres (LPS); ``spacing_mm``: of the three axes.
    """

    shape: tuple[int, int, int]
    affine: Vector
    spacing_mm: tuple[float, float, float]


def slices_of(dataset: Dataset, file_index: int, facts: Facts) -> list[Slice]:
    """Return the place of each frame of a file.

    Raises: Rejected(series_geometry) when position, orientation or spacing is missing or nonsense.
    """
    frames = integer(dataset, "NumberOfFrames", 1)
    if not 1 <= frames <= MAX_FRAMES:
        raise Rejected(RejectCode.FRAMES)
    return [_slice_of(dataset, file_index, frame_index, facts) for frame_index in range(frames)]


def _slice_of(dataset: Dataset, file_index: int, frame_index: int, facts: Facts) -> Slice:
    place = functional_group(dataset, frame_index, "PlanePositionSequence") or dataset
    turn = functional_group(dataset, frame_index, "PlaneOrientationSequence") or dataset
    try:
        position = numbers(place, "ImagePositionPatient", 3, limit=MAX_POSITION_MM)
        orientation = numbers(turn, "ImageOrientationPatient", 6, limit=1 + UNIT_TOLERANCE)
    except Rejected:
        raise Rejected(RejectCode.SERIES_GEOMETRY) from None
    spacing_mm = pixel_spacing_mm(dataset, frame_index)
    if position is None or orientation is None or spacing_mm is None or not _is_orthonormal(orientation):
        raise Rejected(RejectCode.SERIES_GEOMETRY)
    return Slice(
        file_index=file_index,
        frame_index=frame_index,
        instance_key=facts.instance_key,
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        position=position,
        orientation=orientation,
        spacing_mm=spacing_mm,
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
    )


def _is_orthonormal(orientation: tuple[float, ...]) -> bool:
    along_row, down_column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = (np.linalg.norm(along_row), np.linalg.norm(down_column))
    return all(abs(n - 1) < UNIT_TOLERANCE for n in lengths) and abs(float(along_row @ down_column)) < UNIT_TOLERANCE


def ordered(slices: Sequence[Slice]) -> tuple[list[Slice], Geometry]:
    """Return the slices in the order in which they lie along their normal, and the grid they form.

    The order of files, their names and InstanceNumber play no part.
    Raises: Rejected (``series_...``).
    """
    if len(slices) < MIN_SLICES:
        raise Rejected(RejectCode.SERIES_TOO_SHORT)
    if len(slices) > MAX_SERIES_SLICES:
        raise Rejected(RejectCode.SERIES_TOO_LARGE)
    _refuse_mixed(slices)
    positions = [slice_.position for slice_ in slices]
    _, places = get_volume_positions(positions, slices[0].orientation, index_convention="RD")
    if places is None or _gaps(slices).min() < SAME_PLACE_MM:
        raise Rejected(_diagnosis(slices))
    by_place = sorted(zip(places, range(len(slices)), strict=True))
    in_order = [slices[index] for _, index in by_place]
    return in_order, _geometry(in_order)


def _refuse_mixed(slices: Sequence[Slice]) -> None:
    first = slices[0]
    for other in slices[1:]:
        same = (other.rows, other.columns, other.frame_of_reference) == (
            first.rows,
            first.columns,
            first.frame_of_reference,
        )
        same = same and np.allclose(other.orientation, first.orientation, rtol=0, atol=SAME_DIRECTION)
        if not (same and np.allclose(other.spacing_mm, first.spacing_mm, rtol=0, atol=SAME_SPACING_MM)):
            raise Rejected(RejectCode.SERIES_MIXED)


def _diagnosis(slices: Sequence[Slice]) -> RejectCode:
    """Tell why the gatekeeper refused."""
    positions = np.array([slice_.position for slice_ in slices])
    gaps = _gaps(slices)
    if (gaps < SAME_PLACE_MM).any():
        return RejectCode.SERIES_DUPLICATE_POSITION
    spans = positions[1:] - positions[0]
    along = np.abs(spans @ _normal(slices[0].orientation)) / np.linalg.norm(spans, axis=1)
    if (along < 1 - PERPENDICULAR).any():
        return RejectCode.SERIES_TILTED
    _, places = get_volume_positions(
        positions.tolist(), slices[0].orientation, allow_missing_positions=True, spacing_hint=float(np.median(gaps))
    )
    return RejectCode.SERIES_GEOMETRY if places is None else RejectCode.SERIES_MISSING_SLICE


def _gaps(slices: Sequence[Slice]) -> Vector:
    """Return the distances of neighbours along the normal, in millimetres."""
    positions = np.array([slice_.position for slice_ in slices])
    return np.diff(np.sort(positions @ _normal(slices[0].orientation)))


def _normal(orientation: tuple[float, ...]) -> Vector:
    return np.cross(orientation[:3], orientation[3:])


def _geometry(in_order: Sequence[Slice]) -> Geometry:
    first, last = in_order[0], in_order[-1]
    along_row = np.array(first.orientation[:3])
    along_row = along_row / np.linalg.norm(along_row)
    down_column = np.array(first.orientation[3:])
    down_column = down_column - (down_column @ along_row) * along_row  # exactly orthogonal, as rounded cosines are not
    down_column /= np.linalg.norm(down_column)
    normal = np.cross(along_row, down_column)
    start = np.array(first.position)
    step = float((np.array(last.position) - start) @ normal) / (len(in_order) - 1)
    affine = np.eye(4)
    affine[:3, 0] = normal * step
    affine[:3, 1] = down_column * first.spacing_mm[0]
    affine[:3, 2] = along_row * first.spacing_mm[1]
    affine[:3, 3] = start
    shape = (len(in_order), first.rows, first.columns)
    return Geometry(shape, affine, (abs(step), first.spacing_mm[0], first.spacing_mm[1]))

"""Where a frame lies in the patient, and what it is one of: read from the header, before any pixel is decoded.

Sources: DICOM PS3.3 section C.7.6.2 (image plane), C.7.6.16.2 (functional groups of a frame), C.8.13.5.9 (diffusion);
private b-values: the makers' conformance statements (Siemens 0019,100C; GE 0043,1039).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.dicom.attributes import integer, numbers, text, value_of, words
from client.dicom.describe import pixel_spacing_mm
from client.dicom.facts import Facts
from client.dicom.limits import MAX_FRAMES
from client.dicom.pixels import functional_group
from client.dicom.reject import RejectCode, Rejected

MAX_POSITION_MM = 1e4
UNIT_TOLERANCE = 1e-2
Mark = tuple[float, str]  # a number, or a word; compared and ordered, never kept
NO_MARK: Mark = (0.0, "")


@dataclass(frozen=True, slots=True)
class Slice:
    """Where one frame lies: in which file, and in the patient (millimetres, LPS).

    ``marks``: what tells volumes of one series apart, in the order of ``MARKS``.
    """

    file_index: int
    frame_index: int
    instance_key: str
    rows: int
    columns: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    frame_of_reference: str
    marks: tuple[Mark, ...] = ()


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
        marks=tuple(read(dataset, frame_index) for read in MARKS),
    )


def _is_orthonormal(orientation: tuple[float, ...]) -> bool:
    along_row, down_column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = (np.linalg.norm(along_row), np.linalg.norm(down_column))
    return all(abs(n - 1) < UNIT_TOLERANCE for n in lengths) and abs(float(along_row @ down_column)) < UNIT_TOLERANCE


def _marked(group: str, *keywords: str) -> Callable[[Dataset, int], Mark]:
    """Return a reader of the first of ``keywords`` in a frame's functional group, or else at the top level."""

    def read(dataset: Dataset, frame_index: int) -> Mark:
        own = functional_group(dataset, frame_index, group) if group else None
        sources = [dataset] if own is None else [own, dataset]
        values = [value_of(source, keyword) for source in sources for keyword in keywords]
        return _mark(next((value for value in values if value not in (None, "")), None))

    return read


def _mark(value: object) -> Mark:
    if isinstance(value, MultiValue):
        return 0.0, "\\".join(map(str, value))
    try:
        return NO_MARK if value is None else (float(value), "")  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0.0, str(value)


def _kind(dataset: Dataset, frame_index: int) -> Mark:
    """Return what the picture shows (magnitude or phase, water or fat): ImageType from the third value on."""
    group = functional_group(dataset, frame_index, "MRImageFrameTypeSequence")
    kinds = words(group, "FrameType") if group else words(dataset, "ImageType")
    return 0.0, "\\".join(kinds[2:])


def _b_value(dataset: Dataset, frame_index: int) -> Mark:
    found = _marked("MRDiffusionSequence", "DiffusionBValue")(dataset, frame_index)
    if found != NO_MARK:
        return found
    for owner, tag in (("SIEMENS MR HEADER", 0x0019100C), ("GEMS_PARM_01", 0x00431039)):
        creator = tag & 0xFFFF0000 | (tag & 0xFF00) >> 8
        if tag in dataset and creator in dataset and str(dataset[creator].value).strip() == owner:
            value = dataset[tag].value
            value = value[0] if isinstance(value, MultiValue) else value
            mark = _mark(value.decode("ascii", "replace") if isinstance(value, bytes) else value)
            return mark[0] % 1e9, mark[1]  # GE adds a billion to b-values of some sequences
    return NO_MARK


def _file(dataset: Dataset, _frame_index: int) -> Mark:
    """Return the instance of a multi-frame file, which is a volume by itself."""
    return 0.0, text(dataset, "SOPInstanceUID") if value_of(dataset, "NumberOfFrames") not in (None, "", 1) else ""


# The more a mark says about what the picture is, the earlier it stands: the first that tells the volumes apart is used.
MARKS: tuple[Callable[[Dataset, int], Mark], ...] = (
    _marked("FrameContentSequence", "StackID"),
    _marked("CTReconstructionSequence", "ConvolutionKernel"),
    _kind,
    _marked("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    _b_value,
    _marked("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier"),
    _marked("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
    _marked("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", "TriggerTime"),
    _marked("", "AcquisitionTime"),
    _file,
)

"""RT structure sets as planning systems write them: named structures, each of contours in millimetres.

Sources: DICOM PS3.3 sections A.19 (object), C.8.8.5 (structures), C.8.8.6 (contours), C.8.8.8 (what they are).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from client.dicom.attributes import integer, numbers, text, word
from client.dicom.class_names import plain
from client.dicom.reject import RejectCode, Rejected
from client.dicom.slices import MAX_POSITION_MM

CONTOUR_DATA = 0x30060050
MAX_STRUCTURES, MAX_CONTOURS, MAX_POINTS = 1024, 1 << 16, 1 << 21
MAX_NUMBER_CHARACTERS = 32
CLOSED, EXCLUSIVE = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"
# What PS3.3 section C.8.8.8.1 calls a structure that is no part of a patient, or all of the patient: no class unless
# its name says so.
NO_ANATOMY = frozenset(
    {"EXTERNAL", "BOLUS", "SUPPORT", "FIXATION", "ISOCENTER", "MARKER", "REGISTRATION", "DOSE_REGION", "CONTROL",
     "DOSE_MEASUREMENT", "TREATED_VOLUME", "IRRAD_VOLUME", "BRACHY_CHANNEL", "BRACHY_ACCESSORY", "BRACHY_SRC_APP",
     "BRACHY_CHNL_SHLD"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contour:
    """One contour. ``points_mm``: (points, 3), LPS; ``images``: UIDs of the images it says it was drawn on."""

    kind: str
    points_mm: npt.NDArray[np.float64]
    images: tuple[str, ...]


@dataclass(slots=True)
class Structure:
    """One named structure (ROI) and its contours."""

    names: tuple[str, ...]
    frame_of_reference: str
    interpretation: str = ""
    contours: list[Contour] = field(default_factory=list)

    @property
    def plain_names(self) -> list[str]:
        """Names in the form in which names are compared."""
        return [plain(name) for name in self.names]

    @property
    def is_drawn(self) -> bool:
        """Whether it has an outline that could be a part of the patient (not only points, paths or the couch)."""
        closed = any(contour.kind in (CLOSED, EXCLUSIVE) for contour in self.contours)
        return closed and self.interpretation not in NO_ANATOMY


def series_drawn_on(dataset: Dataset) -> set[str]:
    """Return the UIDs of the series a structure set says it was drawn on."""
    return {str(series.SeriesInstanceUID) for series in _series(dataset) if series.get("SeriesInstanceUID")}


def images_drawn_on(dataset: Dataset) -> set[str]:
    """Return the UIDs of the images a structure set, or any contour in it, says it was drawn on."""
    holders = [*_series(dataset), *(one for roi in _items(dataset, "ROIContourSequence") for one in _contours(roi))]
    return {uid for holder in holders for uid in _image_uids(holder)}


def _series(dataset: Dataset) -> Iterator[Dataset]:
    for frame in _items(dataset, "ReferencedFrameOfReferenceSequence"):
        for study in _items(frame, "RTReferencedStudySequence"):
            yield from _items(study, "RTReferencedSeriesSequence")


def _contours(roi: Dataset) -> list[Dataset]:
    return _items(roi, "ContourSequence")


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    return list(dataset.get(keyword) or [])


def _image_uids(holder: Dataset) -> tuple[str, ...]:
    images = _items(holder, "ContourImageSequence")
    return tuple(text(image, "ReferencedSOPInstanceUID") for image in images if "ReferencedSOPInstanceUID" in image)


def read_structures(dataset: Dataset) -> list[Structure]:
    """Read structures and contours; how many there are is held against the limits before any number is converted.

    Raises: Rejected(segmentation_unreadable, segmentation_too_large).
    """
    listed, drawn = _items(dataset, "StructureSetROISequence"), _items(dataset, "ROIContourSequence")
    contours = sum(len(_contours(roi)) for roi in drawn)
    if max(len(listed), len(drawn)) > MAX_STRUCTURES or contours > MAX_CONTOURS:
        raise Rejected(RejectCode.SEGMENTATION_TOO_LARGE)
    structures = {
        integer(roi, "ROINumber"): Structure((text(roi, "ROIName"),), text(roi, "ReferencedFrameOfReferenceUID"))
        for roi in listed
    }
    if len(structures) != len(listed):
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE)  # one number for two structures
    for observation in _items(dataset, "RTROIObservationsSequence"):
        structure = structures.get(integer(observation, "ReferencedROINumber"))
        if structure is not None:
            meanings = (text(code, "CodeMeaning") for code in _items(observation, "RTROIIdentificationCodeSequence"))
            structure.names += (text(observation, "ROIObservationLabel"), *meanings)
            structure.interpretation = word(observation, "RTROIInterpretedType")
    left = MAX_POINTS
    for roi in drawn:
        structure = structures.get(integer(roi, "ReferencedROINumber"))
        if structure is None:
            raise Rejected(RejectCode.SEGMENTATION_UNREADABLE)
        for contour in _contours(roi):
            structure.contours.append(_contour(contour, left))
            left -= len(structure.contours[-1].points_mm)
    return list(structures.values())


def _contour(contour: Dataset, most_points: int) -> Contour:
    points = _points_mm(contour, most_points)
    if len(points) != integer(contour, "NumberOfContourPoints", len(points)):
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE)
    offset = numbers(contour, "ContourOffsetVector", 3, limit=MAX_POSITION_MM)
    return Contour(word(contour, "ContourGeometricType"), points + np.array(offset or (0, 0, 0)), _image_uids(contour))


def _points_mm(contour: Dataset, most_points: int) -> npt.NDArray[np.float64]:
    """Convert the bytes at once: as pydicom's numbers a large structure set would need gigabytes."""
    value: Any = getattr(contour.get_item(CONTOUR_DATA), "value", None) if CONTOUR_DATA in contour else None
    if not value:
        return np.empty((0, 3))
    is_raw = isinstance(value, bytes)
    count = value.count(b"\\") + 1 if is_raw else len(value)
    if count > 3 * most_points or (is_raw and len(value) > count * MAX_NUMBER_CHARACTERS):
        raise Rejected(RejectCode.SEGMENTATION_TOO_LARGE)
    try:
        words = [word.strip(b" \0") for word in value.split(b"\\")] if is_raw else list(value)
        points: npt.NDArray[np.float64] = np.array(words).astype(np.float64).reshape(-1, 3)
    except ValueError:
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE) from None
    if not np.abs(points).max() <= MAX_POSITION_MM:  # also no number
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE)
    return points

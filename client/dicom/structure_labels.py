"""A structure set and the images it was drawn on -> class numbers on the images' grid.

Contours lie on the slices of the images, or they are refused: nothing is interpolated between slices, and no contour is
moved to one. Millimetres become rows and columns by the same geometry that masks are held against.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from highdicom import VolumeGeometry
from pydicom.dataset import Dataset

from client.dicom.attributes import numbers
from client.dicom.class_names import class_numbers
from client.dicom.describe import describe
from client.dicom.facts import OTHER
from client.dicom.outlines import Outline, combined, filled
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode, Rejected
from client.dicom.series import single
from client.dicom.slices import slices_of
from client.dicom.structure_set import CLOSED, EXCLUSIVE, Contour, Structure, read_structures

Labels = npt.NDArray[np.uint8]
MIN_THICKNESS_MM = 1.0
OFF_SLICE = 0.2  # of the gap between slices: further off nobody knows to which of two slices a contour belongs


@dataclass(frozen=True, slots=True)
class DrawnOn:
    """The images of one record: grid, frame of reference ("" = not said), keyed names of the instances."""

    geometry: VolumeGeometry
    frame_of_reference: str
    instance_keys: frozenset[str]
    names: Pseudonyms

    def holds(self, contour: Contour) -> bool:
        """Tell whether a contour is on these images, as far as it says; one that names no image may be."""
        keys = {self.names.label_key("SOPInstanceUID", uid) for uid in contour.images}
        return not keys or not keys.isdisjoint(self.instance_keys)


def picture_drawn_on(picture: Dataset, names: Pseudonyms) -> DrawnOn:
    """Return what is known about one 2-D picture with a place in the patient, from its header.

    Raises: Rejected(segmentation_geometry) for one without, as most X-rays are.
    """
    try:
        (slice_,) = slices_of(picture, 0, describe(picture, OTHER, names))
        thickness = numbers(picture, "SliceThickness", 1)
    except (Rejected, ValueError):
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY) from None
    geometry = single(slice_, max(thickness[0], MIN_THICKNESS_MM) if thickness else MIN_THICKNESS_MM)
    grid = VolumeGeometry(geometry.affine, geometry.shape, "PATIENT")
    return DrawnOn(grid, slice_.frame_of_reference, frozenset({slice_.instance_key}), names)


def structure_labels(dataset: Dataset, classes: Sequence[str], words: Mapping[str, str], images: DrawnOn) -> Labels:
    """Return class numbers (slices, rows, columns) uint8; where nobody drew is background.

    ``words``: see ``class_names``. Where two structures overlap the higher class number wins.
    Raises: Rejected (``segmentation_...``).
    """
    of_class = _of_study(read_structures(dataset), classes, words)
    result = np.zeros(images.geometry.spatial_shape, np.uint8)
    is_here = False
    for number, structure in sorted(of_class, key=lambda item: item[0]):
        if any(contour.kind not in (CLOSED, EXCLUSIVE) for contour in structure.contours):
            raise Rejected(RejectCode.SEGMENTATION_CONTOURS)
        if len({structure.frame_of_reference, images.frame_of_reference} - {""}) > 1:
            raise Rejected(RejectCode.SEGMENTATION_FRAME)
        contours = [contour for contour in structure.contours if images.holds(contour) and len(contour.points_mm)]
        is_here = is_here or bool(contours)
        _draw(result, number, contours, images.geometry)
    if not any(structure.contours for _, structure in of_class):  # a template: no statement about these images
        raise Rejected(RejectCode.SEGMENTATION_CONTOURS)
    if not is_here and len(result) > 1:
        raise Rejected(RejectCode.SEGMENTATION_UNMATCHED)
    return result


def _of_study(
    structures: Sequence[Structure], classes: Sequence[str], words: Mapping[str, str]
) -> list[tuple[int, Structure]]:
    """Return the structures that are classes of the study; points, couches and the like need not be known."""
    known = {*classes, *words}
    wanted = {
        number: structure
        for number, structure in enumerate(structures)
        if structure.is_drawn or not known.isdisjoint(structure.plain_names)
    }
    if not wanted:
        raise Rejected(RejectCode.SEGMENTATION_CLASSES)
    numbers = class_numbers({number: structure.names for number, structure in wanted.items()}, classes, words)
    return [(numbers[number], structure) for number, structure in wanted.items() if number in numbers]


def _draw(result: Labels, number: int, contours: Sequence[Contour], geometry: VolumeGeometry) -> None:
    shape = (result.shape[1], result.shape[2])
    outlines: dict[int, list[Outline]] = {}
    exclusive = any(contour.kind == EXCLUSIVE for contour in contours)
    for contour in contours:
        places = geometry.map_reference_to_indices(contour.points_mm)
        slice_ = round(float(places[0, 0]))
        if not contour.images and not 0 <= slice_ < len(result):
            continue
        if np.abs(places[:, 0] - slice_).max() > OFF_SLICE or not 0 <= slice_ < len(result):
            raise Rejected(RejectCode.SEGMENTATION_GEOMETRY)
        outlines.setdefault(slice_, []).append(filled(places[:, 1:], shape))
    _refuse_stripes(sorted(outlines))
    for slice_, drawn in outlines.items():
        result[slice_][combined(drawn, shape, exclusive=exclusive)] = number


def _refuse_stripes(slices: Sequence[int]) -> None:
    """Refuse a structure drawn on every second (third, ...) slice: what lies between would count as background."""
    steps = [after - before for before, after in pairwise(slices)]
    if len(steps) < 2 or min(steps) == 1:
        return
    _, often = Counter(steps).most_common(1)[0]
    if 2 * often > len(steps):
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY)

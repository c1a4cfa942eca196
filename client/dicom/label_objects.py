"""DICOM objects in which experts drew on images (SEG, RTSTRUCT): which images those are, and the class numbers.

Sources: PS3.3 sections C.12.2 and C.7.6.16.2.6 (references of a segmentation), C.8.8.5 (of a structure set).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset

from client.dicom.attributes import instance_uid, integer
from client.dicom.header import read_header
from client.dicom.kinds import SEGMENTATION_CLASSES
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.segmentation import open_segmentation, seg_image, seg_volume
from client.dicom.structure_labels import DrawnOn, picture_drawn_on, structure_labels
from client.dicom.structure_set import images_drawn_on, series_drawn_on

Labels = npt.NDArray[np.uint8]
LABEL_OBJECTS = SEGMENTATION_CLASSES | {uid.RTStructureSetStorage}


def holds_labels(dataset: Dataset) -> bool:
    """Tell whether this is an object that experts draw in."""
    return dataset.get("SOPClassUID") in LABEL_OBJECTS


def referenced_uids(dataset: Dataset, *, instances: bool) -> set[str]:
    """Return the series (or the instances) an object says it was drawn on.

    Instances are also named frame by frame, or contour by contour, by objects that leave the list out.
    """
    if _is_structure_set(dataset):
        return images_drawn_on(dataset) if instances else series_drawn_on(dataset)
    series = list(dataset.get("ReferencedSeriesSequence") or [])
    if not instances:
        return {str(item.SeriesInstanceUID) for item in series if item.get("SeriesInstanceUID")}
    images = [image for item in series for image in item.get("ReferencedInstanceSequence") or []]
    images += [image for frame in dataset.get("PerFrameFunctionalGroupsSequence") or [] for image in _sources(frame)]
    return {str(image.ReferencedSOPInstanceUID) for image in images if image.get("ReferencedSOPInstanceUID")}


def _sources(frame: Dataset) -> list[Dataset]:
    derivations = frame.get("DerivationImageSequence") or []
    return [image for derivation in derivations for image in derivation.get("SourceImageSequence") or []]


def _is_structure_set(dataset: Dataset) -> bool:
    return bool(dataset.get("SOPClassUID") == uid.RTStructureSetStorage)


def drawn_on_volume(content: bytes, classes: Sequence[str], words: Mapping[str, str], images: DrawnOn) -> Labels:
    """Return the class numbers (slices, rows, columns) uint8 that one object gives a volume.

    ``words``: what the hospital's own names of segments and structures mean (``class_names``).
    Raises: Rejected (``segmentation_...``).
    """
    dataset = read_header(content, whole=True)
    if _is_structure_set(dataset):
        return structure_labels(dataset, classes, words, images)
    return seg_volume(open_segmentation(dataset), classes, words, images.geometry)


def drawn_on_picture(
    content: bytes, classes: Sequence[str], words: Mapping[str, str], picture: Dataset, names: Pseudonyms
) -> Labels:
    """Return the class numbers (rows, columns) uint8 that one object gives a picture, of which the header is given.

    Raises: Rejected (``segmentation_...``).
    """
    dataset = read_header(content, whole=True)
    if _is_structure_set(dataset):
        (drawn,) = structure_labels(dataset, classes, words, picture_drawn_on(picture, names))
        return np.asarray(drawn)
    shape = integer(picture, "Rows"), integer(picture, "Columns")
    own_uid = instance_uid(picture, "SOPInstanceUID")
    return seg_image(open_segmentation(dataset), classes, words, own_uid, shape)

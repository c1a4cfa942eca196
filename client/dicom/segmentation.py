"""Expert segmentations: DICOM SEG objects, NIfTI and PNG masks, brought to the scanner's grid as class numbers.

A mask is taken only if its grid is the image's grid up to turning, flipping, cutting and filling; it is never resampled
onto another grid by guessing. Sources: DICOM PS3.3 section A.51 (segmentation), C.8.20; NIfTI-1 (affine in RAS).
"""

import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from highdicom import Volume, VolumeGeometry
from highdicom.seg import Segmentation
from PIL import Image
from pydicom.dataset import Dataset

from client.dicom.attributes import integer
from client.dicom.header import NATIVE, read_header
from client.dicom.limits import MAX_FRAME_BYTES, MAX_INFLATED_BYTES, MAX_VOLUME_VOXELS
from client.dicom.reject import RejectCode, Rejected

Labels = npt.NDArray[np.uint8]
GRID_TOLERANCE = 1e-3  # mm and direction cosines: masks pass through float32 affines
GZIP = 16 + zlib.MAX_WBITS


def referenced_uids(dataset: Dataset, *, instances: bool) -> set[str]:
    """Return the series (or the instances) a SEG object says it was drawn on (PS3.3 section C.12.2)."""
    series = list(dataset.get("ReferencedSeriesSequence") or [])
    if not instances:
        return {str(item.SeriesInstanceUID) for item in series if item.get("SeriesInstanceUID")}
    images = [image for item in series for image in item.get("ReferencedInstanceSequence") or []]
    return {str(image.ReferencedSOPInstanceUID) for image in images if image.get("ReferencedSOPInstanceUID")}


def open_segmentation(content: bytes) -> Segmentation:
    """Parse a SEG object, within the same bounds as an image.

    Raises: Rejected(segmentation_unreadable).
    """
    dataset = read_header(content, whole=True)
    try:
        _check_length(dataset)
        return Segmentation.from_dataset(dataset, copy=False)
    except Rejected:
        raise
    except MemoryError:
        raise Rejected(RejectCode.MEMORY) from None
    except Exception:  # noqa: BLE001 (a parser may throw anything)
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE) from None


def _check_length(dataset: Dataset) -> None:
    """Hold the length of the frames against their description: highdicom would take the rest from nowhere."""
    voxels = integer(dataset, "NumberOfFrames") * integer(dataset, "Rows") * integer(dataset, "Columns")
    bits = integer(dataset, "BitsAllocated")
    if bits not in (1, 8, 16) or not 0 < voxels <= 8 * MAX_FRAME_BYTES:
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE)
    expected = -(-voxels * bits // 8)
    plain = dataset.file_meta.TransferSyntaxUID in NATIVE
    if "PixelData" not in dataset or (plain and not expected <= len(dataset.PixelData) <= expected + 1):
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE)


def class_of_segments(segmentation: Segmentation, classes: Sequence[str]) -> dict[int, int]:
    """Return the class number of each segment: by its label, else its type, else the only one there can be.

    Raises: Rejected(segmentation_classes) when a segment is none of the study's classes.
    """
    result = {}
    numbers = list(segmentation.segment_numbers)
    for number in numbers:
        description = segmentation.get_segment_description(number)
        names = (str(description.segment_label), str(description.segmented_property_type.meaning))
        known = [classes.index(_plain(name)) for name in names if _plain(name) in classes]
        if not known and not (len(numbers) == 1 and len(classes) == 2):
            raise Rejected(RejectCode.SEGMENTATION_CLASSES)
        result[number] = known[0] if known else 1
    return result


def _plain(name: str) -> str:
    return " ".join(name.lower().split())


def seg_volume(segmentation: Segmentation, classes: Sequence[str], geometry: VolumeGeometry) -> Labels:
    """Return class numbers (slices, rows, columns) uint8 on the image's grid; slices nobody drew on are background.

    Where two segments overlap the higher class number wins.
    Raises: Rejected (``segmentation_...``).
    """
    of_segment = class_of_segments(segmentation, classes)
    result = np.zeros(geometry.spatial_shape, np.uint8)
    for number, class_number in sorted(of_segment.items(), key=lambda item: item[1]):
        try:
            drawn = segmentation.get_volume(segment_numbers=[number], combine_segments=True, relabel=True)
        except Exception:  # noqa: BLE001
            raise Rejected(RejectCode.SEGMENTATION_GEOMETRY) from None
        result[_on_grid(drawn, geometry) > 0] = class_number
    return result


def seg_image(segmentation: Segmentation, classes: Sequence[str], instance_uid: str, shape: tuple[int, int]) -> Labels:
    """Return class numbers (rows, columns) uint8 of one 2-D image a SEG object was drawn on.

    Raises: Rejected (``segmentation_...``).
    """
    of_segment = class_of_segments(segmentation, classes)
    result = np.zeros(shape, np.uint8)
    for number, class_number in sorted(of_segment.items(), key=lambda item: item[1]):
        try:
            drawn = segmentation.get_pixels_by_source_instance(
                [instance_uid],
                segment_numbers=[number],
                combine_segments=True,
                relabel=True,
                ignore_spatial_locations=True,
                assert_missing_frames_are_empty=True,
            )[0]
        except Exception:  # noqa: BLE001
            raise Rejected(RejectCode.SEGMENTATION_GEOMETRY) from None
        if drawn.shape != shape:
            raise Rejected(RejectCode.SEGMENTATION_GEOMETRY)
        result[drawn > 0] = class_number
    return result


def png_image(content: bytes, classes: Sequence[str], shape: tuple[int, int]) -> Labels:
    """Return the class numbers (rows, columns) uint8 of a PNG mask of one picture.

    If the study has one class besides the background, white (255) is that class.
    Raises: Rejected (``segmentation_...``).
    """
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            fits = image.size == (shape[1], shape[0]) and image.mode in ("1", "L", "P")
            values = np.asarray(image.convert("L") if image.mode == "1" else image, np.uint8) if fits else None
    except MemoryError:
        raise Rejected(RejectCode.MEMORY) from None
    except Exception:  # noqa: BLE001
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE) from None
    if values is None:
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY)
    if len(classes) == 2:
        values = np.where(values == 255, 1, values).astype(np.uint8)
    if values.max() >= len(classes):
        raise Rejected(RejectCode.SEGMENTATION_CLASSES)
    return values


def nifti_volume(content: bytes, classes: Sequence[str], geometry: VolumeGeometry) -> Labels:
    """Return the class numbers of a NIfTI mask on the image's grid.

    The affine is turned from RAS (NIfTI) to LPS (DICOM); values must be whole class numbers of the study.
    Raises: Rejected (``segmentation_...``).
    """
    try:
        image = nib.Nifti1Image.from_bytes(_gunzipped(content))
        values = _bounded_values(image)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    except (Rejected, MemoryError):
        raise
    except Exception:  # noqa: BLE001
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE) from None
    if not np.isin(np.unique(values), np.arange(len(classes))).all():
        raise Rejected(RejectCode.SEGMENTATION_CLASSES)
    try:
        drawn = Volume(values.astype(np.uint8), affine, "PATIENT")
    except ValueError:
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY) from None
    if sorted(drawn.spatial_shape) != sorted(geometry.spatial_shape):
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY)
    return _on_grid(drawn, geometry)


def _bounded_values(image: nib.Nifti1Image) -> npt.NDArray[Any]:
    if len(image.shape) != 3 or np.prod(image.shape) > MAX_VOLUME_VOXELS:
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY)
    return np.asanyarray(image.dataobj)


def _gunzipped(content: bytes) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    inflater = zlib.decompressobj(GZIP)
    inflated = inflater.decompress(content, MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail or not inflater.eof:
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE)
    return inflated


def _on_grid(drawn: Volume, geometry: VolumeGeometry) -> Labels:
    try:
        matched = drawn.match_geometry(geometry, tol=GRID_TOLERANCE)
    except MemoryError:
        raise Rejected(RejectCode.MEMORY) from None
    except Exception:  # noqa: BLE001
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY) from None
    return np.asarray(matched.array, np.uint8)

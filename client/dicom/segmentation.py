"""Expert segmentations: DICOM SEG objects, NIfTI and PNG masks, brought to the scanner's grid as class numbers.

A mask is taken only if its grid is the image's grid up to turning, flipping, cutting and filling; it is never resampled
onto another grid by guessing. Sources: DICOM PS3.3 section A.51 (segmentation), C.8.20; NIfTI-1 (affine in RAS).
"""

import zlib
from collections.abc import Mapping, Sequence
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
from client.dicom.class_names import class_numbers
from client.dicom.header import NATIVE
from client.dicom.limits import MAX_FRAME_BYTES, MAX_INFLATED_BYTES, MAX_VOLUME_VOXELS
from client.dicom.reject import RejectCode, Rejected

Labels = npt.NDArray[np.uint8]
# Programs round the numbers of a grid to three digits: where a mask begins that is nothing, over 512 voxels up to half
# of one. Beyond that the mask was drawn on another grid.
ORIGIN_TOLERANCE, FAR_TOLERANCE = 0.1, 0.5  # voxels of the image
GRID_TOLERANCE = 1e-6  # after the mask's grid was snapped to the image's
WHOLE_NUMBER = 1e-3  # values of a mask that was stored with a scale
GZIP, GZIP_START = 16 + zlib.MAX_WBITS, b"\x1f\x8b"
MAX_GZIP_MEMBERS = 4096
NIFTI_2 = (540).to_bytes(4, "big")  # length of the header, in either byte order


def open_segmentation(dataset: Dataset) -> Segmentation:
    """Understand a SEG object that was read whole, within the same bounds as an image.

    Raises: Rejected(segmentation_unreadable).
    """
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


def class_of_segments(
    segmentation: Segmentation, classes: Sequence[str], words: Mapping[str, str]
) -> list[tuple[int, int]]:
    """Return each segment of the study and its class number, by its label, else its type; rising by class.

    Raises: Rejected(segmentation_classes).
    """
    described = {number: segmentation.get_segment_description(number) for number in segmentation.segment_numbers}
    names = {n: (str(one.segment_label), str(one.segmented_property_type.meaning)) for n, one in described.items()}
    return sorted(class_numbers(names, classes, words).items(), key=lambda item: item[1])


def seg_volume(
    segmentation: Segmentation, classes: Sequence[str], words: Mapping[str, str], geometry: VolumeGeometry
) -> Labels:
    """Return class numbers (slices, rows, columns) uint8 on the image's grid; slices nobody drew on are background.

    ``words``: what the hospital's own names of segments mean (``class_names``).
    Where two segments overlap the higher class number wins.
    Raises: Rejected (``segmentation_...``).
    """
    result = np.zeros(geometry.spatial_shape, np.uint8)
    for number, class_number in class_of_segments(segmentation, classes, words):
        try:
            drawn = segmentation.get_volume(segment_numbers=[number], combine_segments=True, relabel=True)
        except Exception:  # noqa: BLE001
            raise Rejected(RejectCode.SEGMENTATION_GEOMETRY) from None
        result[_on_grid(_on_image_grid(drawn, geometry), geometry) > 0] = class_number
    return result


def seg_image(
    segmentation: Segmentation,
    classes: Sequence[str],
    words: Mapping[str, str],
    instance_uid: str,
    shape: tuple[int, int],
) -> Labels:
    """Return class numbers (rows, columns) uint8 of one 2-D image a SEG object was drawn on.

    Raises: Rejected (``segmentation_...``).
    """
    result = np.zeros(shape, np.uint8)
    for number, class_number in class_of_segments(segmentation, classes, words):
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
        plain = _gunzipped(content)
        is_second = NIFTI_2 in (plain[:4], plain[3::-1])
        image = (nib.Nifti2Image if is_second else nib.Nifti1Image).from_bytes(plain)
        values = _bounded_values(image)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    except (Rejected, MemoryError):
        raise
    except Exception:  # noqa: BLE001
        raise Rejected(RejectCode.SEGMENTATION_UNREADABLE) from None
    try:
        drawn = Volume(_class_numbers(values, len(classes)), _snapped(affine, values.shape, geometry), "PATIENT")
    except ValueError:
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY) from None
    return _on_grid(drawn, geometry)


def _bounded_values(image: nib.Nifti1Image) -> npt.NDArray[Any]:
    """Return the values of a 3-D mask, or of a 4-D one with a single frame."""
    if len(image.shape) < 3 or np.prod(image.shape[3:]) != 1 or np.prod(image.shape) > MAX_VOLUME_VOXELS:
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY)
    values: npt.NDArray[Any] = np.asanyarray(image.dataobj).reshape(image.shape[:3])
    return values


def _class_numbers(values: npt.NDArray[Any], classes: int) -> Labels:
    """Return a mask's values as class numbers; 255 is the only class besides the background, as in a PNG."""
    whole: npt.NDArray[Any] = np.rint(values)
    if not np.isfinite(values).all() or np.abs(whole - values).max(initial=0) > WHOLE_NUMBER:
        raise Rejected(RejectCode.SEGMENTATION_CLASSES)
    present = set(np.unique(whole).tolist())
    if classes == 2 and present <= {0, 255}:
        whole = whole > 0
    elif not present <= set(range(classes)):
        raise Rejected(RejectCode.SEGMENTATION_CLASSES)
    numbers: Labels = whole.astype(np.uint8)
    return numbers


def _snapped(
    affine: npt.NDArray[np.float64], shape: tuple[int, ...], geometry: VolumeGeometry, *, within: bool = True
) -> npt.NDArray[np.float64]:
    """Return the mask's affine as the image's grid turned, flipped and moved by whole voxels.

    ``within``: a mask may be a part of the image, and may not reach beyond it.
    Raises: Rejected(segmentation_geometry) when the mask was drawn on another grid.
    """
    to_image = np.linalg.solve(geometry.affine, affine)
    whole = np.rint(to_image)
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]).T * np.array([*shape, 1])[:, None]
    corners[:3] -= np.minimum(corners[:3], 1)  # the last voxel, not the one after it
    apart = np.abs((to_image - whole) @ corners)[:3].max(axis=0)
    places = (whole @ corners)[:3]
    inside = not within or ((places >= 0).all() and (places < np.array(geometry.spatial_shape)[:, None]).all())
    is_turned = (np.abs(whole[:3, :3]).sum(axis=0) == 1).all() and (np.abs(whole[:3, :3]).sum(axis=1) == 1).all()
    if not (is_turned and inside and apart[0] <= ORIGIN_TOLERANCE and apart.max() <= FAR_TOLERANCE):
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY)
    return np.asarray(geometry.affine @ whole)


def _gunzipped(content: bytes) -> bytes:
    """Inflate within the budget; a file may have several members one after the other (RFC 1952 section 2.2)."""
    parts: list[bytes] = []
    while content[:2] == GZIP_START and len(parts) < MAX_GZIP_MEMBERS:
        inflater = zlib.decompressobj(GZIP)
        room = MAX_INFLATED_BYTES - sum(map(len, parts))
        parts.append(inflater.decompress(content, max(room, 1)))
        if inflater.unconsumed_tail or not inflater.eof or not room:
            raise Rejected(RejectCode.SEGMENTATION_UNREADABLE)
        content = inflater.unused_data
    return b"".join(parts) if parts else content


def _on_image_grid(drawn: Volume, geometry: VolumeGeometry) -> Volume:
    affine = _snapped(drawn.affine, drawn.spatial_shape, geometry, within=False)
    return Volume(np.asarray(drawn.array), affine, "PATIENT")


def _on_grid(drawn: Volume, geometry: VolumeGeometry) -> Labels:
    try:
        matched = drawn.match_geometry(geometry, tol=GRID_TOLERANCE)
    except MemoryError:
        raise Rejected(RejectCode.MEMORY) from None
    except Exception:  # noqa: BLE001
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY) from None
    return np.asarray(matched.array, np.uint8)

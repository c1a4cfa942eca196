"""Stored values -> numbers with a meaning: rescaled, never inverted, padding taken out, grey or red, green, blue.

    value = stored * slope + intercept                                     (PS3.3 section C.11.1.1.2)
    white is low (``presentation.is_dark_bright``):
    value = (lowest + highest) * slope + 2 * intercept - value             lowest, highest: of BitsStored

The pivot comes from BitsStored, not from the image's own maximum: the same grey means the same in every image.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from client.dicom.attributes import number, value_of
from client.dicom.decode import Array, grey_words, masked, sample_bits, stored_values
from client.dicom.image_module import ImageModule
from client.dicom.lookup import modality_table, palette_colours
from client.dicom.presentation import is_dark_bright
from client.dicom.reject import RejectCode, Rejected
from client.dicom.voi import with_voi_lut

Values = npt.NDArray[np.float32]
Valid = npt.NDArray[np.bool_]

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: float32 values, where it holds an image (None: everywhere), and the ends of its grey scale.

    Shapes: values (rows, columns), or (rows, columns, 3) for red, green, blue; valid (rows, columns).
    Units: HU for CT, the modality's own for others; colour and palette: 0 to 255, each colour or their luminance.
    """

    values: Values
    valid: Valid | None
    grey_scale: tuple[float, float]


def read_frame(
    dataset: Dataset, module: ImageModule, frame_index: int, *, voi: bool = False, colour: bool = False
) -> Frame:
    """Decode one frame and give it its meaning; invalid places (padding, text beside an ultrasound) take the minimum.

    ``voi``: grey values become what the file's own VOI LUT makes of them, from 0 to 1. ``colour``: a picture in colour
    keeps its three colours, otherwise it becomes luminance.
    Padding: PS3.3 section C.7.5.1.1.2.
    Raises: Rejected.
    """
    if module.in_colour:
        stored, bits = stored_values(dataset, module, frame_index), sample_bits(dataset, module, frame_index)
        values = _colours(dataset, module, stored, bits, grey=not colour)
        grey_scale, valid = (0.0, 255.0), None
    else:
        words, precision = grey_words(dataset, module, frame_index)
        stored = masked(words, module, precision)
        valid = _not_padding(dataset, module, words, stored)
        values, grey_scale = _rescaled(dataset, module, stored, frame_index)
        if voi:
            group = functional_group(dataset, frame_index, "FrameVOILUTSequence")
            values, grey_scale = with_voi_lut(dataset, module, group, values), (0.0, 1.0)
        if is_dark_bright(dataset, module):
            values = np.float32(grey_scale[0] + grey_scale[1]) - values
    region = _ultrasound_region(dataset, module)
    if region is not None:
        valid = region if valid is None else valid & region
    if valid is not None:
        values[~valid] = values[valid].min() if valid.any() else 0
    return Frame(values, valid, grey_scale)


def _rescaled(
    dataset: Dataset, module: ImageModule, stored: Array, frame_index: int
) -> tuple[Values, tuple[float, float]]:
    table = modality_table(dataset, signed=module.signed)
    if table is not None:
        values, ends = table.looked_up(stored).astype(np.float32), (0.0, float((1 << table.bits) - 1))
    else:
        slope, intercept = rescale_of(dataset, frame_index)
        values = stored.astype(np.float32)
        if slope != 1:
            values *= np.float32(slope)
        if intercept != 0:
            values += np.float32(intercept)
        levels = 1 << module.bits_stored
        lowest, highest = (-levels // 2, levels // 2 - 1) if module.signed else (0, levels - 1)
        ends = (lowest * slope + intercept, highest * slope + intercept)
    return values, (min(ends), max(ends))


def rescale_of(dataset: Dataset, frame_index: int) -> tuple[float, float]:
    """Return slope and intercept of a frame.

    Raises: Rejected(bad_attribute) for NaN, infinity or text, Rejected(rescale) for slope 0.
    """
    source = transformation_of(dataset, frame_index)
    slope = number(source, "RescaleSlope", 1.0)
    if slope == 0:
        raise Rejected(RejectCode.RESCALE)
    return slope, number(source, "RescaleIntercept", 0.0)


def transformation_of(dataset: Dataset, frame_index: int) -> Dataset:
    """Return where a frame's rescale stands: its own group, else the shared one, else the top level."""
    return functional_group(dataset, frame_index, "PixelValueTransformationSequence") or dataset


def functional_group(dataset: Dataset, frame_index: int, keyword: str) -> Dataset | None:
    """Return one functional group of a frame: its own, else the shared one, else None (PS3.3 section C.7.6.16)."""
    per_frame = value_of(dataset, "PerFrameFunctionalGroupsSequence")
    own = per_frame[frame_index].get(keyword) if per_frame and frame_index < len(per_frame) else None
    if own:
        return own[0]  # type: ignore[no-any-return]
    shared = value_of(dataset, "SharedFunctionalGroupsSequence")
    group = shared[0].get(keyword) if shared else None
    return group[0] if group else None


def _not_padding(dataset: Dataset, module: ImageModule, words: Array, stored: Array) -> Valid | None:
    """Return where the picture is; padding is looked for in the whole words too, whose upper bits it may need."""
    found = [value_of(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    ends = [_as_stored(value, module) for value in found if isinstance(value, int)]
    if not isinstance(found[0], int):
        return None
    low, high = min(ends), max(ends)
    padding = _within(stored, low, high)
    if stored is not words:
        padding |= _within(words, low, high)
    return ~padding if padding.any() else None


def _within(values: Array, low: int, high: int) -> Valid:
    return np.asarray(values == low if low == high else (values >= low) & (values <= high))


def _as_stored(value: int, module: ImageModule) -> int:
    """Read a padding value in the representation of the pixels: scanners write -2000 as 63536, and the reverse."""
    levels = 1 << module.bits_allocated
    if module.signed and value >= levels // 2:
        return value - levels
    return value + levels if not module.signed and value < 0 else value


def _colours(dataset: Dataset, module: ImageModule, stored: Array, bits: int, *, grey: bool) -> Values:
    """Return red, green and blue from 0 to 255, (rows, columns, 3), or their luminance, (rows, columns)."""
    full_scale = (1 << bits) - 1
    if module.photometric == "PALETTE COLOR":
        stored, full_scale = palette_colours(dataset, stored, signed=module.signed)
    values = stored.astype(np.float32)
    return (values @ LUMINANCE if grey else values) * np.float32(255 / full_scale)


def _ultrasound_region(dataset: Dataset, module: ImageModule) -> Valid | None:
    """Return where the ultrasound picture is: outside its regions stand names, scales and logos (C.8.5.5).

    Raises: Rejected(no_ultrasound_region) when none of its regions lies in the picture.
    """
    regions = value_of(dataset, "SequenceOfUltrasoundRegions")
    if module.modality != "US" or not regions:
        return None
    inside = np.zeros((module.rows, module.columns), np.bool_)
    for region in regions:
        left, top = value_of(region, "RegionLocationMinX0"), value_of(region, "RegionLocationMinY0")
        right, bottom = value_of(region, "RegionLocationMaxX1"), value_of(region, "RegionLocationMaxY1")
        if all(isinstance(edge, int) and edge >= 0 for edge in (left, top, right, bottom)):
            inside[top : bottom + 1, left : right + 1] = True
    if not inside.any():
        raise Rejected(RejectCode.NO_ULTRASOUND_REGION)
    return inside

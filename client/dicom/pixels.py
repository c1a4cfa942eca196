"""Stored values -> numbers with a meaning: rescaled, never inverted, padding taken out, one channel.

    value = stored * slope + intercept                                     (PS3.3 section C.11.1.1.2)
    MONOCHROME1, or PresentationLUTShape = INVERSE:
    value = (lowest + highest) * slope + 2 * intercept - value             lowest, highest: of BitsStored

The pivot comes from BitsStored, not from the image's own maximum: the same grey means the same in every image.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

from client.dicom.attributes import number, value_of, word
from client.dicom.decode import Array, stored_values
from client.dicom.image_module import ImageModule
from client.dicom.reject import RejectCode, Rejected

Values = npt.NDArray[np.float32]
Valid = npt.NDArray[np.bool_]

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: float32 (rows, columns), where it holds an image (None: everywhere), and the ends of its grey scale.

    Units: HU for CT, the modality's own for others; colour and palette: luminance from 0 to 255.
    """

    values: Values
    valid: Valid | None
    grey_scale: tuple[float, float]


def read_frame(dataset: Dataset, module: ImageModule, frame_index: int) -> Frame:
    """Decode one frame and give it its meaning; invalid places (padding, text beside an ultrasound) take the minimum.

    Padding: PS3.3 section C.7.5.1.1.2.
    Raises: Rejected.
    """
    stored = stored_values(dataset, module, frame_index)
    if module.samples == 3 or module.photometric == "PALETTE COLOR":
        values, grey_scale, valid = _luminance(dataset, module, stored), (0.0, 255.0), None
    else:
        valid = _not_padding(dataset, module, stored)
        values, grey_scale = _rescaled(dataset, module, stored, frame_index)
    region = _ultrasound_region(dataset, module)
    if region is not None:
        valid = region if valid is None else valid & region
    if valid is not None:
        values[~valid] = values[valid].min() if valid.any() else 0
    return Frame(values, valid, grey_scale)


def _rescaled(
    dataset: Dataset, module: ImageModule, stored: Array, frame_index: int
) -> tuple[Values, tuple[float, float]]:
    levels = 1 << module.bits_stored
    lowest, highest = (-levels // 2, levels // 2 - 1) if module.signed else (0, levels - 1)
    slope, intercept = 1.0, 0.0
    if value_of(dataset, "ModalityLUTSequence"):
        values = _looked_up(dataset, stored)
    else:
        slope, intercept = rescale_of(dataset, frame_index)
        values = stored.astype(np.float32)
        if slope != 1:
            values *= np.float32(slope)
        if intercept != 0:
            values += np.float32(intercept)
    if module.photometric == "MONOCHROME1" or word(dataset, "PresentationLUTShape") == "INVERSE":
        values = np.float32((lowest + highest) * slope + 2 * intercept) - values
    ends = sorted((lowest * slope + intercept, highest * slope + intercept))
    return values, (ends[0], ends[1])


def _looked_up(dataset: Dataset, stored: Array) -> Values:
    try:
        return apply_modality_lut(stored, dataset).astype(np.float32)
    except Exception:  # noqa: BLE001 (a parser may throw anything)
        raise Rejected(RejectCode.RESCALE) from None


def rescale_of(dataset: Dataset, frame_index: int) -> tuple[float, float]:
    """Return slope and intercept of a frame; of enhanced objects from the frame's own or the shared group.

    Raises: Rejected(bad_attribute) for NaN, infinity or text, Rejected(rescale) for slope 0.
    """
    source = dataset
    if value_of(dataset, "SharedFunctionalGroupsSequence") or value_of(dataset, "PerFrameFunctionalGroupsSequence"):
        source = functional_group(dataset, frame_index, "PixelValueTransformationSequence") or Dataset()
    slope = number(source, "RescaleSlope", 1.0)
    if slope == 0:
        raise Rejected(RejectCode.RESCALE)
    return slope, number(source, "RescaleIntercept", 0.0)


def functional_group(dataset: Dataset, frame_index: int, keyword: str) -> Dataset | None:
    """Return one functional group of a frame: its own, else the shared one, else None (PS3.3 section C.7.6.16)."""
    per_frame = value_of(dataset, "PerFrameFunctionalGroupsSequence")
    own = per_frame[frame_index].get(keyword) if per_frame and frame_index < len(per_frame) else None
    if own:
        return own[0]  # type: ignore[no-any-return]
    shared = value_of(dataset, "SharedFunctionalGroupsSequence")
    group = shared[0].get(keyword) if shared else None
    return group[0] if group else None


def _not_padding(dataset: Dataset, module: ImageModule, stored: Array) -> Valid | None:
    found = [value_of(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    ends = [_as_stored(value, module) for value in found if isinstance(value, int)]
    if not isinstance(found[0], int):
        return None
    low, high = min(ends), max(ends)
    padding = stored == low if low == high else (stored >= low) & (stored <= high)
    return ~padding if padding.any() else None


def _as_stored(value: int, module: ImageModule) -> int:
    """Read a padding value in the representation of the pixels: scanners write -2000 as 63536, and the reverse."""
    levels = 1 << module.bits_allocated
    if module.signed and value >= levels // 2:
        return value - levels
    return value + levels if not module.signed and value < 0 else value


def _luminance(dataset: Dataset, module: ImageModule, stored: Array) -> Values:
    full_scale = (1 << module.bits_stored) - 1
    if module.photometric == "PALETTE COLOR":
        try:
            stored = apply_color_lut(stored, dataset)
        except Exception:  # noqa: BLE001 (a parser may throw anything)
            raise Rejected(RejectCode.PALETTE) from None
        full_scale = int(np.iinfo(stored.dtype).max)
    return (stored.astype(np.float32) @ LUMINANCE) * np.float32(255 / full_scale)


def _ultrasound_region(dataset: Dataset, module: ImageModule) -> Valid | None:
    """Return where the ultrasound picture is: outside its regions stand names, scales and logos (C.8.5.5)."""
    regions = value_of(dataset, "SequenceOfUltrasoundRegions")
    if module.modality != "US" or not regions:
        return None
    inside = np.zeros((module.rows, module.columns), np.bool_)
    for region in regions:
        left, top = value_of(region, "RegionLocationMinX0"), value_of(region, "RegionLocationMinY0")
        right, bottom = value_of(region, "RegionLocationMaxX1"), value_of(region, "RegionLocationMaxY1")
        if all(isinstance(edge, int) and edge >= 0 for edge in (left, top, right, bottom)):
            inside[top : bottom + 1, left : right + 1] = True
    return inside if inside.any() else None

"""Values -> levels: 16-bit numbers of which 0 and 65535 are the ends of the study's window.

    level = round(65535 * clip((value - low) / (high - low), 0, 1))        in the cache
    x     = level / 65535                                                   in training, float32 in [0, 1]

One form for every modality; ``low`` and ``high`` are kept beside the record, so values (HU) can be had back to within
(high - low) / 131070. Every rule looks at one image only (privacy.md: no statistics of the collection).
"""

import math

import numpy as np
import numpy.typing as npt

from client.dicom.reject import RejectCode, Rejected
from client.dicom.settings import IngestSettings
from common.plan.task import Intensity

Levels = npt.NDArray[np.uint16]
Values = npt.NDArray[np.float32]
Valid = npt.NDArray[np.bool_]

FULL_SCALE = 65535
SAMPLED_VALUES = 65536


def level_bytes(shape: tuple[int, ...]) -> int:
    """Return the size of one record's levels."""
    return 2 * math.prod(shape)


def window_of(
    values: Values, valid: Valid | None, grey_scale: tuple[float, float], settings: IngestSettings
) -> tuple[float, float]:
    """Return (low, high) of an image: the study's own range (HU, SUV), the image's percentiles, or its full grey scale.

    With ``voi_lut`` the values have gone through the file's own table already and their full scale is 0 to 1.

    Percentiles are taken over valid pixels only, from at most about ``SAMPLED_VALUES`` of them; those of a picture in
    colour over all three colours together, so that a colour stays what it is.
    Raises: Rejected(non_finite).
    """
    if settings.intensity is Intensity.CT_WINDOW:
        centre, width = settings.window_hu
        return centre - width / 2, centre + width / 2
    if settings.intensity is Intensity.SUV_RANGE:
        return settings.range_suv[0], settings.range_suv[1]
    if settings.intensity in (Intensity.LUMINANCE, Intensity.VOI_LUT):
        return grey_scale
    chosen = values if valid is None else values[valid]
    pixels = chosen.reshape(-1, settings.channels if values.ndim == 3 else 1)  # (volumes have one channel)
    sample = pixels[:: max(1, len(pixels) // SAMPLED_VALUES)]
    low, high = np.percentile(sample, settings.percentiles) if sample.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Rejected(RejectCode.NON_FINITE)
    return float(low), float(high)


def to_levels(values: Values, low: float, high: float) -> Levels:
    """Map values to levels; an image without contrast (high <= low) becomes all 0.

    Raises: Rejected(non_finite) when any value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise Rejected(RejectCode.NON_FINITE)
    if high <= low:
        return np.zeros(values.shape, np.uint16)
    scaled = (values - np.float32(low)) * np.float32(FULL_SCALE / (high - low))
    np.clip(scaled, 0, FULL_SCALE, out=scaled)
    levels: Levels = np.rint(scaled, out=scaled).astype(np.uint16)
    return levels

"""PET values as standardised uptake values by body weight (SUVbw, g/ml), where the header says all that they need.

    SUVbw = (stored * slope + intercept) [Bq/ml] * weight [g] / dose at the time the values are corrected to [Bq]
    dose at a time = injected dose * 2^-(time - injection) / half-life

Decay correction START: to the start of the scan; ADMIN: to the injection; NONE: values are of the acquisition itself.
Whatever lacks, or cannot be true, has a code that names it; nothing is assumed.
Sources: RSNA QIBA FDG-PET, "SUV vendor-neutral pseudo-code" (start of the scan, makers' private attributes); DICOM
PS3.3 section C.8.9.
"""

import math
from datetime import datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.dicom.attributes import number, value_of, word, words
from client.dicom.image_module import ImageModule
from client.dicom.moments import moment, moment_of
from client.dicom.reject import RejectCode, Rejected

WEIGHT_KG: Final = (0.2, 650.0)
DOSE_BQ: Final = (1e6, 1e11)  # below: somebody wrote megabecquerel
HALF_LIFE_S: Final = (10.0, 1e8)
MOST_HALF_LIVES: Final = 6.0  # between injection and scan; beyond it a date or a unit is wrong
NEEDS_A_DATE_S: Final = 6 * 3600.0  # of half-life: people come back another day, and a time alone does not say which
LONGEST_SCAN: Final = timedelta(days=1)

Place = tuple[int, str, int]  # of a maker's private attribute: group, creator, offset
PHILIPS_UPTAKE: Final[Place] = (0x7053, "Philips PET Private Group", 0x00)  # of a count
PHILIPS_CONCENTRATION: Final[Place] = (0x7053, "Philips PET Private Group", 0x09)  # of a count, Bq/ml
GE_SCAN_START: Final[Place] = (0x0009, "GEMS_PETD_01", 0x0D)


def uptake_factor(dataset: Dataset, module: ImageModule) -> float:
    """Return what the rescaled values of a PET image are multiplied by to be SUVbw.

    Raises: Rejected (suv_units, suv_correction, suv_weight, suv_dose, suv_half_life, suv_injection_time,
    suv_scan_time; missing_attribute without a rescale slope).
    """
    if value_of(dataset, "RescaleSlope") is None:
        raise Rejected(RejectCode.MISSING_ATTRIBUTE)
    corrections, units = words(dataset, "CorrectedImage"), word(dataset, "Units")
    if "ATTN" not in corrections:
        raise Rejected(RejectCode.SUV_CORRECTION)
    if module.modality != "PT" or units not in {"BQML", "CNTS", "GML"}:
        raise Rejected(RejectCode.SUV_UNITS)
    if units == "GML":
        if word(dataset, "SUVType") not in {"", "BW"}:
            raise Rejected(RejectCode.SUV_UNITS)
        return 1.0
    kind = word(dataset, "DecayCorrection")
    if kind not in {"START", "ADMIN", "NONE"} or ("DECY" in corrections) != (kind != "NONE"):
        raise Rejected(RejectCode.SUV_CORRECTION)
    concentration = 1.0
    if units == "CNTS":
        uptake, concentration = _private(dataset, PHILIPS_UPTAKE), _private(dataset, PHILIPS_CONCENTRATION)
        if uptake > 0 and kind == "START":
            return uptake
        if not concentration > 0:
            raise Rejected(RejectCode.SUV_UNITS)
    weight_g = 1000 * _within(dataset, "PatientWeight", WEIGHT_KG, RejectCode.SUV_WEIGHT)
    return concentration * weight_g / _dose_bq(dataset, kind)


def _dose_bq(dataset: Dataset, kind: str) -> float:
    """Return the dose at the time that the values are corrected to."""
    injections = list(value_of(dataset, "RadiopharmaceuticalInformationSequence") or [])
    if len(injections) != 1:
        raise Rejected(RejectCode.SUV_DOSE)
    injection = injections[0]
    dose_bq = _within(injection, "RadionuclideTotalDose", DOSE_BQ, RejectCode.SUV_DOSE)
    if kind == "ADMIN":
        return dose_bq
    half_life_s = _within(injection, "RadionuclideHalfLife", HALF_LIFE_S, RejectCode.SUV_HALF_LIFE)
    time = _scan_start(dataset, half_life_s) if kind == "START" else _mean_time(dataset, half_life_s)
    half_lives = (time - _injected(dataset, injection, time, half_life_s)).total_seconds() / half_life_s
    if not 0 <= half_lives <= MOST_HALF_LIVES:
        raise Rejected(RejectCode.SUV_INJECTION_TIME)
    return float(dose_bq * 2**-half_lives)


def _injected(dataset: Dataset, injection: Dataset, scan: datetime, half_life_s: float) -> datetime:
    """Return when the dose was given; a time without a date is the last such time before the scan (midnight)."""
    zone = value_of(dataset, "TimezoneOffsetFromUTC")
    written = moment(value_of(injection, "RadiopharmaceuticalStartDateTime"), zone)
    if written is not None:
        return written
    found = moment_of(scan.strftime("%Y%m%d"), value_of(injection, "RadiopharmaceuticalStartTime"))
    if found is None or half_life_s > NEEDS_A_DATE_S:
        raise Rejected(RejectCode.SUV_INJECTION_TIME)
    return found if found <= scan else found - timedelta(days=1)


def _scan_start(dataset: Dataset, half_life_s: float) -> datetime:
    """Return the time to which a series is decay corrected: its own, unless it was made after the acquisition."""
    acquired = _acquired(dataset)
    series = moment_of(value_of(dataset, "SeriesDate"), value_of(dataset, "SeriesTime"))
    if series is None or series > acquired:
        series = moment(_private_value(dataset, GE_SCAN_START), None)
    reference_s = number(dataset, "FrameReferenceTime", 0.0) / 1000
    if series is None and reference_s > 0:
        series = _mean_time(dataset, half_life_s) - timedelta(seconds=reference_s)
    if series is None or not timedelta(0) <= acquired - series <= LONGEST_SCAN:
        raise Rejected(RejectCode.SUV_SCAN_TIME)
    return series


def _mean_time(dataset: Dataset, half_life_s: float) -> datetime:
    """Return when, within its acquisition, a frame had its average count rate: a little before the middle."""
    duration_s = number(dataset, "ActualFrameDuration", 0.0) / 1000
    if not 0 < duration_s <= LONGEST_SCAN.total_seconds():
        raise Rejected(RejectCode.SUV_SCAN_TIME)
    decay = math.log(2) / half_life_s
    average_s = math.log(decay * duration_s / -math.expm1(-decay * duration_s)) / decay
    return _acquired(dataset) + timedelta(seconds=average_s)


def _acquired(dataset: Dataset) -> datetime:
    found = moment_of(value_of(dataset, "AcquisitionDate"), value_of(dataset, "AcquisitionTime"))
    if found is None:
        raise Rejected(RejectCode.SUV_SCAN_TIME)
    return found


def _within(source: Dataset, keyword: str, bounds: tuple[float, float], code: RejectCode) -> float:
    try:
        found = number(source, keyword, 0.0)
    except Rejected:
        raise Rejected(code) from None
    if not bounds[0] <= found <= bounds[1]:
        raise Rejected(code)
    return found


def _private(dataset: Dataset, place: Place) -> float:
    """Return a positive number of a maker's private block, or 0."""
    try:
        found = float(str(_private_value(dataset, place)))
    except ValueError:
        return 0.0
    return found if 0 < found < math.inf else 0.0


def _private_value(dataset: Dataset, place: Place) -> object:
    """Return a private attribute's first value, wherever its maker reserved the block (PS3.5 section 7.8.1)."""
    try:
        group, creator, offset = place
        value = dataset.private_block(group, creator)[offset].value
    except KeyError:
        return None
    if isinstance(value, bytes):  # of a file that names no types
        return value.decode("ascii", "replace").strip(" \0")
    return (value[0] if value else None) if isinstance(value, MultiValue) else value

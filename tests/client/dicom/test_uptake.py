"""PET in standardised uptake values: known answers worked by hand, and a code for each thing that lacks or lies."""

import math
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset

from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.dicom.instance import read_images, verdict
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode

NAMES = Pseudonyms(b"k" * 32)
SIDE = 32
STORED = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint16)
SUV = {"modalities": ("PT",), "intensity": "suv_range", "window_hu": (), "range_suv": (0.0, 15.0)}
# 70 kg; 350 MBq of fluorine 18 at 10:00, the scan starts at 11:49:46.2, one half-life (6586.2 s) and 200 s later.
HALF_LIFE_S = 6586.2


def pet(content: bytes, edit=None) -> bytes:
    """A PET slice of 100 Bq/ml a level: 350 MBq decay to 175 MBq by the start, so SUV = 100 n * 70000 / 175e6."""
    dataset = dcmread(BytesIO(content))
    dataset.SOPClassUID, dataset.Modality = uid.PositronEmissionTomographyImageStorage, "PT"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.RescaleSlope, dataset.RescaleIntercept = "100", "0"
    del dataset.RescaleType
    dataset.Units, dataset.DecayCorrection, dataset.CorrectedImage = "BQML", "START", ["DECY", "ATTN", "SCAT"]
    dataset.PatientWeight = "70"
    dataset.SeriesDate, dataset.SeriesTime = "20240102", "114946.2"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20240102", "115200"
    dataset.FrameReferenceTime, dataset.ActualFrameDuration = "0", "120000"
    injection = Dataset()
    injection.RadionuclideTotalDose, injection.RadionuclideHalfLife = "350000000", str(HALF_LIFE_S)
    injection.RadiopharmaceuticalStartTime = "100000"
    dataset.RadiopharmaceuticalInformationSequence = [injection]
    if edit:
        edit(dataset, injection)
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=False)
    return out.getvalue()


def values_of(content: bytes, settings) -> np.ndarray:
    [(facts, levels)] = read_images(content, settings, NAMES)
    return levels * ((facts.intensity_high - facts.intensity_low) / 65535) + facts.intensity_low


def code_of(content: bytes, settings) -> RejectCode | None:
    return verdict(lambda: list(read_images(content, settings, NAMES)) and None)


@pytest.fixture(scope="module")
def slice_of(scan):
    def make(edit=None) -> bytes:
        return pet(scan(STORED, {"intercept": 0.0}), edit)

    return make


def from_date(d, i):
    i.RadiopharmaceuticalStartDateTime, i.RadiopharmaceuticalStartTime = "20240102100000.00", "235959"


def from_another_zone(d, i):
    i.RadiopharmaceuticalStartDateTime, d.TimezoneOffsetFromUTC = "20240102090000.00+0000", "+0100"


def after_midnight(d, i):
    i.RadiopharmaceuticalStartTime = "231400"
    d.SeriesDate, d.SeriesTime, d.AcquisitionDate, d.AcquisitionTime = "20240103", "010346.2", "20240103", "010400"


def to_injection(d, i):
    d.DecayCorrection = "ADMIN"
    del i.RadiopharmaceuticalStartTime, i.RadionuclideHalfLife, d.SeriesTime


def uncorrected(d, i):
    d.DecayCorrection, d.CorrectedImage = "NONE", ["ATTN"]
    d.AcquisitionTime, d.ActualFrameDuration = "114846.2", "120000"  # its middle is one half-life after the injection


def philips(dataset, *, uptake=None, concentration=None):
    dataset.Units = "CNTS"
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    for place, value in ((0x00, uptake), (0x09, concentration)):
        if value is not None:
            block.add_new(place, "DS", value)


def processed_later(d, i):
    """The series was made again in the afternoon: the scan began 133.8 s + the average of the frame before its end."""
    average_s = HALF_LIFE_S / math.log(2) * math.log((k := math.log(2) / HALF_LIFE_S * 120) / (1 - math.exp(-k)))
    d.SeriesTime, d.AcquisitionTime = "160000", "115146.2"
    d.FrameReferenceTime = str(round(1000 * (120 + average_s), 3))


def ge_processed_later(d, i):
    d.SeriesTime = "160000"
    d.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20240102114946.20")


SUV_OF_A_LEVEL = 100 * 70_000 / 175e6  # 0.04
RIGHT = {
    "decay corrected to the start of the scan": (None, SUV_OF_A_LEVEL),
    "the injection with its date": (from_date, SUV_OF_A_LEVEL),
    "the injection in another time zone": (from_another_zone, SUV_OF_A_LEVEL),
    "midnight between injection and scan": (after_midnight, SUV_OF_A_LEVEL),
    "decay corrected to the injection": (to_injection, 100 * 70_000 / 350e6),
    "not decay corrected": (uncorrected, SUV_OF_A_LEVEL),
    "a series made again later": (processed_later, SUV_OF_A_LEVEL),
    "a GE series made again later": (ge_processed_later, SUV_OF_A_LEVEL),
    "already in g/ml": (lambda d, i: (setattr(d, "Units", "GML"), setattr(d, "RescaleSlope", "0.02")), 0.02),
    "Philips counts": (lambda d, i: philips(d, uptake="0.0003"), 0.03),
    "Philips counts with Bq/ml": (lambda d, i: philips(d, uptake="0", concentration="2"), 2 * SUV_OF_A_LEVEL),
    "shown as its negative": (lambda d, i: setattr(d, "PhotometricInterpretation", "MONOCHROME1"), SUV_OF_A_LEVEL),
}


@pytest.mark.parametrize(("edit", "suv"), RIGHT.values(), ids=RIGHT)
def test_the_uptake_is_what_a_hand_works_out(edit, suv, slice_of, settings_with):
    values = values_of(slice_of(edit), settings_with(**SUV))
    expected = np.minimum(STORED * suv, 15.0)
    assert np.abs(values - expected).max() < 15 / 65535 + 0.005 * suv


def without(*keywords, of_injection=False):
    def edit(d, i):
        for keyword in keywords:
            delattr(i if of_injection else d, keyword)

    return edit


def with_value(keyword, value, *, of_injection=False):
    return lambda d, i: setattr(i if of_injection else d, keyword, value)


def injected(value):
    return with_value("RadiopharmaceuticalStartTime", value, of_injection=True)


def zirconium(d, i):
    i.RadionuclideHalfLife, i.RadiopharmaceuticalStartTime = "282240", "100000"


WRONG = {
    "no weight": (without("PatientWeight"), RejectCode.SUV_WEIGHT),
    "weight 0": (with_value("PatientWeight", "0"), RejectCode.SUV_WEIGHT),
    "weight 9999": (with_value("PatientWeight", "9999"), RejectCode.SUV_WEIGHT),
    "a weight in grams": (with_value("PatientWeight", "70000"), RejectCode.SUV_WEIGHT),
    "no dose": (without("RadionuclideTotalDose", of_injection=True), RejectCode.SUV_DOSE),
    "a dose in megabecquerel": (with_value("RadionuclideTotalDose", "350", of_injection=True), RejectCode.SUV_DOSE),
    "no injection": (without("RadiopharmaceuticalInformationSequence"), RejectCode.SUV_DOSE),
    "two injections": (
        lambda d, i: setattr(d, "RadiopharmaceuticalInformationSequence", [i, i]), RejectCode.SUV_DOSE,
    ),
    "half-life 0": (with_value("RadionuclideHalfLife", "0", of_injection=True), RejectCode.SUV_HALF_LIFE),
    "no half-life": (without("RadionuclideHalfLife", of_injection=True), RejectCode.SUV_HALF_LIFE),
    "a negative half-life": (with_value("RadionuclideHalfLife", "-6586", of_injection=True), RejectCode.SUV_HALF_LIFE),
    "no time of injection": (without("RadiopharmaceuticalStartTime", of_injection=True), RejectCode.SUV_INJECTION_TIME),
    "an injection after the scan": (injected("120000"), RejectCode.SUV_INJECTION_TIME),
    "an injection in the future": (
        with_value("RadiopharmaceuticalStartDateTime", "20240102130000", of_injection=True),
        RejectCode.SUV_INJECTION_TIME,
    ),
    "an injection the year before": (
        with_value("RadiopharmaceuticalStartDateTime", "20230102100000", of_injection=True),
        RejectCode.SUV_INJECTION_TIME,
    ),
    "a long half-life without a date": (zirconium, RejectCode.SUV_INJECTION_TIME),
    "no time of the acquisition": (without("AcquisitionTime"), RejectCode.SUV_SCAN_TIME),
    "a series after its acquisition": (with_value("SeriesTime", "160000"), RejectCode.SUV_SCAN_TIME),
    "a series the week before": (with_value("SeriesDate", "20231226"), RejectCode.SUV_SCAN_TIME),
    "counts": (with_value("Units", "CNTS"), RejectCode.SUV_UNITS),
    "a share of counts": (with_value("Units", "PROPCPS"), RejectCode.SUV_UNITS),
    "no units": (without("Units"), RejectCode.SUV_UNITS),
    "uptake by lean body mass": (
        lambda d, i: (setattr(d, "Units", "GML"), setattr(d, "SUVType", "LBM")), RejectCode.SUV_UNITS,
    ),
    "Philips counts with factors of 0": (lambda d, i: philips(d, uptake="0", concentration="0"), RejectCode.SUV_UNITS),
    "not attenuation corrected": (with_value("CorrectedImage", ["DECY"]), RejectCode.SUV_CORRECTION),
    "decay corrected, but not said to": (with_value("CorrectedImage", ["ATTN"]), RejectCode.SUV_CORRECTION),
    "an unknown decay correction": (with_value("DecayCorrection", "MAYBE"), RejectCode.SUV_CORRECTION),
    "uncorrected frames of unknown length": (
        lambda d, i: (uncorrected(d, i), delattr(d, "ActualFrameDuration")), RejectCode.SUV_SCAN_TIME,
    ),
    "no rescale slope": (without("RescaleSlope"), RejectCode.MISSING_ATTRIBUTE),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "code"), WRONG.values(), ids=WRONG)
def test_what_lacks_or_cannot_be_true_is_named_by_its_code(edit, code, slice_of, settings_with):
    content = slice_of(edit)
    assert code_of(content, settings_with(**SUV)) is code
    own_range = {"modalities": ("PT",), "intensity": "percentiles", "window_hu": ()}
    assert code_of(content, settings_with(**own_range)) is None, "a rule without units may take it"


def test_a_series_of_slices_with_slopes_of_their_own_becomes_one_volume(tmp_path, scan, settings_with, secret):
    (tmp_path / "scans").mkdir()
    for number in range(1, 9):  # stored values halve while slopes double: uptake is the same everywhere
        slope = 2.0 ** (number % 3)
        frame = np.full((SIDE, SIDE), 256 / slope, np.uint16)
        content = pet(
            scan(frame, {"intercept": 0.0}, number=number),
            lambda d, i, slope=slope: setattr(d, "RescaleSlope", str(100 * slope)),
        )
        (tmp_path / "scans" / f"{number}.dcm").write_bytes(content)
    settings = settings_with(volume=True, **SUV)
    report = ingest(tmp_path / "scans", tmp_path / "cache", settings=settings, secret=secret)
    assert (report.records, report.rejected) == (1, {})
    cache = Cache.open(tmp_path / "cache", secret)
    values = cache.read_values(cache.records[0].record_id)
    assert np.abs(values - 256 * SUV_OF_A_LEVEL).max() < 0.001
    assert (cache.records[0].intensity_low, cache.records[0].intensity_high) == (0.0, 15.0)


def test_a_range_of_uptake_is_for_uptake_and_only_for_it(settings_with):
    for changes in ({"range_suv": (0.0, 15.0)}, SUV | {"range_suv": ()}, SUV | {"range_suv": (5.0, 5.0)}):
        with pytest.raises(ValueError, match="range_suv"):
            settings_with(**changes)

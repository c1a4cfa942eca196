"""Pictures that are pages of text, or carry text, by what their header says: refused before anything is decoded.

Screen saves, dose reports and protocol pages hold names and are no pictures of a body; makers announce them in
ImageType or in the description of the series. Whatever came out of a frame grabber or a film scanner holds what stood
on the screen or the film. What no header announces only eyes find (``contact_sheet``).
Sources: PS3.3 sections C.7.6.1.1.2 (ImageType), C.8.6.1 (ConversionType), C.7.6.1 (BurnedInAnnotation,
RecognizableVisualFeatures), C.8.5.5 (ultrasound regions); makers' conformance statements (GE dose report, Siemens
"CT_SOM5 PROT", "CSA REPORT").
"""

import re

from pydicom.dataset import Dataset

from client.dicom.attributes import value_of, word, words
from client.dicom.reject import RejectCode, Rejected

SCREEN_SAVE = re.compile(r"SCREEN[ _]?(SAVE|SHOT|CAPTURE)S?|SCREENSAVER")
PAGE_TYPE = re.compile(r"\b(PROT|PROTOCOL|REPORT|DOSE|DOSE_INFO|DOSE_REPORT|SUMMARY|TEXT|CAPTURE|FORM)\b")
PAGE_DESCRIPTION = re.compile(
    r"\bDOSE[ _-]?(REPORT|INFO\w*|RECORD|SUMMARY|SHEET|PAGE|PROTOCOL)\b|\bRADIATION DOSE\b|\bRDSR\b"
    r"|\b(PATIENT|EXAM|STUDY|SCAN)[ _-]?(PROTOCOL|SUMMARY)\b|\bPROTOCOL PAGE\b|\bSUMMARY (PAGE|SERIES)\b"
    r"|\bREPORT PAGE\b|\bDOSIS(BERICHT|PROTOKOLL|INFO)\w*|\b(PATIENTEN|UNTERSUCHUNGS)PROTOKOLL\b|\bRAPPORT DE DOSE\b"
)
FILM = ("DF", "DI")
CONVERTED = ("DV", "WSD", "SD", "SI", "DRW", "SYN")
DESCRIPTIONS = ("SeriesDescription", "AcquisitionDeviceProcessingDescription", "DerivationDescription")


def check_no_text(dataset: Dataset) -> None:
    """Refuse a page of text, a copy of a screen or film, a face, or many pictures in one, as the header says.

    Raises: Rejected (screen_save, text_page, secondary_capture, film, burned_in, recognizable, mosaic).
    """
    image_type = words(dataset, "ImageType")
    if any(SCREEN_SAVE.search(kind) for kind in image_type) or _describes(dataset, SCREEN_SAVE):
        raise Rejected(RejectCode.SCREEN_SAVE)
    if any(PAGE_TYPE.search(kind) for kind in image_type[2:]) or _describes(dataset, PAGE_DESCRIPTION):
        raise Rejected(RejectCode.TEXT_PAGE)
    if "MOSAIC" in image_type:
        raise Rejected(RejectCode.MOSAIC)
    conversion = word(dataset, "ConversionType")
    if conversion in FILM:
        raise Rejected(RejectCode.FILM)
    if conversion in CONVERTED:
        raise Rejected(RejectCode.SECONDARY_CAPTURE)
    if word(dataset, "BurnedInAnnotation") == "YES":
        raise Rejected(RejectCode.BURNED_IN)
    if word(dataset, "RecognizableVisualFeatures") == "YES":
        raise Rejected(RejectCode.RECOGNIZABLE)


def check_ultrasound_region(dataset: Dataset, modality: str, *, accepted: bool) -> None:
    """Refuse an ultrasound picture that does not say where the picture is: beside it stand names, which nothing masks.

    ``accepted``: staff looked at every picture and decided to take them whole.
    Raises: Rejected(no_ultrasound_region).
    """
    if modality == "US" and not accepted and not value_of(dataset, "SequenceOfUltrasoundRegions"):
        raise Rejected(RejectCode.NO_ULTRASOUND_REGION)


def _describes(dataset: Dataset, pattern: re.Pattern[str]) -> bool:
    return any(pattern.search(word(dataset, keyword)) for keyword in DESCRIPTIONS)

"""From a header to the allow-listed facts: identifiers become keyed names here, texts become words of closed sets."""

from dataclasses import asdict

from pydicom.dataset import Dataset

from client.dicom.attributes import instance_uid, numbers, text, word
from client.dicom.facts import LATERALITIES, MAKERS, OTHER, VIEWS, Facts
from client.dicom.identity import identity_of
from client.dicom.pixels import functional_group
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import Rejected

MIN_SPACING_MM, MAX_SPACING_MM = 1e-3, 100.0


def describe(dataset: Dataset, modality: str, pseudonyms: Pseudonyms) -> Facts:
    """Return the facts of an instance, without those of its pixels.

    Raises: Rejected(no_patient_id, bad_uid).
    """
    accession = text(dataset, "AccessionNumber")
    return Facts(
        **asdict(identity_of(dataset, pseudonyms)),
        accession_key=pseudonyms.label_key("AccessionNumber", accession) if accession else "",
        study_key=_uid_key(dataset, "StudyInstanceUID", pseudonyms),
        series_key=_uid_key(dataset, "SeriesInstanceUID", pseudonyms),
        instance_key=_uid_key(dataset, "SOPInstanceUID", pseudonyms),
        modality=modality,
        maker=_maker(dataset),
        laterality=_one_of(LATERALITIES, word(dataset, "ImageLaterality") or word(dataset, "Laterality"), "U"),
        view=_one_of(VIEWS, word(dataset, "ViewPosition"), OTHER),
    )


def _uid_key(dataset: Dataset, keyword: str, pseudonyms: Pseudonyms) -> str:
    return pseudonyms.label_key(keyword, instance_uid(dataset, keyword))


def _maker(dataset: Dataset) -> str:
    name = f" {word(dataset, 'Manufacturer')} "
    return next((maker for maker in MAKERS if f" {maker}" in name), OTHER)


def _one_of(known: tuple[str, ...], value: str, otherwise: str) -> str:
    return value if value in known else otherwise


def pixel_spacing_mm(dataset: Dataset, frame_index: int = 0) -> tuple[float, float] | None:
    """Return (row, column) spacing of an image, or None when it is missing or nonsense (a real file says 0, 0).

    PixelSpacing, else ImagerPixelSpacing (at the detector), else that of a digitised film (PS3.3 section 10.7).
    """
    measures = functional_group(dataset, frame_index, "PixelMeasuresSequence")
    sources = [(measures, "PixelSpacing")] if measures else []
    names = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
    for source, keyword in (*sources, *((dataset, name) for name in names)):
        try:
            found = numbers(source, keyword, 2)
        except Rejected:
            continue
        if found and all(MIN_SPACING_MM <= mm <= MAX_SPACING_MM for mm in found):
            return found[0], found[1]
    return None

"""Pages of text are no pictures: what a header announces is refused by its code, the rest is shown to people."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import uid
from pydicom.dataset import Dataset

from client.dicom.cache import Cache
from client.dicom.contact_sheet import PAGE, most_like_text_first, page_count, sheet_page
from client.dicom.image_module import check_kind
from client.dicom.ingest import ingest
from client.dicom.person_rules import PersonRules
from client.dicom.reject import RejectCode, Rejected
from client.dicom.text_likeness import text_likeness

ORIGINAL, DERIVED = ["ORIGINAL", "PRIMARY"], ["DERIVED", "SECONDARY"]
PAGES = {
    "a screen save among the originals": ({"ImageType": [*ORIGINAL, "SCREEN SAVE"]}, RejectCode.SCREEN_SAVE),
    "a screen save derived and primary": ({"ImageType": ["DERIVED", "PRIMARY", "SCREEN SAVE"]}, RejectCode.SCREEN_SAVE),
    "a screen shot by name": ({"SeriesDescription": "Screenshots 3D"}, RejectCode.SCREEN_SAVE),
    "a dose report": ({"ImageType": [*DERIVED, "OTHER"], "SeriesDescription": "Dose Report"}, RejectCode.TEXT_PAGE),
    "a dose page in German": ({"SeriesDescription": "Dosisbericht"}, RejectCode.TEXT_PAGE),
    "a protocol page": ({"ImageType": [*DERIVED, "OTHER", "CT_SOM5 PROT"]}, RejectCode.TEXT_PAGE),
    "a protocol page by name": ({"SeriesDescription": "Patient Protocol"}, RejectCode.TEXT_PAGE),
    "a report of a post-processing": ({"ImageType": [*DERIVED, "CSA REPORT"]}, RejectCode.TEXT_PAGE),
    "film": ({"ConversionType": "DF"}, RejectCode.FILM),
    "a workstation's copy": ({"ConversionType": "WSD"}, RejectCode.SECONDARY_CAPTURE),
    "digitised video": ({"ConversionType": "DV"}, RejectCode.SECONDARY_CAPTURE),
    "a face": ({"RecognizableVisualFeatures": "YES"}, RejectCode.RECOGNIZABLE),
    "text that is announced": ({"BurnedInAnnotation": "YES"}, RejectCode.BURNED_IN),
    "a mosaic": ({"ImageType": [*ORIGINAL, "M", "MOSAIC"]}, RejectCode.MOSAIC),
}
PICTURES = {
    "an axial slice": {"ImageType": [*ORIGINAL, "AXIAL"]},
    "a reformatted slice": {"ImageType": [*DERIVED, "REFORMATTED"]},
    "a low dose series": {"SeriesDescription": "Thorax low dose 1.25"},
    "a series by protocol name": {"SeriesDescription": "T2 protocol A"},
    "no face": {"RecognizableVisualFeatures": "NO", "BurnedInAnnotation": "NO"},
}


def header(sop_class: str = uid.CTImageStorage, **attributes: object) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = sop_class
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize("case", PAGES)
def test_a_page_of_text_or_a_copy_is_refused_by_its_own_code(case):
    attributes, code = PAGES[case]
    with pytest.raises(Rejected) as refused:
        check_kind(header(**attributes), ("CT",))
    assert refused.value.code is code


@pytest.mark.parametrize("case", PICTURES)
def test_pictures_are_taken_for_no_page(case):
    assert check_kind(header(**PICTURES[case]), ("CT",)) == "CT"


KINDS = {
    uid.SecondaryCaptureImageStorage: RejectCode.SECONDARY_CAPTURE,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage: RejectCode.SECONDARY_CAPTURE,
    uid.VLWholeSlideMicroscopyImageStorage: RejectCode.UNSUPPORTED_KIND,
    uid.OphthalmicTomographyImageStorage: RejectCode.UNSUPPORTED_KIND,
    uid.RTImageStorage: RejectCode.UNSUPPORTED_KIND,
    uid.ParametricMapStorage: RejectCode.UNSUPPORTED_KIND,
    uid.ComprehensiveSRStorage: RejectCode.SOP_CLASS,
    uid.RTPlanStorage: RejectCode.SOP_CLASS,
    uid.UID("1.2.3.4"): RejectCode.SOP_CLASS,
    uid.NuclearMedicineImageStorage: RejectCode.MODALITY,
}


@pytest.mark.parametrize("sop_class", KINDS)
def test_a_picture_of_another_kind_has_another_code_than_no_picture(sop_class):
    with pytest.raises(Rejected) as refused:
        check_kind(header(sop_class), ("CT",))
    assert refused.value.code is KINDS[sop_class]


TAKEN = {
    uid.UID("1.2.840.10008.5.1.4.1.1.6"): "US",
    uid.UID("1.2.840.10008.5.1.4.1.1.3"): "US",
    uid.EnhancedUSVolumeStorage: "US",
    uid.XRayAngiographicImageStorage: "XA",
    uid.NuclearMedicineImageStorage: "NM",
    uid.OphthalmicPhotography8BitImageStorage: "OP",
    uid.DermoscopicPhotographyImageStorage: "XC",
}


@pytest.mark.parametrize("sop_class", TAKEN)
def test_more_kinds_are_taken_as_two_dimensional_pictures(sop_class, ingested, scan, changed):
    content = changed(scan(), SOPClassUID=sop_class, Modality=TAKEN[sop_class], RescaleType=None)
    assert ingested([content], TAKEN[sop_class], whole_ultrasound=True).records == 1


@pytest.fixture
def ingested(tmp_path, settings_with, secret):
    """Ingest some files for a study of one modality; return the report."""

    def go(contents: list[bytes], modality: str = "CT", *, whole_ultrasound: bool = False):
        (tmp_path / "scans").mkdir(exist_ok=True)
        for number, content in enumerate(contents):
            (tmp_path / "scans" / f"{number}.dcm").write_bytes(content)
        other = {} if modality == "CT" else {"intensity": "percentiles", "window_hu": ()}
        settings = settings_with(modalities=(modality,), **other)
        rules = PersonRules(whole_ultrasound=whole_ultrasound)
        return ingest(tmp_path / "scans", tmp_path / "cache", settings=settings, secret=secret, rules=rules)

    return go


def test_ultrasound_without_regions_is_taken_only_by_a_decision(ingested, scan, changed):
    ultrasound = changed(scan(), SOPClassUID=uid.UltrasoundImageStorage, Modality="US")
    assert ingested([ultrasound], "US").rejected == {"no_ultrasound_region": 1}
    assert ingested([ultrasound], "US", whole_ultrasound=True).records == 1


def written(words: str, side: int = 128) -> np.ndarray:
    image = Image.fromarray(smooth(side))
    ImageDraw.Draw(image).text((8, side // 2), words, fill=255)
    return np.asarray(image, np.float32) / 255


def smooth(side: int = 128) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] / side
    return (120 * np.sin(3 * rows) * np.cos(2 * columns) + 100).clip(0, 255).astype(np.uint8)


def test_a_picture_with_a_name_looks_more_like_text_than_anatomy_edges_or_noise():
    generator = np.random.default_rng(3)
    edges = (smooth() > 120).astype(np.float32)
    noise = (smooth() / 255 + generator.normal(0, 0.05, (128, 128))).clip(0, 1).astype(np.float32)
    others = [text_likeness(smooth().astype(np.float32) / 255), text_likeness(edges), text_likeness(noise)]
    assert text_likeness(written("WANG 12.03.1970")) > 4 * max(others)
    assert text_likeness(np.zeros((4, 4), np.float32)) == 0


def test_every_image_stands_on_a_page_those_like_text_first(tmp_path, scan, ingested, secret):
    frames = [(smooth(32) * 10).astype(np.uint16) for _ in range(PAGE.images + 2)]
    frames[-1] = (written("WANG", 32) * 4000).astype(np.uint16)
    contents = [scan(frame, number=number) for number, frame in enumerate(frames)]
    ingested(contents)
    cache = Cache.open(tmp_path / "cache", secret)
    order = most_like_text_first(cache)
    assert sorted(order) == sorted(record.record_id for record in cache.records)
    assert text_likeness(cache.read(order[0])) > text_likeness(cache.read(order[1]))
    assert page_count(len(order)) == 2
    pages = [Image.open(BytesIO(sheet_page(cache, order, number))) for number in (1, 2)]
    assert [page.size for page in pages] == [(5 * 256, 20 + 4 * (256 + 14))] * 2
    assert np.asarray(pages[1])[300:].max() == 0, "the second page holds the last two images only"

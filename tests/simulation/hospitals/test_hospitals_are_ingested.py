"""Writer and reader were written apart: what one wrote the other must read back to the number."""

import io

import numpy as np
import pytest
from pydicom import dcmread

from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.dicom.settings import IngestSettings
from simulation.drawing.scanners import Scanner
from simulation.hospitals.dicom_enhanced import enhanced_file
from simulation.hospitals.dicom_syntaxes import SYNTAXES
from simulation.hospitals.dicom_writer import Form, Names, uid_for
from simulation.hospitals.hospital import Holdings, write_hospital
from simulation.hospitals.phantoms import CLASSES, render, render_segmented
from simulation.hospitals.segmentation_writer import write_nifti

SECRET = bytes(range(32))
DEPTH, SIDE = 12, 32
SPACING_MM = (5.0, 2.0, 2.0)
RADIOGRAPHS = {
    "kind": "classification",
    "classes": CLASSES["xray"],
    "modalities": ("DX",),
    "dimensions": 2,
    "size_px": (SIDE, SIDE),
    "intensity": "percentiles",
    "percentiles": (0.0, 100.0),
}
VOLUMES = {
    "kind": "segmentation",
    "classes": ("background", "lesion"),
    "modalities": ("CT",),
    "dimensions": 3,
    "size_px": (DEPTH, SIDE, SIDE),
    "spacing_mm": SPACING_MM,
    "intensity": "ct_window",
    "window_hu": (0.0, 2048.0),
}


def ingested(folder, cache, settings, labels=None) -> Cache:
    report = ingest(folder, cache, settings=IngestSettings(**settings), secret=SECRET, labels=labels)
    assert not report.rejected
    return Cache.open(cache, SECRET)


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """Four radiographs in each syntax, as MONOCHROME2 and as its negative: all different, ingested in one run."""
    folder = tmp_path_factory.mktemp("radiographs")
    forms = [(syntax, negative) for syntax in SYNTAXES for negative in (False, True)]
    labels = np.tile([0, 1, 2, 3], len(forms))
    images = render("xray", labels, np.random.default_rng(7), SIDE)
    table = ["key_type,key,label"]
    for number, (syntax, negative) in enumerate(forms):
        part = slice(4 * number, 4 * number + 4)
        holdings = Holdings(images[part], labels[part], np.arange(4), labels[part] > 0, CLASSES["xray"], "DX")
        site = folder / "sites" / f"site-{number}"
        write_hospital(site, holdings, Scanner(monochrome1=negative, syntax=syntax), seed=1)
        table += (site / "labels.csv").read_text().splitlines()[1:]
        (site / "labels.csv").unlink()
        (site / "description.json").unlink()
    (folder / "labels.csv").write_text("\n".join(table))
    cache = ingested(folder / "sites", folder / "cache", RADIOGRAPHS, folder / "labels.csv")
    return forms, images, labels, [(record, cache.read(record.record_id)) for record in cache.records]


@pytest.mark.parametrize("form", range(2 * len(SYNTAXES)), ids=[f"{s}-{n}" for s in SYNTAXES for n in ("", "negative")])
def test_a_radiograph_comes_back_to_the_grey_level_with_its_label(form, radiographs):
    _, images, labels, records = radiographs
    assert len(records) == len(images)
    for image, label in list(zip(images, labels, strict=True))[4 * form : 4 * form + 4]:
        expected = (image - image.min()) / np.ptp(image)  # what the percentiles 0 and 100 make of it
        near = [record.label for record, seen in records if np.abs(expected - seen).max() < 2 / 4095 / np.ptp(image)]
        assert near == [label or None]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Three CT volumes, one without a lesion, one without an expert's segmentation."""
    labels, labelled = np.array([1, 0, 1]), np.array([True, True, False])
    images, found = render_segmented("ct", labels, np.random.default_rng(3), (DEPTH, SIDE, SIDE))
    holdings = Holdings(images, labels, np.arange(3), labelled, ("background", "lesion"), "CT", found, SPACING_MM)
    folder = tmp_path_factory.mktemp("volumes")
    write_hospital(folder / "site", holdings, Scanner(syntax="jpeg_ls"), seed=1)
    return images * 2048 - 1024, found, ingested(folder / "site/scans", folder / "cache", VOLUMES)


def test_a_series_comes_back_as_one_volume_in_order_and_in_hu(volumes):
    hounsfield, _, cache = volumes
    assert len(cache.records) == 3
    seen = np.stack([cache.read_values(record.record_id) for record in cache.records])
    distances = np.array([[np.abs(one - other).max() for other in hounsfield] for one in seen])
    assert (distances.min(axis=1) <= 1).all()
    assert sorted(distances.argmin(axis=1)) == [0, 1, 2]


def test_a_dicom_segmentation_comes_back_on_the_voxels_of_its_volume(volumes):
    hounsfield, found, cache = volumes
    for record in cache.records:
        seen = cache.read_values(record.record_id)
        number = int(np.argmin([np.abs(seen - other).max() for other in hounsfield]))
        assert record.has_label_map == (number != 2)
        if record.has_label_map:
            assert np.array_equal(cache.read_label_map(record.record_id), found[number])


def test_a_nifti_segmentation_comes_back_on_the_voxels_of_its_volume(tmp_path):
    labels = np.array([1, 1])
    images, found = render_segmented("ct", labels, np.random.default_rng(3), (DEPTH, SIDE, SIDE))
    nothing = np.zeros(2, bool)
    holdings = Holdings(images, labels, np.arange(2), nothing, ("background", "lesion"), "CT", found, SPACING_MM)
    write_hospital(tmp_path / "site", holdings, Scanner(), seed=1)
    series = {}
    for path in (tmp_path / "site/scans").rglob("*-0001.dcm"):
        ds = dcmread(path)
        number = int(np.argmin([np.abs(ds.pixel_array - image[0] * 2048).max() for image in images]))
        series[number] = ds.SeriesInstanceUID
        write_nifti(tmp_path / f"site/mask-{number}.nii.gz", found[number], SPACING_MM, (0.0, 0.0, 0.0))
    rows = [f"SeriesInstanceUID,{uid},mask-{number}.nii.gz" for number, uid in series.items()]
    (tmp_path / "site/labels.csv").write_text("\n".join(["key_type,key,label", *rows]))
    cache = ingested(tmp_path / "site/scans", tmp_path / "cache", VOLUMES, tmp_path / "site/labels.csv")
    seen = [cache.read_label_map(record.record_id) for record in cache.records]
    assert sorted(map(bytes, seen)) == sorted(map(bytes, found))


def test_a_hospital_file_says_nothing_that_pydicom_finds_odd(tmp_path):
    images = render("xray", [0], np.random.default_rng(0), SIDE)
    holdings = Holdings(images, np.zeros(1, int), np.arange(1), np.ones(1, bool), CLASSES["xray"], "DX")
    write_hospital(tmp_path / "site", holdings, Scanner(), seed=0)
    (path,) = (tmp_path / "site").rglob("*.dcm")
    again = io.BytesIO()
    dcmread(path).save_as(again, enforce_file_format=True)
    assert dcmread(io.BytesIO(again.getvalue())) == dcmread(path)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_an_enhanced_file_comes_back_as_one_volume_whatever_the_order_of_its_frames(modality, tmp_path):
    syntaxes = ("explicit", "implicit", "rle", "jpeg_ls", "jpeg_2000")
    images, _ = render_segmented("ct", [1, 0] * 2 + [1], np.random.default_rng(5), (DEPTH, SIDE, SIDE))
    stored = np.rint(images * 2048).astype(np.uint16)
    (tmp_path / "scans").mkdir()
    for number, syntax in enumerate(syntaxes):
        form = Form(modality, SIDE, SIDE, syntax=syntax, spacing_mm=SPACING_MM, intercept=-1024.0)
        names = Names("P1", *(uid_for(syntax, level) for level in range(3)), position_mm=(-30, -30, 7))
        order = np.random.default_rng(number).permutation(DEPTH)
        (tmp_path / f"scans/{syntax}.dcm").write_bytes(enhanced_file(form, names, list(stored[number]), order))
    settings = VOLUMES | {"kind": "classification", "modalities": (modality,)}
    if modality == "MR":
        settings |= {"intensity": "percentiles", "percentiles": (0.0, 100.0), "window_hu": ()}
    cache = ingested(tmp_path / "scans", tmp_path / "cache", settings)
    seen = [cache.read_values(record.record_id) for record in cache.records]
    distances = np.array([[np.abs(one - (other - 1024.0)).max() for other in stored] for one in seen])
    assert sorted(distances.argmin(axis=1)) == list(range(len(syntaxes)))
    assert distances.min(axis=1).max() <= 0.1

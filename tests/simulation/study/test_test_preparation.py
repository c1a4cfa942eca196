"""Test images are what a hospital's ingest would have made of them, to the bit: pictures, volumes and maps."""

import numpy as np
import pytest

from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.dicom.settings import IngestSettings
from simulation.drawing.scanners import Scanner
from simulation.hospitals.hospital import Holdings, write_hospital
from simulation.study.test_preparation import Preparation

SECRET = bytes(range(32))
NAMES = ("background", "anterior", "posterior")
PICTURE = {"dimensions": 2, "size_px": (24, 20), "spacing_mm": ()}
VOLUME = {"dimensions": 3, "size_px": (10, 12, 10), "spacing_mm": (2.0, 2.0, 2.0)}
CT = {"modalities": ("CT",), "intensity": "ct_window", "window_hu": (0.0, 1500.0)}
MR = {"modalities": ("MR",), "intensity": "percentiles", "percentiles": (1.0, 99.0)}
DX = {"modalities": ("DX",), "intensity": "luminance"}
OP = {"modalities": ("OP",), "intensity": "luminance", "channels": 3}

CASES = {
    # a row: shape of a scan, its type, spacing (slice, row, column), settings
    "bytes of another size": ((30, 41), np.uint8, (1.0, 1.0, 1.0), PICTURE | DX),
    "drawn values": ((48, 48), np.float32, (1.0, 1.0, 1.0), PICTURE | DX),
    "pixels that are not square": ((30, 30), np.uint8, (1.0, 1.5, 0.8), PICTURE | DX),
    "colour": ((31, 26, 3), np.uint8, (1.0, 1.0, 1.0), PICTURE | OP),
    "a volume, two times finer": ((24, 28, 22), np.uint8, (1.0, 1.0, 1.0), VOLUME | MR),
    "a volume with thick slices": ((9, 30, 26), np.uint8, (3.0, 0.9, 1.1), VOLUME | MR),
    "a drawn CT": ((12, 24, 24), np.float32, (2.0, 1.0, 1.0), VOLUME | CT),
    "a CT of bytes": ((12, 20, 24), np.uint8, (2.0, 1.3, 1.0), VOLUME | CT),
}


def scans_of(shape, kind, seed=3):
    rng = np.random.default_rng(seed)
    images = rng.random((2, *shape), np.float32)
    return (255 * images).astype(np.uint8) if kind == np.uint8 else images


def ingested(folder, holdings, settings):
    write_hospital(folder / "site", holdings, Scanner(), seed=1)
    for name in ("labels.csv", "description.json"):
        (folder / "site" / name).unlink()
    report = ingest(folder / "site", folder / "cache", settings=settings, secret=SECRET)
    assert not report.rejected
    cache = Cache.open(folder / "cache", SECRET)
    assert len(cache) == len(holdings.images)
    return cache


def the_same(found, expected):
    """Compare two collections whose order differs."""
    return sorted(each.tobytes() for each in found) == sorted(each.tobytes() for each in expected)


@pytest.mark.parametrize("case", CASES)
def test_a_test_image_has_the_bits_of_an_ingested_one(case, tmp_path):
    shape, kind, spacing_mm, chosen = CASES[case]
    settings = IngestSettings(kind="classification", classes=("normal", "other"), **chosen)
    images = scans_of(shape, kind)
    modality = chosen["modalities"][0]
    holdings = Holdings(images, np.zeros(2, int), np.arange(2), np.zeros(2, bool), settings.classes, modality)
    holdings = Holdings(**{**{name: getattr(holdings, name) for name in holdings.__slots__}, "spacing_mm": spacing_mm})
    cache = ingested(tmp_path, holdings, settings)
    prepared = [Preparation(settings, spacing_mm).image(image).reshape(settings.record_shape) for image in images]
    assert the_same([cache.read(record.record_id) for record in cache.records], prepared)


def test_a_mask_of_a_volume_lies_on_the_grid_of_the_ingested_one(tmp_path):
    settings = IngestSettings(kind="segmentation", classes=NAMES, **VOLUME, **MR)
    images = scans_of((24, 28, 22), np.uint8)
    maps = np.random.default_rng(5).integers(0, 3, images.shape, dtype=np.uint8)
    holdings = Holdings(images, np.ones(2, int), np.arange(2), np.ones(2, bool), NAMES, "MR", maps, (1.0, 1.0, 1.0))
    cache = ingested(tmp_path, holdings, settings)
    preparation = Preparation(settings, (1.0, 1.0, 1.0))
    drawn = [cache.read_label_map(record.record_id).astype(np.int64) for record in cache.records]
    assert the_same(drawn, [preparation.label_map(one) for one in maps])

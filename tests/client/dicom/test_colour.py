"""Pictures in colour: three channels in a study of colours, luminance in one of grey, however they were written."""

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from client.dicom.cache import Cache
from client.dicom.contact_sheet import contact_sheet
from client.dicom.ingest import ingest
from client.dicom.instance import read_images, verdict
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode
from simulation.hospitals.dicom_syntaxes import SYNTAXES

NAMES = Pseudonyms(b"k" * 32)
SIDE = 32
LUMINANCE = np.array([0.299, 0.587, 0.114])
FUNDUS = {"modalities": ("OP", "US"), "intensity": "luminance", "window_hu": (), "channels": 3}
GREY = FUNDUS | {"channels": 1}


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """A disc like a fundus: colours that differ, smooth enough for a lossy codec."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    return np.rint(255 * np.stack([0.3 + 0.6 * x, 0.2 + 0.4 * y, 0.1 + 0.2 * x * y], axis=-1)).astype(np.uint8)


@pytest.fixture(scope="module")
def fundus(scan, rgb):
    """A fundus photograph in any syntax of the writer, changed by ``edit(dataset)``."""

    def make(edit=None, frame: np.ndarray | None = None, modality: str = "OP", **form) -> bytes:
        content = scan(rgb if frame is None else frame, {"modality": modality, "colours": 3, "bits_stored": 8} | form)
        if edit is None:
            return content
        dataset = dcmread(BytesIO(content))
        edit(dataset)
        out = BytesIO()
        dataset.save_as(out, enforce_file_format=False)
        return out.getvalue()

    return make


def levels_of(content: bytes, settings) -> np.ndarray:
    [(_, levels)] = read_images(content, settings, NAMES)
    return levels / 65535


def code_of(content: bytes, settings) -> RejectCode | None:
    return verdict(lambda: list(read_images(content, settings, NAMES)) and None)


@pytest.mark.parametrize("syntax", sorted(set(SYNTAXES) - {"big_endian"}))
def test_a_fundus_photograph_keeps_its_three_colours_in_every_syntax(syntax, fundus, rgb, settings_with):
    levels = levels_of(fundus(syntax=syntax), settings_with(**FUNDUS))
    assert levels.shape == (3, SIDE, SIDE)
    assert np.abs(levels * 255 - np.moveaxis(rgb, 2, 0)).max() < 0.01


def test_in_a_study_of_grey_it_is_luminance_as_before(fundus, rgb, settings_with):
    levels = levels_of(fundus(), settings_with(**GREY))
    assert levels.shape == (SIDE, SIDE)
    assert np.abs(levels * 255 - rgb @ LUMINANCE).max() < 0.01


def ybr(rgb: np.ndarray) -> np.ndarray:
    """PS3.3 section C.7.6.3.1.2, to the nearest byte."""
    r, g, b = np.moveaxis(rgb.astype(float), 2, 0)
    y = LUMINANCE @ np.stack([r, g, b]).reshape(3, -1)
    y = y.reshape(r.shape)
    cb, cr = 128 + (b - y) / 1.772, 128 + (r - y) / 1.402
    return np.rint(np.stack([y, cb, cr], axis=-1)).astype(np.uint8)


def planes(dataset: Dataset, rgb: np.ndarray) -> None:
    dataset.PlanarConfiguration, dataset.PixelData = 1, np.moveaxis(rgb, 2, 0).tobytes()


def full(dataset: Dataset, rgb: np.ndarray) -> None:
    dataset.PhotometricInterpretation, dataset.PixelData = "YBR_FULL", ybr(rgb).tobytes()


def half_chroma(dataset: Dataset, rgb: np.ndarray) -> None:
    y, cb, cr = np.moveaxis(ybr(rgb), 2, 0)
    four = np.stack([y[:, ::2], y[:, 1::2], cb[:, ::2], cr[:, ::2]], axis=-1)
    dataset.PhotometricInterpretation, dataset.PixelData = "YBR_FULL_422", four.tobytes()


def sixteen_bits(dataset: Dataset, rgb: np.ndarray) -> None:
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = np.rint(rgb * (4095 / 255)).astype(np.uint16).tobytes()


def stream(dataset: Dataset, content: bytes, syntax: str, photometric: str) -> None:
    dataset.file_meta.TransferSyntaxUID, dataset.PhotometricInterpretation = syntax, photometric
    dataset.PixelData = encapsulate([content])
    dataset["PixelData"].is_undefined_length = True


def reversible(dataset: Dataset, rgb: np.ndarray) -> None:
    content = imagecodecs.jpeg2k_encode(rgb, level=0, reversible=True, codecformat="J2K", mct=True)
    stream(dataset, content, uid.JPEG2000Lossless, "YBR_RCT")


def irreversible(dataset: Dataset, rgb: np.ndarray) -> None:
    content = imagecodecs.jpeg2k_encode(rgb, level=60, reversible=False, codecformat="J2K", mct=True)
    stream(dataset, content, uid.JPEG2000, "YBR_ICT")


def baseline(dataset: Dataset, rgb: np.ndarray) -> None:
    content = imagecodecs.jpeg8_encode(rgb, level=98, subsampling="422")
    stream(dataset, content, uid.JPEGBaseline8Bit, "YBR_FULL_422")


def palette(bits: int, first: int):
    """Indices into tables, of which the red one has another length: what is beyond its end is its last entry."""

    def write(dataset: Dataset, rgb: np.ndarray) -> None:
        colours, indices = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
        order = np.argsort(colours[:, 0], kind="stable")  # the last of the red table repeats itself
        colours, indices = colours[order], np.argsort(order)[indices.reshape(-1)]
        repeats = int((colours[:, 0] == colours[-1, 0]).sum())
        lengths = (len(colours) - repeats + 1, len(colours), len(colours))
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "PALETTE COLOR"
        del dataset.PlanarConfiguration
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        for name, table, length in zip(("Red", "Green", "Blue"), colours.T, lengths, strict=True):
            entries = table[:length].astype(np.uint8) if bits == 8 else table[:length].astype("<u2") * 257
            keyword = f"{name}PaletteColorLookupTable"
            dataset.add_new(f"{keyword}Descriptor", "US", [length, first, bits])
            content = entries.tobytes()
            dataset.add_new(f"{keyword}Data", "OW", content + b"\0" * (len(content) % 2))
        dataset.PixelData = (indices + first).astype("<u2").tobytes()

    return write


WRITTEN = {
    "one plane after the other": (planes, 0.01),
    "YBR_FULL": (full, 1.5),
    "YBR_FULL_422": (half_chroma, 6.0),
    "12 bits": (sixteen_bits, 0.05),
    "YBR_RCT": (reversible, 0.01),
    "YBR_ICT": (irreversible, 3.0),
    "JPEG baseline": (baseline, 8.0),
    "a palette of 8 bits": (palette(8, 0), 0.01),
    "a palette of 16 bits that begins at 100": (palette(16, 100), 0.01),
}


@pytest.mark.parametrize(("write", "tolerance"), WRITTEN.values(), ids=WRITTEN)
def test_the_same_colours_come_out_whatever_they_were_written_as(write, tolerance, fundus, rgb, settings_with):
    levels = levels_of(fundus(lambda dataset: write(dataset, rgb)), settings_with(**FUNDUS))
    assert np.abs(levels * 255 - np.moveaxis(rgb, 2, 0)).max() <= tolerance


def test_grey_ultrasound_stands_in_all_three_colours_and_any_other_grey_picture_is_refused(
    scan, fundus, rgb, settings_with
):
    grey = rgb[:, :, 0]
    ultrasound = scan(grey, {"modality": "US", "bits_stored": 8})
    levels = levels_of(ultrasound, settings_with(**FUNDUS))
    assert np.array_equal(levels, np.broadcast_to(levels[0], levels.shape))
    assert np.abs(levels[0] * 255 - grey).max() < 0.01
    red_free = scan(grey, {"modality": "OP", "bits_stored": 8})
    assert code_of(red_free, settings_with(**FUNDUS)) is RejectCode.NO_COLOUR
    assert code_of(red_free, settings_with(**GREY)) is None
    doppler = fundus(modality="US")
    assert np.abs(levels_of(doppler, settings_with(**FUNDUS)) * 255 - np.moveaxis(rgb, 2, 0)).max() < 0.01


def test_percentiles_stretch_the_three_colours_alike(fundus, rgb, settings_with):
    whole = FUNDUS | {"intensity": "percentiles", "percentiles": (0.0, 100.0)}
    levels = levels_of(fundus(), settings_with(**whole))
    low, high = float(rgb.min()), float(rgb.max())
    assert np.abs(levels - (np.moveaxis(rgb, 2, 0) - low) / (high - low)).max() < 1e-4


def test_a_large_picture_is_fitted_colour_by_colour(fundus, rgb, settings_with):
    large = np.kron(rgb, np.ones((4, 2, 1), np.uint8))  # 128 x 64
    content = fundus(frame=large, rows=128, columns=64)
    levels = levels_of(content, settings_with(**FUNDUS, size_px=(SIDE, SIDE)))
    assert not levels[:, :, :8].any(), "proportions are kept, beside the picture it is black"
    inside = levels[:, :, 8:-8] * 255
    expected = np.moveaxis(rgb.reshape(SIDE, SIDE // 2, 2, 3).mean(axis=2), 2, 0)
    assert np.abs(inside - expected).max() < 12


def test_a_cache_in_colour_holds_colours_and_shows_them(tmp_path, fundus, rgb, settings_with, secret):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "1.dcm").write_bytes(fundus())
    report = ingest(tmp_path / "scans", tmp_path / "cache", settings=settings_with(**FUNDUS), secret=secret)
    assert (report.records, report.rejected) == (1, {})
    cache = Cache.open(tmp_path / "cache", secret)
    [record] = cache.records
    assert record.shape == (3, SIDE, SIDE)
    assert np.abs(cache.read_values(record.record_id) - np.moveaxis(rgb, 2, 0)).max() < 0.01
    sheet = np.asarray(Image.open(BytesIO(contact_sheet(cache, 1)))).astype(int)
    tile = sheet[30:170, 10:150]
    assert np.abs(tile.mean(axis=(0, 1)) - rgb.mean(axis=(0, 1))).max() < 6


def test_outlines_on_a_picture_in_colour_are_read_with_it(tmp_path, fundus, settings_with, secret, names_for):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "1.dcm").write_bytes(fundus())
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    drawn[4:12, 6:20] = 1
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    table = tmp_path / "labels.csv"
    table.write_text(f"key_type,key,label\nSOPInstanceUID,{names_for().instance_uid},mask.png\n")
    settings = settings_with(**FUNDUS, kind="segmentation")
    report = ingest(tmp_path / "scans", tmp_path / "cache", settings=settings, secret=secret, labels=table)
    assert (report.records, report.rejected) == (1, {})
    cache = Cache.open(tmp_path / "cache", secret)
    assert np.array_equal(cache.read_label_map(cache.records[0].record_id), drawn)
    assert cache.read(cache.records[0].record_id).shape == (3, SIDE, SIDE)


IMPOSSIBLE = {
    "a volume": {"volume": True, "modalities": ("CT",), "channels": 3, "intensity": "percentiles", "window_hu": ()},
    "Hounsfield units": {"channels": 3},
    "the window of the file": FUNDUS | {"intensity": "voi_lut"},
    "two channels": FUNDUS | {"channels": 2},
}


@pytest.mark.parametrize("changes", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_settings_that_have_no_colour_are_refused(changes, settings_with):
    with pytest.raises(ValueError, match="channels"):
        settings_with(**changes)

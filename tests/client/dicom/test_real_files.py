"""Real files in every transfer syntax: decoded, or quarantined with a code; nothing else can happen."""

import csv
import hashlib
import importlib.resources
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.pixels import pixel_array

from client.dicom.decode import PLAIN, check_stream, stored_values
from client.dicom.header import read_header
from client.dicom.image_module import check_image_module, check_kind
from client.dicom.instance import read_images, verdict
from client.dicom.person_rules import PersonRules
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode

# Files that come with libraries belong to nobody: ultrasound is taken whole, as staff may decide after looking.
NAMES = Pseudonyms(b"k" * 32, PersonRules(whole_ultrasound=True))
ALL = {"modalities": ("CT", "MR", "CR", "DX", "MG", "US"), "intensity": "percentiles", "window_hu": ()}
LOSSLESS = ("Lossless", "Implicit", "LittleEndianExplicit", "BigEndian", "Deflated", "JPEGProcess14")
LOSSY_NAMES = ("LSLossy",)


def package_folder(name: str) -> Path:
    try:
        return Path(str(importlib.resources.files(name)))
    except ModuleNotFoundError:
        pytest.skip(f"the test dependency that provides {name} is not installed")


def outcome(path: Path, settings) -> str:
    records: list = []
    code = verdict(lambda: records.extend(read_images(path.read_bytes(), settings, NAMES)))
    assert (code is None) == bool(records) or code is not None
    return "decoded" if code is None else code.value


def test_every_file_that_comes_with_pydicom_is_decoded_or_gets_a_code(settings_with):
    folders = (Path(pydicom.data.__file__).parent, package_folder("data_store"))
    settings = settings_with(**ALL)
    files = [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix in (".dcm", "") and p.is_file()]
    small = [p for p in files if not p.name.startswith(("RG", "MR2_J2K"))]
    outcomes = [outcome(path, settings) for path in small]
    assert set(outcomes) <= {"decoded", *(code.value for code in RejectCode)}
    assert outcomes.count("decoded") >= 60
    assert RejectCode.PARSE.value not in outcomes, "each has a code of its own"


EXPECTED = {
    "examples_jpeg2k.dcm": "decoded",
    "examples_ybr_color.dcm": "decoded",
    "MR_truncated.dcm": "pixel_length",
    "no_meta.dcm": "not_part10",
    "meta_missing_tsyntax.dcm": "bad_meta",
    "test-SR.dcm": "sop_class",
    "rtplan.dcm": "sop_class",
    "emri_small.dcm": "no_patient_id",
    "JPEG2000.dcm": "secondary_capture",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_known_file_has_the_outcome_a_person_expects(name, settings_with):
    path = pydicom.data.get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom-data, which holds {name}, is not installed")
    assert outcome(Path(path), settings_with(**ALL)) == EXPECTED[name]


def decoded_frame(path: Path) -> np.ndarray:
    dataset = read_header(path.read_bytes())
    module = check_image_module(dataset, "CT")
    check_stream(dataset, module, [0])
    return stored_values(dataset, module, 0)


def test_one_ct_has_identical_pixels_in_all_its_lossless_syntaxes(shared_data):
    folder = shared_data / "dicom" / "wado_testimages"
    reference = decoded_frame(folder / "CTImage.dcm")
    lossless = [
        path
        for path in sorted(folder.glob("CTImage*"))
        if any(word in path.name for word in LOSSLESS) and not any(word in path.name for word in LOSSY_NAMES)
    ]
    assert len(lossless) == 9
    for path in lossless:
        assert np.array_equal(decoded_frame(path), reference), "a lossless syntax changed a pixel"


def test_every_wado_image_is_decoded_as_the_manifest_says_or_quarantined(shared_data, settings_with):
    root = shared_data / "dicom"
    with (root / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith("wado_testimages/")]
    assert len(rows) == 20
    settings = settings_with(**ALL)
    seen = {}
    for row in rows:
        path = root / row["file"]
        seen[row["file"]] = result = outcome(path, settings)
        if result != "decoded" or row["modality"] != "CT" or row["frames"] != "1":
            continue
        frame = decoded_frame(path)
        if path.name.endswith((".50.dcm", ".51.dcm")):
            continue  # lossy JPEG: decoders round the cosine transform differently
        assert (frame.min(), frame.max()) == (int(row["min"]), int(row["max"]))
        native = frame.astype(frame.dtype.newbyteorder(">" if "BigEndian" in path.name else "="))
        assert hashlib.sha1(native.tobytes()).hexdigest()[:12] == row["sha1"]
    quarantined = {name.rpartition("Syntax_")[2]: code for name, code in seen.items() if code != "decoded"}
    assert quarantined == {
        "1.2.840.10008.1.2.4.53.dcm": "transfer_syntax",
        "1.2.840.10008.1.2.4.55.dcm": "transfer_syntax",
        "wado_testimages/US-YBR_FULL_422-EVRLE.dcm": "no_patient_id",
        "wado_testimages/no-pixel-data.dcm": "sop_class",
    }


def test_twelve_bit_jpeg_is_decoded_close_to_the_original(shared_data):
    folder = shared_data / "dicom" / "wado_testimages"
    lossy = next(folder.glob("*JPEGProcess2_4*"))
    reference = dcmread(folder / "CTImage.dcm").pixel_array.astype(float)
    ours = decoded_frame(lossy).astype(float)
    inside = reference > -2000
    assert np.corrcoef(ours[inside], reference[inside])[0, 1] > 0.99


PLAIN_FILES = ["CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "examples_overlay.dcm", "693_UNCI.dcm"]
PLAIN_FILES += ["OBXXXX1A_2frame.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm", "eCT_Supplemental.dcm", "US1_UNCI.dcm"]


@pytest.mark.parametrize("name", PLAIN_FILES)
def test_uncompressed_grey_values_are_read_as_pydicom_reads_them(name, settings_with):
    """Our shortcut against the general machinery, on real files."""
    path = pydicom.data.get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom-data, which holds {name}, is not installed")
    dataset = read_header(Path(path).read_bytes())
    module = check_image_module(dataset, check_kind(dataset, settings_with(**ALL).modalities))
    last = module.frames - 1
    assert np.array_equal(stored_values(dataset, module, last), pixel_array(path, index=last))
    is_plain = dataset.file_meta.TransferSyntaxUID in PLAIN and module.samples == 1
    assert is_plain == (name != "US1_UNCI.dcm")


@pytest.mark.parametrize(("signed", "bits"), [(False, 12), (True, 12), (False, 16), (True, 16), (True, 8)])
def test_bits_above_those_stored_are_cleared_and_the_sign_is_kept(signed, bits, scan, changed):
    frame = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    attributes = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(signed)}
    content = changed(scan(frame, form={"bits_stored": 16}), **attributes)
    dataset = read_header(content)
    module = check_image_module(dataset, "CT")
    values = frame.astype(np.int64) % 2**bits
    expected = np.where(values >= 2 ** (bits - 1), values - 2**bits, values) if signed else values
    assert np.array_equal(stored_values(dataset, module, 0), expected)

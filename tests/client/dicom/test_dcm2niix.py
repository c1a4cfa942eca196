"""Real and made series against dcm2niix: the same series taken, the same grid, the same values."""

import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom.data
import pytest

from client.dicom.pseudonyms import Pseudonyms
from client.dicom.resize import centred
from client.dicom.volume import SeriesFiles, build_volume

NAMES = Pseudonyms(b"k" * 32)
LEAST_PX = 8
WINDOW_HU = (0.0, 8000.0)
PYDICOM = Path(pydicom.data.__file__).parent / "test_files"

pytestmark = pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed (.ci/run tries to)")


def converted(files: list[Path], folder: Path) -> list[nib.Nifti1Image]:
    """What dcm2niix makes of the files."""
    (folder / "in").mkdir(parents=True)
    for number, path in enumerate(files):
        shutil.copy(path, folder / "in" / f"{number:04d}.dcm")
    command = ["dcm2niix", "-z", "n", "-b", "n", "-f", "o", "-o", str(folder), str(folder / "in")]
    subprocess.run(command, check=False, capture_output=True, timeout=120)
    return [nib.load(path) for path in sorted(folder.glob("*.nii"))]


def towards_head_back_left(image: nib.Nifti1Image) -> tuple[np.ndarray, tuple[float, ...]]:
    """Values with axes (head, back, left), and the spacing along them; NIfTI counts towards right, front, head."""
    upright = nib.as_closest_canonical(image)
    values = np.asarray(upright.get_fdata(), np.float32).transpose(2, 1, 0)[:, ::-1, ::-1]
    return values, tuple(round(float(mm), 6) for mm in upright.header.get_zooms()[2::-1])  # NIfTI keeps 32 bits


def assert_equal(files: list[Path], image: nib.Nifti1Image, settings_with, **window) -> None:
    theirs, spacing_mm = towards_head_back_left(image)
    size_px = tuple(max(LEAST_PX, count) for count in theirs.shape)
    settings = settings_with(volume=True, size_px=size_px, spacing_mm=spacing_mm, **window)
    volume = build_volume(
        SeriesFiles(len(files), lambda index: files[index].read_bytes(), settings, NAMES), settings, lambda: None
    )
    low, high = volume.facts.intensity_low, volume.facts.intensity_high
    ours = volume.levels * ((high - low) / 65535) + low
    inside = centred(np.ones(theirs.shape, bool), size_px, False) & (centred(theirs, size_px, 0) > -1500)  # no padding
    assert inside.mean() > 0.01
    difference = np.abs(ours - centred(theirs, size_px, 0))[inside]
    assert (np.median(difference) < 1, difference.max() < 2) == (True, True)


OWN_RANGE = {"intensity": "percentiles", "window_hu": (), "percentiles": (0.0, 100.0)}  # they say their unit is not HU
REAL = {
    "dcmqi, 23 columns": ("dcmqi/segmentations/23x38x3/image", OWN_RANGE),
    "dcmqi, one multi-frame file": ("dcmqi/segmentations/23x38x3/multiframe", OWN_RANGE),
    "dcmqi, 24 columns": ("dcmqi/segmentations/24x38x3/image", OWN_RANGE),
    "dcmqi, three slices of a thorax": ("dcmqi/segmentations/ct-3slice", {"window_hu": WINDOW_HU}),
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_series_has_the_grid_and_the_values_of_dcm2niix(name, tmp_path, shared_data, settings_with):
    folder, window = REAL[name]
    files = sorted((shared_data / "dicom" / folder).glob("*.dcm"))
    [image] = converted(files, tmp_path)
    assert_equal(files, image, settings_with, **window)


def test_a_series_that_comes_with_pydicom_has_the_grid_and_the_values_of_dcm2niix(tmp_path, settings_with):
    files = sorted((PYDICOM / "dicomdirtests" / "98892001" / "CT5N").iterdir())
    [image] = converted(files, tmp_path)
    assert_equal(files, image, settings_with, window_hu=WINDOW_HU)


@pytest.mark.parametrize("folder", ["series_nlst_ct", "series_acrin_nsclc_ct"])
def test_a_real_lung_series_has_the_grid_and_the_values_of_dcm2niix(folder, tmp_path, shared_data, settings_with):
    """Its slices are JPEG-LS, which Debian's dcm2niix does not read: pydicom decompresses a copy of twelve for it."""
    files = sorted((shared_data / "dicom" / folder).glob("*.dcm"))
    by_place = sorted(
        files, key=lambda path: float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])
    )
    chosen, plain = by_place[40:52], []
    for number, path in enumerate(chosen):
        dataset = pydicom.dcmread(path)
        dataset.decompress(decoding_plugin="pyjpegls")
        dataset.save_as(tmp_path / f"{number}.dcm")
        plain.append(tmp_path / f"{number}.dcm")
    [image] = converted(plain, tmp_path / "out")
    assert_equal(chosen, image, settings_with, window_hu=WINDOW_HU)

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from common.errors import OutputExistsError
from simulation.__main__ import app
from simulation.drawing.scanners import REFERENCE, SCANNERS
from simulation.hospitals.differences import Differences
from simulation.hospitals.phantom_hospitals import PhantomRequest, make_phantom_hospitals
from simulation.hospitals.phantoms import CLASSES, PhantomKind, render, render_segmented

SHAPES = {
    "radiographs": (PhantomKind.XRAY, (64, 64)),
    "CT slices": (PhantomKind.CT, (64, 64)),
    "MR slices": (PhantomKind.MR, (48, 40)),
    "CT volumes": (PhantomKind.CT, (16, 32, 32)),
    "MR volumes": (PhantomKind.MR, (12, 32, 32)),
}


def drawn(kind, shape, labels, seed=1, **settings):
    return render_segmented(kind, labels, np.random.default_rng(seed), shape, **settings)


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_seed_draws_the_same_images_and_another_seed_others(name):
    kind, shape = SHAPES[name]
    first, again, other = (drawn(kind, shape, [0, 1, 0, 1], seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", SHAPES)
def test_images_are_finite_float32_between_0_and_1(name):
    kind, shape = SHAPES[name]
    images, segmentations = drawn(kind, shape, np.arange(6) % 2)
    assert images.shape == segmentations.shape == (6, *shape)
    assert images.dtype == np.float32
    assert segmentations.dtype == np.uint8
    assert np.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std(axis=tuple(range(1, images.ndim))).min() > 0.05


@pytest.mark.parametrize("name", SHAPES)
def test_a_lesion_brightens_the_picture_where_its_segmentation_says_and_nowhere_else(name):
    kind, shape = SHAPES[name]
    silent = replace(REFERENCE, noise_stddev=0.0)
    for lesion in range(1, len(CLASSES[kind])):
        healthy, nothing = drawn(kind, shape, [0] * 8, scanner=silent)
        ill, found = drawn(kind, shape, [lesion] * 8, scanner=silent)
        assert not nothing.any()
        difference = ill - healthy
        assert difference.min() >= -1e-6
        for one, where in zip(difference, found, strict=True):
            assert where.any()
            assert one[where == 1].mean() > 10 * one[where == 0].mean() + 0.01


def test_difficulty_divides_the_contrast_of_a_lesion():
    silent = replace(REFERENCE, noise_stddev=0.0)
    healthy, _ = drawn("xray", (64, 64), [0] * 4, scanner=silent)
    easy, hard = (drawn("xray", (64, 64), [1] * 4, scanner=silent, difficulty=d)[0] - healthy for d in (1, 4))
    lesion = easy > 0.01
    assert hard[lesion].mean() == pytest.approx(easy[lesion].mean() / 4, rel=0.1)


def test_images_of_one_patient_share_their_anatomy_but_not_their_pose():
    patients = np.repeat(np.arange(12), 2)
    images = render("xray", np.zeros(24, int), np.random.default_rng(0), 64, patients=patients).reshape(24, -1)
    alike = np.corrcoef(images)
    assert not np.array_equal(images[0], images[1])
    assert np.mean([alike[i, i + 1] for i in range(0, 24, 2)]) > np.mean([alike[i, i + 2] for i in range(0, 22, 2)])


@pytest.mark.parametrize("scanner", SCANNERS[1:], ids=lambda scanner: scanner.maker)
def test_every_scanner_sees_the_same_anatomy_differently(scanner):
    reference, other = (render("xray", [0] * 8, np.random.default_rng(3), 64, s) for s in (REFERENCE, scanner))
    assert abs(reference.mean() - other.mean()) > 0.01 or abs(reference.std() - other.std()) > 0.01
    assert np.corrcoef(reference.ravel(), other.ravel())[0, 1] > 0.7


REFUSED = {
    "a class the kind does not have": ("ct", [0, 2], (64, 64), 1.0),
    "a negative class": ("xray", [-1], (64, 64), 1.0),
    "a volume of radiographs": ("xray", [0], (8, 64, 64), 1.0),
    "an image smaller than 8 pixels": ("mr", [0], (4, 64), 1.0),
    "a difficulty of zero": ("mr", [0], (64, 64), 0.0),
    "an unknown kind": ("pet", [0], (64, 64), 1.0),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_drawn_is_refused(why):
    kind, labels, shape, difficulty = REFUSED[why]
    with pytest.raises(ValueError, match=r"."):
        drawn(kind, shape, labels, difficulty=difficulty)


def test_images_of_one_patient_must_stand_side_by_side():
    with pytest.raises(ValueError, match="side by side"):
        render("ct", [0, 0, 0], np.random.default_rng(0), 32, patients=[0, 1, 0])


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms") / "hospitals"
    request = PhantomRequest(patients=20, size_px=32, test_patients=8)
    differences = Differences(sites=4, images_per_patient=2, labelled_share=0.25, unlabelled_sites=1, seed=5)
    return out, request, differences, make_phantom_hospitals(out, request, differences)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_writes_the_same_hospitals(hospitals, tmp_path):
    out, request, differences, _ = hospitals
    make_phantom_hospitals(tmp_path / "again", request, differences)
    first, again = contents(out), contents(tmp_path / "again")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []
    make_phantom_hospitals(tmp_path / "other", request, replace(differences, seed=6))
    assert contents(tmp_path / "other") != first


def test_each_hospital_holds_the_promised_patients_studies_and_labels(hospitals):
    out, _, _, described = hospitals
    for number, hospital in enumerate(described, start=1):
        folder = out / f"hospital-{number}"
        images = [dcmread(path, stop_before_pixels=True) for path in (folder / "scans").rglob("*.dcm")]
        rows = (folder / "labels.csv").read_text().splitlines()
        assert rows[0] == "key_type,key,label"
        labelled = {row.split(",")[1] for row in rows[1:]}
        owners = {image.PatientID for image in images if image.SOPInstanceUID in labelled}
        assert len(images) == 40
        assert len({image.PatientID for image in images}) == len({image.StudyInstanceUID for image in images}) == 20
        assert len({image.SOPInstanceUID for image in images}) == 40
        assert len(labelled) == 2 * len(owners), "a patient is labelled as a whole"
        assert len(owners) == hospital.labelled_patients == (0 if number == 4 else 5)
        assert labelled <= {image.SOPInstanceUID for image in images}


def test_hospitals_share_no_patient_and_no_instance(hospitals):
    out = hospitals[0]
    seen = [
        {(image.PatientID, image.SOPInstanceUID)[part] for image in map(dcmread, (folder / "scans").rglob("*.dcm"))}
        for folder in out.glob("hospital-*")
        for part in (0, 1)
    ]
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_the_test_set_is_in_no_hospital(hospitals):
    out, _, _, described = hospitals
    test = np.load(out / "test.npz", allow_pickle=False)
    assert test["images"].shape == (8, 32, 32)
    assert set(test["labels"]) <= {0, 1}
    assert list(test["class_names"]) == list(described[0].classes)


def test_a_folder_that_holds_something_is_left_alone(hospitals):
    out, request, differences, _ = hospitals
    before = contents(out)
    with pytest.raises(OutputExistsError):
        make_phantom_hospitals(out, request, differences)
    assert contents(out) == before


def test_the_command_writes_hospitals_and_describes_them_as_json(tmp_path):
    arguments = ["phantoms", str(tmp_path / "h"), "--sites", "2", "--patients", "3", "--size-px", "32", "--json"]
    result = CliRunner().invoke(
        app, [*arguments, "--kind", "ct", "--depth", "8", "--segmented", "--test-patients", "2"]
    )
    assert result.exit_code == 0, result.output
    described = json.loads(result.stdout)
    assert [hospital["files"] for hospital in described["hospitals"]] == [27, 27]
    assert described == json.loads(result.stdout) | {
        "hospitals": json.loads((tmp_path / "h/description.json").read_text())["hospitals"]
    }

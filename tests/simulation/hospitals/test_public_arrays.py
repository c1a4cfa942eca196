import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from common.errors import FileTooLargeError, FileUnreadableError
from simulation.__main__ import app
from simulation.errors import ScenarioInvalidError
from simulation.hospitals import public_arrays
from simulation.hospitals.differences import Differences
from simulation.hospitals.hospital import deal
from simulation.hospitals.imported_hospitals import make_imported_hospitals
from simulation.hospitals.public_arrays import load_public_arrays

DATA = Path(__file__).resolve().parents[3] / "../shared/data"
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 16, 16), dtype=np.uint8)
LABELS = np.arange(60, dtype=np.uint8)[:, None] % 3


def archive(path: Path, **arrays) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def split_archive(path: Path) -> Path:
    parts = {"train": slice(0, 30), "val": slice(30, 40), "test": slice(40, 60)}
    arrays = {f"{name}_images": IMAGES[part] for name, part in parts.items()}
    return archive(path, **arrays, **{f"{name}_labels": LABELS[part] for name, part in parts.items()})


def test_a_medmnist_file_gives_train_and_val_to_hospitals_and_keeps_the_test_set(tmp_path):
    source = load_public_arrays(split_archive(tmp_path / "a.npz"))
    assert np.array_equal(source.images, IMAGES[:40])
    assert np.array_equal(source.labels, LABELS[:40, 0])
    assert np.array_equal(source.test_images, IMAGES[40:])
    assert source.class_names == ("class_0", "class_1", "class_2")


def test_an_undivided_archive_holds_out_the_same_fifth_every_time(tmp_path):
    path = archive(
        tmp_path / "a.npz", images=IMAGES, labels=LABELS[:, 0], class_names=np.array(["AbdomenCT", "B b", "9"])
    )
    first, again = load_public_arrays(path), load_public_arrays(path)
    assert (len(first.images), len(first.test_images)) == (48, 12)
    assert np.array_equal(first.test_images, again.test_images)
    both = np.concatenate([first.images, first.test_images]).reshape(60, -1)
    assert len(np.unique(both, axis=0)) == len(np.unique(IMAGES.reshape(60, -1), axis=0))
    assert first.class_names == ("abdomenct", "b_b", "class_2")


def test_colour_becomes_luminance(tmp_path):
    colour = np.zeros((10, 16, 16, 3), np.uint8)
    colour[..., 1] = 200
    source = load_public_arrays(archive(tmp_path / "a.npz", images=colour, labels=np.zeros(10, int)))
    assert source.images.shape == (8, 16, 16)
    assert set(source.images.ravel()) == {round(0.587 * 200)}


def coloured(path: Path, **arrays) -> Path:
    colours = np.stack([IMAGES, IMAGES // 2, 255 - IMAGES], axis=-1)
    return archive(path, images=colours, labels=LABELS, **arrays)


def test_colour_stays_where_it_is_asked_for_and_grey_is_refused_there(tmp_path):
    source = load_public_arrays(coloured(tmp_path / "a.npz"), colour=True)
    assert source.images.shape == (48, 16, 16, 3)
    assert np.array_equal(source.images[..., 1], source.images[..., 0] // 2)
    with pytest.raises(FileUnreadableError, match=r"pictures in colour are \(N, H, W, 3\)"):
        load_public_arrays(split_archive(tmp_path / "b.npz"), colour=True)


def test_pictures_in_colour_may_be_segmented(tmp_path):
    colours = RNG.integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    masks = (colours[..., 0] > 200).astype(np.uint8)
    source = load_public_arrays(archive(tmp_path / "a.npz", images=colours, labels=masks), colour=True)
    assert source.segmentations is not None
    assert source.segmentations.shape == (8, 16, 16)


@pytest.mark.parametrize("shift", [0, 1])
def test_hospitals_hold_the_colours_of_the_archive_in_formats_of_their_own(shift, tmp_path):
    source = load_public_arrays(coloured(tmp_path / "a.npz"), colour=True)
    make_imported_hospitals(tmp_path / "out", source, "OP", Differences(sites=3, shift=shift, seed=1))
    files = [dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")]
    assert len({ds.file_meta.TransferSyntaxUID for ds in files}) == 3
    assert {(ds.SamplesPerPixel, ds.BitsStored, ds.Modality) for ds in files} == {(3, 8, "OP")}
    held = sorted(ds.pixel_array.tobytes() for ds in files)
    assert (held == sorted(image.tobytes() for image in source.images)) == (shift == 0)


def test_labels_of_the_images_own_shape_are_segmentations(tmp_path):
    volumes = RNG.integers(0, 256, (10, 8, 16, 16), dtype=np.uint8)
    masks = (volumes > 250).astype(np.uint8) * 2
    source = load_public_arrays(archive(tmp_path / "a.npz", images=volumes, labels=masks))
    assert source.segmentations is not None
    assert source.segmentations.shape == (8, 8, 16, 16)
    assert source.class_names == ("background", "structure_1", "structure_2")


def pickled(path: Path) -> Path:
    np.savez(path, images=np.array([{"a": 1}], dtype=object), labels=LABELS)
    return path


def with_member(path: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(name, content)
    return path


def lying_header(path: Path) -> Path:
    saved = io.BytesIO()
    np.save(saved, IMAGES)
    return with_member(path, "images.npy", saved.getvalue().replace(b"(60, 16, 16)", b"(99, 99, 99)"))


REFUSED = {
    "Python objects": pickled,
    "a header that promises more than there is": lying_header,
    "a member that is no array": lambda p: with_member(p, "run.py", b"print()"),
    "an array of noise": lambda p: with_member(p, "images.npy", b"\x93NUMPY\x01\x00\xff\xff"),
    "an array without its magic": lambda p: with_member(p, "images.npy", bytes(500)),
    "no labels": lambda p: archive(p, images=IMAGES),
    "no images": lambda p: archive(p, labels=LABELS),
    "fewer labels than images": lambda p: archive(p, train_images=IMAGES, train_labels=LABELS[:5]),
    "images of floats": lambda p: archive(p, images=IMAGES / 255, labels=LABELS),
    "images of four pixels": lambda p: archive(p, images=IMAGES[:, :4, :4], labels=LABELS),
    "several labels for one image": lambda p: archive(p, images=IMAGES, labels=np.zeros((60, 14), int)),
    "labels that are no classes": lambda p: archive(p, images=IMAGES, labels=np.full(60, -1)),
    "labels of text": lambda p: archive(p, images=IMAGES, labels=np.full(60, "x")),
    "seventy arrays": lambda p: archive(p, **{f"a{n}": LABELS for n in range(70)}),
}


@pytest.mark.parametrize("why", REFUSED)
def test_an_archive_that_is_not_understood_is_refused(why, tmp_path):
    path = REFUSED[why](tmp_path / "a.npz")
    with pytest.raises(FileUnreadableError):
        load_public_arrays(path)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(FileUnreadableError):
        load_public_arrays(path)


def test_an_archive_too_large_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(public_arrays, "MAX_ARCHIVE_BYTES", 10_000)
    with pytest.raises(FileTooLargeError, match="10000"):
        load_public_arrays(archive(tmp_path / "a.npz", images=IMAGES, labels=LABELS))


@pytest.mark.parametrize("alpha", [0.0, 0.05, 1.0, 100.0])
@pytest.mark.parametrize("sites", [1, 3, 10])
def test_every_patient_is_dealt_to_exactly_one_hospital_and_no_hospital_is_empty(alpha, sites):
    dealt = deal(LABELS[:, 0].astype(int), sites, alpha, np.random.default_rng(1))
    assert len(dealt) == sites
    assert all(len(site) for site in dealt)
    assert np.array_equal(np.sort(np.concatenate(dealt)), np.arange(60))


def test_a_small_alpha_skews_the_classes_and_a_large_one_does_not():
    labels = np.arange(3000) % 3

    def unevenness(alpha):
        dealt = deal(labels, 5, alpha, np.random.default_rng(2))
        mixes = [np.bincount(labels[site], minlength=3) / len(site) for site in dealt]
        return np.std(mixes, axis=0).mean()

    assert unevenness(0.3) > 0.1
    assert unevenness(1000) < 0.02


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Forty images, two of each patient, three hospitals that differ in format only; the last one has no labels."""
    folder = tmp_path_factory.mktemp("import")
    source = load_public_arrays(split_archive(folder / "a.npz"))
    differences = Differences(sites=3, images_per_patient=2, unlabelled_sites=1, shift=0, seed=1)
    make_imported_hospitals(folder / "out", source, "CR", differences)
    return folder / "out"


def pixels_of(path: Path) -> np.ndarray:
    ds = dcmread(path)
    return 255 - ds.pixel_array if ds.PhotometricInterpretation == "MONOCHROME1" else ds.pixel_array


def test_without_shift_hospitals_hold_the_very_bytes_of_the_archive_each_once(imported):
    held = sorted(pixels_of(path).tobytes() for path in imported.rglob("*.dcm"))
    assert held == sorted(image.tobytes() for image in IMAGES[:40])


def test_the_public_test_set_stays_out_untouched(imported):
    kept = np.load(imported / "test.npz", allow_pickle=False)
    assert np.array_equal(kept["images"], IMAGES[40:])
    assert np.array_equal(kept["labels"], LABELS[40:, 0])


def test_a_patient_has_images_of_one_class_and_the_table_tells_the_truth(imported):
    classes = {image.tobytes(): f"class_{label[0]}" for image, label in zip(IMAGES, LABELS, strict=True)}
    for folder in sorted(imported.glob("hospital-*")):
        table = dict(row.split(",")[1:] for row in (folder / "labels.csv").read_text().splitlines()[1:])
        patients: dict[str, list[str]] = {}
        for path in folder.rglob("*.dcm"):
            ds, label = dcmread(path), classes[pixels_of(path).tobytes()]
            patients.setdefault(ds.PatientID, []).append(label)
            assert table.get(ds.SOPInstanceUID, label) == label
        assert len(table) == (0 if folder.name == "hospital-3" else len(list(folder.rglob("*.dcm"))))
        assert all(len(set(labels)) == 1 and len(labels) <= 2 for labels in patients.values())


def test_hospitals_of_one_import_write_different_formats(imported):
    forms = {
        (row["syntax"], row["monochrome1"])
        for row in json.loads((imported / "description.json").read_text())["hospitals"]
    }
    assert len(forms) == 3


def test_shift_gives_hospitals_another_look(tmp_path):
    source = load_public_arrays(split_archive(tmp_path / "a.npz"))
    make_imported_hospitals(tmp_path / "out", source, "DX", Differences(sites=2, shift=1, formats=False))
    plain, shifted = (darkest_and_brightest(tmp_path / f"out/hospital-{number}") for number in (1, 2))
    assert plain == (0, 255), "the first scanner changes nothing, so the bytes of the archive stay"
    assert shifted == pytest.approx((0.08 * 4095, 0.93 * 4095), abs=1), "gain 0.85, shift 0.08, 12 bits"


def darkest_and_brightest(folder: Path) -> tuple[int, int]:
    values = [dcmread(path).pixel_array for path in folder.rglob("*.dcm")]
    return int(min(map(np.min, values))), int(max(map(np.max, values)))


def test_the_import_command_answers_wrong_wishes_with_a_sentence(tmp_path):
    path = split_archive(tmp_path / "a.npz")
    wishes = {
        "two names for three classes": ["--classes", "a,b"],
        "more hospitals than patients": ["--sites", "90"],
        "more silent hospitals than hospitals": ["--sites", "2", "--unlabelled-sites", "3"],
    }
    for options in wishes.values():
        result = CliRunner().invoke(app, ["import", str(path), str(tmp_path / "out"), *options])
        assert isinstance(result.exception, ScenarioInvalidError), options
    assert not (tmp_path / "out").exists()


def test_the_import_command_keeps_colour_where_the_modality_has_it(tmp_path):
    path, out = coloured(tmp_path / "a.npz"), tmp_path / "out"
    radiographs = CliRunner().invoke(app, ["import", str(path), str(out), "--colour", "--modality", "DX"])
    assert isinstance(radiographs.exception, ScenarioInvalidError)
    result = CliRunner().invoke(app, ["import", str(path), str(out), "--colour", "--sites", "3", "--json"])
    assert result.exit_code == 0, result.output
    assert {row["modality"] for row in json.loads(result.stdout)["hospitals"]} == {"OP"}


def test_pneumoniamnist_becomes_hospitals(tmp_path):
    path = DATA / "pneumoniamnist/pneumoniamnist.npz"
    if not path.exists():
        pytest.skip("the real data lie beside the checkout, in ../shared/data; not found here")
    arguments = [
        "import",
        str(path),
        str(tmp_path / "out"),
        "--classes",
        "normal,pneumonia",
        "--images-per-patient",
        "4",
    ]
    result = CliRunner().invoke(app, [*arguments, "--sites", "3", "--labelled", "0.1", "--skew", "1", "--json"])
    assert result.exit_code == 0, result.output
    hospitals = json.loads(result.stdout)["hospitals"]
    assert sum(hospital["classes"]["pneumonia"] for hospital in hospitals) == 3494 + 389
    assert sum(hospital["images"] for hospital in hospitals) == 4708 + 524

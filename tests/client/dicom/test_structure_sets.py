"""RT structure sets become label maps, on the slices they were drawn on and for the classes of the study; or none."""

import math
import struct
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
from highdicom import VolumeGeometry
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage

from client.dicom import structure_set as structure_set_module
from client.dicom.cache import Cache
from client.dicom.describe import describe
from client.dicom.header import read_header
from client.dicom.ingest import ingest
from client.dicom.label_objects import drawn_on_volume
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.rare_classes import rare_classes
from client.dicom.reject import RejectCode as Code
from client.dicom.reject import Rejected
from client.dicom.series import ordered
from client.dicom.slices import slices_of
from client.dicom.structure_labels import DrawnOn

SIDE, DEPTH = 32, 8
CLASSES = ("background", "liver", "tumour")
TURN = np.deg2rad(25)
# Unit vectors along row, column, slice (LPS) of the scanner's axes, and where its first pixel lies.
GRIDS = {
    "axial": np.eye(3),
    "slices from the head down": np.diag([1.0, 1.0, -1.0]),
    "turned about its normal": np.array(
        [[math.cos(TURN), math.sin(TURN), 0], [-math.sin(TURN), math.cos(TURN), 0], [0, 0, 1]]
    ),
    "oblique": np.array([[1, 0, 0], [0, math.cos(TURN), math.sin(TURN)], [0, -math.sin(TURN), math.cos(TURN)]]),
}
ORIGIN = np.array([-12.5, 40.25, -103.0])


def box(slice_, top, left, bottom, right):
    """A closed outline around these pixels and no other, in (slice, row, column)."""
    corners = [
        (top - 0.5, left - 0.5),
        (top - 0.5, right + 0.5),
        (bottom + 0.5, right + 0.5),
        (bottom + 0.5, left - 0.5),
    ]
    return [(slice_, row, column) for row, column in corners]


def drawn():
    """The contours of two structures, and the class numbers (depth, height, width) they mean."""
    labels = np.zeros((DEPTH, SIDE, SIDE), np.uint8)
    labels[2:6, 4:20, 6:26] = 1
    labels[2:6, 10:13, 10:13] = 0
    labels[3:5, 15:18, 14:20] = 2
    labels[3:5, 25:28, 3:5] = 2
    liver = [outline for z in range(2, 6) for outline in (box(z, 4, 6, 19, 25), box(z, 10, 10, 12, 12))]
    tumour = [outline for z in (3, 4) for outline in (box(z, 15, 14, 17, 19), box(z, 25, 3, 27, 4))]
    return {"Liver": liver, " TUMOUR": tumour}, labels


@pytest.fixture(scope="module")
def scans_on(scan, changed):
    """Eight slices on one of the grids, and the place in millimetres of (slice, row, column)."""

    def make(name: str = "axial"):
        axes = GRIDS[name]

        def place(points):
            return ORIGIN + np.array(points, float)[:, [2, 1, 0]] @ axes

        files = [
            changed(
                scan(np.full((SIDE, SIDE), 1000, np.uint16), number=n, series="V"),
                ImagePositionPatient=[round(float(x), 6) for x in place([(n, 0, 0)])[0]],
                ImageOrientationPatient=[round(float(x), 9) for x in axes[:2].ravel()],
            )
            for n in range(DEPTH)
        ]
        return files, place

    return make


def structure_set(series: list[bytes], structures: dict, place, *, syntax=ExplicitVRLittleEndian, change=None) -> bytes:
    """An RTSTRUCT as a planning system writes it: contours with their images, structures with their kinds."""
    sources = [dcmread(BytesIO(content)) for content in series]
    first, out = sources[0], Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = syntax
    out.file_meta.MediaStorageSOPClassUID = out.SOPClassUID = RTStructureSetStorage
    out.file_meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID = "2.25.4711"
    out.SpecificCharacterSet, out.Modality, out.PatientID = "ISO_IR 192", "RTSTRUCT", first.PatientID
    out.StudyInstanceUID, out.SeriesInstanceUID = first.StudyInstanceUID, "2.25.4712"
    out.ReferencedFrameOfReferenceSequence = [
        item(
            FrameOfReferenceUID=first.FrameOfReferenceUID,
            RTReferencedStudySequence=[
                item(
                    ReferencedSOPInstanceUID=first.StudyInstanceUID,
                    RTReferencedSeriesSequence=[
                        item(
                            SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=[image(s) for s in sources]
                        )
                    ],
                )
            ],
        )
    ]
    out.StructureSetROISequence = [
        item(ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=first.FrameOfReferenceUID)
        for n, name in enumerate(structures, start=1)
    ]
    out.RTROIObservationsSequence = [
        item(ReferencedROINumber=n, RTROIInterpretedType="ORGAN") for n in range(1, len(structures) + 1)
    ]
    out.ROIContourSequence = [
        item(ReferencedROINumber=n, ContourSequence=[contour(points, place, sources) for points in outlines])
        for n, outlines in enumerate(structures.values(), start=1)
    ]
    if change:
        change(out)
    return written(out)


def item(**attributes) -> Dataset:
    result = Dataset()
    for keyword, value in attributes.items():
        setattr(result, keyword, value)
    return result


def image(source) -> Dataset:
    return item(ReferencedSOPClassUID=source.SOPClassUID, ReferencedSOPInstanceUID=source.SOPInstanceUID)


def contour(points, place, sources, kind="CLOSED_PLANAR") -> Dataset:
    where = min(max(round(points[0][0]), 0), len(sources) - 1)
    return item(
        ContourImageSequence=[image(sources[where])],
        ContourGeometricType=kind,
        NumberOfContourPoints=len(points),
        ContourData=[f"{x:.5f}" for x in place(points).ravel()],
    )


def written(dataset: Dataset) -> bytes:
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.fixture
def study(tmp_path, settings_with, secret):
    """Ingest slices and structure sets."""

    def go(series, *structure_sets, dimensions=3, classes=CLASSES, **more):
        scans = tmp_path / "scans"
        scans.mkdir(exist_ok=True)
        for number, content in enumerate([*series, *structure_sets]):
            (scans / f"{number}.dcm").write_bytes(content)
        settings = settings_with(volume=dimensions == 3, kind="segmentation", classes=classes)
        report = ingest(scans, tmp_path / "cache", settings=settings, secret=secret, **more)
        return report, Cache.open(tmp_path / "cache", secret)

    return go


NAMES = Pseudonyms(b"k" * 32)


def images_of(series: list[bytes]) -> DrawnOn:
    """What an ingest knows of a series when it brings labels to it."""
    slices = []
    for number, content in enumerate(series):
        dataset = read_header(content, pixels=False)
        slices += slices_of(dataset, number, describe(dataset, "CT", NAMES))
    in_order, geometry = ordered(slices)
    grid = VolumeGeometry(geometry.affine, geometry.shape, "PATIENT")
    return DrawnOn(grid, in_order[0].frame_of_reference, frozenset(s.instance_key for s in in_order), NAMES)


def label_map(series, content, classes=CLASSES, words=None) -> np.ndarray:
    return drawn_on_volume(content, classes, words or {}, images_of(series))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_structures_become_class_numbers_on_the_grid_of_their_series_whatever_its_direction(grid, syntax, scans_on):
    series, place = scans_on(grid)
    structures, labels = drawn()
    content = structure_set(series, structures, place, syntax=syntax)
    assert np.array_equal(label_map(series[::-1], content), labels)


def test_structures_become_the_label_map_of_their_volume(study, scans_on):
    series, place = scans_on("slices from the head down")
    structures, labels = drawn()
    report, cache = study(series[::-1], structure_set(series, structures, place))
    (record,) = cache.records
    assert (report.accepted, report.rejected.total(), report.labelled_patients) == (DEPTH + 1, 0, 1)
    assert np.array_equal(cache.read_label_map(record.record_id), labels[::-1]), "records run towards the head"
    assert rare_classes(cache) == ["liver", "tumour"], "a single patient has them"


def test_structures_label_each_picture_of_a_2d_study(study, scans_on):
    series, place = scans_on("oblique")
    structures, labels = drawn()
    report, cache = study(series, structure_set(series, structures, place), dimensions=2)
    assert (report.records, report.rejected.total()) == (DEPTH, 0)
    maps = [cache.read_label_map(record.record_id).tobytes() for record in cache.records]
    assert sorted(maps) == sorted(plane.tobytes() for plane in labels), "a slice nobody drew on is background"


def test_couch_body_and_points_need_no_class_and_a_code_may_name_a_structure(scans_on):
    series, place = scans_on()
    structures, labels = drawn()
    named = {"L1": structures["Liver"], "T1": structures[" TUMOUR"], "BODY": [box(n, 1, 1, 30, 30) for n in range(8)],
             "Iso": [[(4, 9, 9)]], "empty": []}  # fmt: skip

    def change(dataset):
        for observation, word in zip(dataset.RTROIObservationsSequence[:2], ("Liver", "Tumour"), strict=True):
            observation.RTROIIdentificationCodeSequence = [item(CodeMeaning=word)]
        dataset.RTROIObservationsSequence[2].RTROIInterpretedType = "EXTERNAL"
        dataset.ROIContourSequence[3].ContourSequence[0].ContourGeometricType = "POINT"

    assert np.array_equal(label_map(series, structure_set(series, named, place, change=change)), labels)


def test_the_only_structure_is_the_only_class(scans_on):
    series, place = scans_on()
    content = structure_set(series, {"GTV-1": drawn()[0]["Liver"]}, place)
    assert label_map(series, content, ("background", "lesion")).sum() == (16 * 20 - 9) * 4


def in_own_words(series, place) -> bytes:
    structures = drawn()[0]
    named = {"Leber": structures["Liver"], "GTV 1": structures[" TUMOUR"], "Milz": [box(1, 1, 1, 3, 3)]}
    return structure_set(series, named, place)


def test_the_hospitals_own_names_of_structures_mean_classes_or_nothing(scans_on):
    series, place = scans_on()
    content = in_own_words(series, place)
    for words in (
        {"leber": "liver", "gtv 1": "tumour", "milz": "none"},
        {"leber": "liver", "gtv 1": "tumour", "*": "none"},
    ):
        assert np.array_equal(label_map(series, content, words=words), drawn()[1])
    for words in ({"leber": "liver", "gtv 1": "tumour"}, {"*": "none"}):
        with pytest.raises(Rejected, match=Code.SEGMENTATION_CLASSES.value):
            label_map(series, content, words=words)


def test_what_names_mean_holds_until_it_is_said_anew(study, scans_on):
    series, place = scans_on()
    content = in_own_words(series, place)
    meanings = ("segment:Leber=liver", "segment: GTV  1 =tumour", "segment:*=none")
    for given in (meanings, ()):
        _, cache = study(series, content, label_meanings=given)
        assert np.array_equal(cache.read_label_map(cache.records[0].record_id), drawn()[1])
    report, cache = study(series, content, label_meanings=("segment:Leber=liver",))
    assert (report.rejected, cache.records[0].has_label_map) == ({Code.SEGMENTATION_CLASSES: 1}, False)


def of_liver(**changes):
    """Change every contour of the first structure."""

    def change(dataset):
        for one in dataset.ROIContourSequence[0].ContourSequence:
            for keyword, value in changes.items():
                setattr(one, keyword, value)

    return change


def with_images(*uids):
    return of_liver(ContourImageSequence=[item(ReferencedSOPInstanceUID=uid) for uid in uids])


def lifted(by):
    def change(dataset):
        for structure in dataset.ROIContourSequence:
            for one in structure.ContourSequence:
                points = np.array([float(x) for x in one.ContourData]).reshape(-1, 3)
                one.ContourData = [f"{x:.3f}" for x in (points + np.array([0, 0, by])).ravel()]

    return change


def both(dataset):
    with_images("2.25.99")(dataset)
    for one in dataset.ROIContourSequence[1].ContourSequence:
        one.ContourImageSequence = [item(ReferencedSOPInstanceUID="2.25.99")]


def tilted_contour(dataset):
    one = dataset.ROIContourSequence[0].ContourSequence[0]
    one.ContourData = [*one.ContourData[:2], float(one.ContourData[2]) + 0.4, *one.ContourData[3:]]


def first_structure(**changes):
    return lambda dataset: [setattr(dataset.StructureSetROISequence[0], *pair) for pair in changes.items()]


REFUSED = {
    "a structure that is no class of the study": (first_structure(ROIName="Spleen"), Code.SEGMENTATION_CLASSES),
    "another frame of reference": (first_structure(ReferencedFrameOfReferenceUID="2.25.8"), Code.SEGMENTATION_FRAME),
    "images that are not here": (both, Code.SEGMENTATION_UNMATCHED),
    "an open contour": (of_liver(ContourGeometricType="OPEN_PLANAR"), Code.SEGMENTATION_CONTOURS),
    "points": (of_liver(ContourGeometricType="POINT"), Code.SEGMENTATION_CONTOURS),
    "a kind of contour that is not said": (of_liver(ContourGeometricType=""), Code.SEGMENTATION_CONTOURS),
    "contours between the slices": (lifted(0.4), Code.SEGMENTATION_GEOMETRY),
    "contours beyond the series": (lifted(50.0), Code.SEGMENTATION_GEOMETRY),
    "a contour that leaves its slice": (tilted_contour, Code.SEGMENTATION_GEOMETRY),
    "fewer points than announced": (of_liver(NumberOfContourPoints=5), Code.SEGMENTATION_UNREADABLE),
    "half a point": (of_liver(ContourData=[1, 2, 3, 4]), Code.SEGMENTATION_UNREADABLE),
    "points ten metres away": (of_liver(ContourData=[1e7, 2, 3] * 4), Code.SEGMENTATION_UNREADABLE),
    "contours of a structure that is not listed": (
        lambda d: setattr(d.ROIContourSequence[0], "ReferencedROINumber", 9),
        Code.SEGMENTATION_UNREADABLE,
    ),
    "one number for two structures": (first_structure(ROINumber=2), Code.SEGMENTATION_UNREADABLE),
    "nothing drawn": (
        lambda d: [setattr(one, "ContourSequence", []) for one in d.ROIContourSequence],
        Code.SEGMENTATION_CONTOURS,
    ),
    "nothing listed": (lambda d: setattr(d, "StructureSetROISequence", []), Code.SEGMENTATION_UNREADABLE),
    "no structure at all": (
        lambda d: [setattr(d, name, []) for name in ("StructureSetROISequence", "ROIContourSequence")],
        Code.SEGMENTATION_CLASSES,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_structure_set_that_says_nothing_certain_is_refused_by_a_code(case, scans_on):
    change, code = REFUSED[case]
    series, place = scans_on()
    content = structure_set(series, drawn()[0], place, change=change)
    with pytest.raises(Rejected, match=f"^{code.value}$"):
        label_map(series, content)


def without_series_uid(dataset):
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    study.RTReferencedSeriesSequence[0].SeriesInstanceUID = ""


def test_what_is_refused_leaves_its_volume_unlabelled_and_is_counted(study, scans_on):
    series, place = scans_on()
    changes = [
        (of_liver(ContourGeometricType="POINT"), Code.SEGMENTATION_CONTOURS),
        (lambda d: setattr(d, "PatientID", "somebody"), Code.SEGMENTATION_UNMATCHED),
        (lambda d: delattr(d, "ReferencedFrameOfReferenceSequence"), Code.SEGMENTATION_REFERENCES),
        (without_series_uid, Code.SEGMENTATION_REFERENCES),
    ]
    sets = [structure_set(series, drawn()[0], place, change=change) for change, _ in changes]
    report, cache = study(series, *sets)
    assert report.rejected == Counter(code for _, code in changes)
    assert (report.accepted, cache.records[0].has_label_map) == (DEPTH, False)


def test_every_second_slice_is_another_grid(scans_on):
    series, place = scans_on()
    content = structure_set(series, {"liver": [box(n, 4, 6, 19, 25) for n in (1, 3, 5, 7)]}, place)
    with pytest.raises(Rejected, match=Code.SEGMENTATION_GEOMETRY.value):
        label_map(series, content)


def test_contours_a_little_off_their_slice_and_nodes_on_single_slices_are_taken(scans_on):
    series, place = scans_on()
    outlines = [box(n + off, 4, 6, 9, 11) for n, off in ((0, 0.15), (2, -0.1), (5, 0.0))]
    labels = label_map(series, structure_set(series, {"liver": outlines}, place))
    assert np.flatnonzero(labels.any(axis=(1, 2))).tolist() == [0, 2, 5]


@pytest.mark.parametrize("text", [b"nan", b"x", b"1e999"])
def test_numbers_that_are_none_or_have_no_end_are_refused(text, scans_on):
    series, place = scans_on()
    good = structure_set(series, drawn()[0], place)
    before = "\\".join(f"{x:.5f}" for x in place(drawn()[0]["Liver"][0]).ravel()).encode()
    number, rest = before.split(b"\\", 1)
    bad = good.replace(before, text.ljust(len(number)) + b"\\" + rest)
    assert bad != good
    with pytest.raises(Rejected, match=Code.SEGMENTATION_UNREADABLE.value):
        label_map(series, bad)


@pytest.mark.parametrize(
    "limit", [("MAX_CONTOURS", 11), ("MAX_POINTS", 47), ("MAX_STRUCTURES", 1)], ids=lambda limit: limit[0]
)
def test_more_than_the_limit_is_refused_before_a_number_is_converted(limit, scans_on, monkeypatch):
    series, place = scans_on()
    dataset = read_header(structure_set(series, drawn()[0], place), whole=True)
    assert len(structure_set_module.read_structures(dataset)) == 2
    name, value = limit
    assert value < getattr(structure_set_module, name)
    monkeypatch.setattr(structure_set_module, name, value)
    with pytest.raises(Rejected, match=Code.SEGMENTATION_TOO_LARGE.value):
        structure_set_module.read_structures(dataset)


def test_a_sequence_that_lies_about_its_length_stops_nobody(study, scans_on):
    series, place = scans_on()
    good = structure_set(series, drawn()[0], place)
    tag = struct.pack("<HH", 0x3006, 0x0050) + b"DS"
    bad = good.replace(tag + good[good.index(tag) + 6 :][:2], tag + b"\xfe\xff", 1)
    report, cache = study(series, bad)
    assert report.rejected.total() == 1
    assert (report.accepted, len(cache.records)) == (DEPTH, 1)

"""Series as archives keep them: rounded, tilted, uneven, several volumes in one, strangers and broken files in them."""

from collections import Counter

import numpy as np
import pytest

from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode, Rejected
from client.dicom.volume import SeriesFiles, build_volume

NAMES = Pseudonyms(b"k" * 32)
SIDE = 32
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def scene(points: np.ndarray) -> np.ndarray:
    """A body whose brightness rises evenly in all three directions (so linear interpolation is exact)."""
    return 1000 + points @ np.array([3.0, 5.0, 7.0])


def slice_at(scan, changed, position, number: int, orientation=AXIAL, **attributes) -> bytes:
    """One slice of the scene, as a scanner at ``position`` sees it (1 mm pixels)."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    along, down = np.array(orientation[:3]), np.array(orientation[3:])
    points = np.array(position) + columns[..., None] * along + rows[..., None] * down
    values = np.rint((scene(points) + 1024) * 16).astype(np.uint16)
    content = scan(values, form={"bits_stored": 16, "slope": 1 / 16, "intercept": -1024.0}, number=number)
    place = [f"{mm:.6g}" for mm in position]
    turn = [f"{cosine:.9g}" for cosine in orientation]
    return changed(content, ImagePositionPatient=place, ImageOrientationPatient=turn, **attributes)


def built(files: list[bytes], settings):
    series = SeriesFiles(len(files), files.__getitem__, settings, NAMES)
    return build_volume(series, settings, lambda: None), series.left_out


def hounsfield(volume, settings) -> np.ndarray:
    centre, width = settings.window_hu
    return volume.levels.astype(float) * (width / 65535) + centre - width / 2


def truth(volume, settings) -> np.ndarray:
    """The scene at the voxels of the volume (an axial one, cut to its middle)."""
    grid, shape = volume.grid, settings.size_px
    ranges = [
        axis.start + ((axis.count - size) // 2 + np.arange(size) + 0.5) * axis.length / axis.count - 0.5
        for axis, size in zip(grid.axes, shape, strict=True)
    ]
    index = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1)
    points = index @ grid.geometry.affine[:3, :3].T + grid.geometry.affine[:3, 3]
    return scene(points)


TILT = np.deg2rad(15)
TILTED = (1.0, 0.0, 0.0, 0.0, float(np.cos(TILT)), float(-np.sin(TILT)))
UNEVEN = [5.0 * i for i in range(8)] + [35.0 + 10.0 * i for i in range(1, 6)]
POSITIONS = {
    "rounded to a tenth of a millimetre": (AXIAL, [(0, 0, round(0.625 * i, 1)) for i in range(40)]),
    "one in seven off its place": (AXIAL, [(0, 0, 1.25 * i + 0.05 * (i % 7 == 3)) for i in range(30)]),
    "a gantry tilted by 15 degrees": (TILTED, [(0, 0, 2.0 * i) for i in range(16)]),
    "a gantry tilted the other way": ((*TILTED[:5], -TILTED[5]), [(0, 0, 2.0 * i) for i in range(16)]),
    "gaps of 5, then of 10 millimetres": (AXIAL, [(0, 0, z) for z in UNEVEN]),
}


@pytest.mark.parametrize("case", POSITIONS)
def test_a_body_is_where_it_was_however_the_slices_lay(case, scan, changed, settings_with):
    """Each voxel of the middle of the volume holds what is at its place in the body, within rounding of positions."""
    orientation, positions = POSITIONS[case]
    files = [slice_at(scan, changed, place, n, orientation) for n, place in enumerate(positions)]
    settings = settings_with(volume=True, size_px=(12, 16, 16), window_hu=(1000.0, 4000.0))
    volume, left_out = built(files, settings)
    assert not left_out
    assert np.abs(hounsfield(volume, settings) - truth(volume, settings)).max() < 1.0


def test_a_tilted_series_that_was_not_sheared_would_fail_this_test(scan, changed, settings_with):
    """The check above sees the fault it is for: without the shear the body is many voxels from its place."""
    orientation, positions = POSITIONS["a gantry tilted by 15 degrees"]
    files = [slice_at(scan, changed, place, n, orientation) for n, place in enumerate(positions)]
    settings = settings_with(volume=True, size_px=(12, 16, 16), window_hu=(1000.0, 4000.0))
    volume, _ = built(files, settings)
    assert max(abs(row) for row, _ in volume.grid.geometry.offsets_px) > 5
    unsheared = np.roll(hounsfield(volume, settings), 2, axis=1)
    assert np.abs(unsheared - truth(volume, settings)).max() > 5


def marked(scan, changed, marks, repeats: int, settings):
    """Ten places; at each, one slice for each of ``marks``; brighter by 100 from mark to mark."""
    files = []
    for number in range(10 * repeats):
        place, which = divmod(number, repeats)
        frame = np.full((SIDE, SIDE), 1000 + 100 * which, np.uint16)
        content = scan(frame, number=number)
        position = [0, 0, 3 * place]
        files.append(changed(content, ImagePositionPatient=position, **marks[which]))
    return built(files, settings)


MARKS = {
    "phases by acquisition": [{"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, {"AcquisitionNumber": 10}],
    "times by their number": [{"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}],
    "echoes": [{"EchoTime": 9.5}, {"EchoTime": 90}],
    "b-values": [{"DiffusionBValue": 0.0}, {"DiffusionBValue": 50.0}, {"DiffusionBValue": 800.0}],
    "kernels": [{"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}],
    "kinds of picture": [{"ImageType": ["ORIGINAL", "PRIMARY", "M"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}],
    "two marks that change together": [
        {"AcquisitionNumber": 1, "AcquisitionTime": "080000"},
        {"AcquisitionNumber": 2, "AcquisitionTime": "080100"},
    ],
}


@pytest.mark.parametrize("case", MARKS)
@pytest.mark.parametrize("part", ["first", "last"])
def test_of_several_volumes_in_a_series_the_plan_gets_the_one_it_wants(case, part, scan, changed, settings_with):
    marks = MARKS[case]
    settings = settings_with(volume=True, spacing_mm=(3.0, 1.0, 1.0), window_hu=(0.0, 4000.0), part=part)
    volume, left_out = marked(scan, changed, marks, len(marks), settings)
    brightness = -24 + 100 * (0 if part == "first" else len(marks) - 1)
    assert np.abs(hounsfield(volume, settings) - brightness).max() < 0.1
    assert Counter(left_out.values()) == {RejectCode.SERIES_OTHER_PART: 10 * (len(marks) - 1)}


def test_slices_at_one_place_that_nothing_tells_apart_are_refused(scan, changed, settings_with):
    with pytest.raises(Rejected) as refused:
        marked(scan, changed, [{}, {}], 2, settings_with(volume=True))
    assert refused.value.code is RejectCode.SERIES_DUPLICATE_POSITION


STRANGERS = {
    "a scout without its name": (
        {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": [0, 0, 90]},
        RejectCode.SERIES_FOREIGN,
    ),
    "a broken file": ({"PixelData": bytes(100)}, RejectCode.PIXEL_LENGTH),
    "a file of no frames": ({"NumberOfFrames": 0}, RejectCode.FRAMES),
    "a file that is nowhere": ({"ImagePositionPatient": None}, RejectCode.SERIES_GEOMETRY),
}


@pytest.fixture
def ingested(tmp_path, scan, changed, settings_with, secret):
    """Ingest a series of ten slices of which one, ``index``, has other attributes."""

    def run(index: int, attributes):
        folder = tmp_path / "scans"
        folder.mkdir(exist_ok=True)
        for number in range(0 if any(folder.iterdir()) else 10):
            content = scan(number=number)
            content = changed(content, **attributes) if number == index else content
            (folder / f"{number}.dcm").write_bytes(content)
        return ingest(folder, tmp_path / "cache", settings=settings_with(volume=True), secret=secret)

    return run


@pytest.mark.parametrize("case", STRANGERS)
def test_one_bad_file_at_the_end_of_a_series_costs_only_itself(case, tmp_path, ingested, secret):
    attributes, code = STRANGERS[case]
    report = ingested(9, attributes)
    assert (report.accepted, report.records, report.rejected) == (9, 1, Counter({code: 1}))
    [record] = Cache.open(tmp_path / "cache", secret).records
    assert record.slices == 9
    again = ingested(9, attributes)
    assert (again.files_read, again.accepted, again.rejected) == (0, 9, report.rejected), "remembered"


def test_one_bad_file_in_the_middle_is_counted_alone_under_its_code(ingested):
    report = ingested(4, {"PixelData": bytes(100)})
    assert report.rejected == Counter({RejectCode.SERIES_INCOMPLETE: 9, RejectCode.PIXEL_LENGTH: 1})


def test_two_slices_are_a_volume(scan, changed, settings_with):
    files = [slice_at(scan, changed, (0, 0, 5.0 * n), n) for n in range(2)]
    settings = settings_with(volume=True, spacing_mm=(5.0, 1.0, 1.0))
    assert built(files, settings)[0].facts.slices == 2

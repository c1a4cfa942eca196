"""Enhanced multi-frame files whose functional groups are missing, too few, too many, or nonsense (3-D studies)."""

import io
from collections.abc import Callable

from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from client.dicom.reject import RejectCode as Code
from simulation.hospitals.dicom_enhanced import enhanced_file
from simulation.hospitals.dicom_writer import Form
from simulation.hostile.case import ACCEPTED, HostileCase, one_file
from simulation.hostile.raw_file import SIDE_PX, frame, names_of

FRAMES, GAP_MM = 8, 2.5
Damage = Callable[[Dataset], object]


def enhanced(name: str, damage: Damage, *outcomes: Code | str) -> HostileCase:
    """Make a case of one enhanced CT with ``damage`` done to its data set."""

    def content(case: str) -> bytes:
        form = Form("CT", SIDE_PX, SIDE_PX, spacing_mm=(GAP_MM, 1.0, 1.0), intercept=-1024.0)
        good = enhanced_file(form, names_of(case), [frame(number) for number in range(FRAMES)])
        with disable_value_validation():
            ds = dcmread(io.BytesIO(good))
            damage(ds)
            file = io.BytesIO()
            ds.save_as(file)
        return file.getvalue()

    return one_file(name, content, *outcomes)


def per_frame(change: Callable[[int, Dataset], object]) -> Damage:
    """Return the damage that does something to the groups of each frame."""

    def damage(ds: Dataset) -> None:
        for number, groups in enumerate(ds.PerFrameFunctionalGroupsSequence):
            change(number, groups)

    return damage


def move(number: int, *position: str) -> Damage:
    """Return the damage that moves one frame."""

    def damage(ds: Dataset) -> None:
        groups = ds.PerFrameFunctionalGroupsSequence[number]
        groups.PlanePositionSequence[0].ImagePositionPatient = list(position)

    return damage


def fewer_groups(ds: Dataset) -> None:
    """Remove the groups of the last three frames."""
    del ds.PerFrameFunctionalGroupsSequence[-3:]


def no_slope(ds: Dataset) -> None:
    """Make the shared rescale slope not a number."""
    ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleSlope = "nan"


def groups_in_themselves(ds: Dataset) -> None:
    """Put the per-frame groups into the shared groups, a thousand times over."""
    ds.SharedFunctionalGroupsSequence[0].PlanePositionSequence = [Dataset() for _ in range(1000)]
    ds.SharedFunctionalGroupsSequence = list(ds.SharedFunctionalGroupsSequence) * 2


def without(keyword: str) -> Damage:
    """Return the damage that removes one element."""
    return lambda ds: ds.__delattr__(keyword)


GEOMETRY = (Code.SERIES_GEOMETRY, Code.MISSING_ATTRIBUTE, Code.BAD_ATTRIBUTE, Code.PARSE)
COUNTS = (Code.PIXEL_LENGTH, Code.FRAMES, *GEOMETRY)

CASES: tuple[HostileCase, ...] = (
    enhanced("a_good_enhanced_file", lambda _: None, ACCEPTED),
    enhanced("enhanced_without_shared_groups", without("SharedFunctionalGroupsSequence"), *GEOMETRY),
    enhanced("enhanced_without_frame_groups", without("PerFrameFunctionalGroupsSequence"), *GEOMETRY),
    enhanced("enhanced_with_too_few_groups", fewer_groups, *GEOMETRY),
    enhanced("enhanced_of_twenty_thousand_frames", lambda ds: setattr(ds, "NumberOfFrames", "20000"), *COUNTS),
    enhanced("enhanced_of_two_frames", lambda ds: setattr(ds, "NumberOfFrames", "2"), *COUNTS),
    enhanced("enhanced_with_a_frame_at_nan", move(3, "0", "0", "nan"), *GEOMETRY),
    enhanced("enhanced_with_a_frame_nowhere", move(3, "0", "0"), *GEOMETRY),
    enhanced("enhanced_with_two_frames_at_one_place", move(3, "0", "0", "10"), Code.SERIES_DUPLICATE_POSITION),
    enhanced("enhanced_with_a_frame_aside", move(3, "40", "0", "7.5"), Code.SERIES_TILTED, Code.SERIES_GEOMETRY),
    enhanced("enhanced_slope_of_nan", no_slope, Code.RESCALE, Code.BAD_ATTRIBUTE),
    enhanced("enhanced_groups_in_themselves", groups_in_themselves, ACCEPTED, *GEOMETRY),
    enhanced("enhanced_frames_without_groups", per_frame(lambda _, groups: groups.clear()), *GEOMETRY),
)

"""Series that are no volume, or only seem to be one, and segmentations that do not belong to theirs (3-D studies).

Other readers accept most of these in silence and stack the wrong slices (design: dicom.md section 3.3).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from client.dicom.reject import RejectCode as Code
from simulation.hospitals.segmentation_writer import write_segmentation
from simulation.hostile.case import ACCEPTED, HostileCase, Outcomes, any_of
from simulation.hostile.pixel_modules import COLUMNS, ORIENTATION, POSITION, ROWS, SPACING
from simulation.hostile.raw_file import SIDE_PX, RawFile, plain

SLICES, GAP_MM = 8, 2.5
PATIENT_ID, STUDY_UID, SERIES_UID, INSTANCE_UID = 0x00100020, 0x0020000D, 0x0020000E, 0x00080018
FRAME_OF_REFERENCE, INTERCEPT, IMAGE_TYPE, NUMBER = 0x00200052, 0x00281052, 0x00080008, 0x00200013

INCOMPLETE = Code.SERIES_INCOMPLETE

Change = Callable[[list[RawFile]], list[RawFile]]


def regular(case: str, heights: Sequence[float] | None = None) -> list[RawFile]:
    """Return the slices of one series at ``heights`` (mm; default: every 2.5 mm)."""
    first, slices = plain(case), []
    for part, height in enumerate(np.arange(SLICES) * GAP_MM if heights is None else heights):
        raw = plain(case, part=part)
        for tag in (STUDY_UID, SERIES_UID, FRAME_OF_REFERENCE):
            raw.elements[tag] = first.elements[tag]
        slices.append(placed(raw, 0, 0, height))
    return slices


def placed(raw: RawFile, x: float, y: float, z: float) -> RawFile:
    """Move a slice (millimetres)."""
    return raw.put(POSITION, "DS", f"{x:.6g}\\{y:.6g}\\{z:.6g}")


def written(folder: Path, slices: Sequence[RawFile]) -> list[Path]:
    """Write slices in this order of their names."""
    paths = [folder / f"slice-{number:03d}.dcm" for number in range(len(slices))]
    for path, raw in zip(paths, slices, strict=True):
        path.write_bytes(raw.content())
    return paths


def series(name: str, change: Change, *outcomes: Code | str, count: int = SLICES) -> HostileCase:
    """Make a case of one series with ``change`` applied; every file gets one of ``outcomes``."""
    return mixed(name, change, (any_of(*outcomes),) * count)


def mixed(name: str, change: Change, outcomes: tuple[Outcomes, ...]) -> HostileCase:
    """Make a case of one series in which files get different verdicts."""

    def make(folder: Path, case: str) -> None:
        written(folder, change(regular(case)))

    return HostileCase(name, make, outcomes)


def at(*heights: float) -> Change:
    """Return the change that moves the slices to ``heights``, dropping those beyond."""
    return lambda slices: [placed(raw, 0, 0, height) for raw, height in zip(slices, heights, strict=False)]


def one(index: int, change: Callable[[RawFile], object]) -> Change:
    """Return the change that does something to a single slice."""

    def apply(slices: list[RawFile]) -> list[RawFile]:
        change(slices[index])
        return slices

    return apply


def broken(
    name: str, index: int, change: Callable[[RawFile], object], *outcomes: Code | str, rest: Code | str = INCOMPLETE
) -> HostileCase:
    """Make a case of one bad file, counted under its own code, and the ``rest`` of its series."""
    verdicts = [any_of(rest)] * SLICES
    verdicts[index] = any_of(*outcomes)
    return mixed(name, one(index, change), tuple(verdicts))


def every(change: Callable[[int, RawFile], object]) -> Change:
    """Return the change that does something to each slice."""

    def apply(slices: list[RawFile]) -> list[RawFile]:
        for index, raw in enumerate(slices):
            change(index, raw)
        return slices

    return apply


def segmented(
    name: str, damage: Callable[[Path], None], *outcomes: Code | str, labels: tuple[str, ...] = ("lesion",)
) -> HostileCase:
    """Make a good series whose segmentation went through ``damage``; the series itself is taken."""

    def make(folder: Path, case: str) -> None:
        paths = written(folder, regular(case))
        drawn = np.zeros((SLICES, SIDE_PX, SIDE_PX), np.uint8)
        drawn[2:5, 20:30, 20:30] = len(labels)
        write_segmentation(folder / "zz-segmentation.dcm", paths, drawn, ("background", *labels))
        damage(folder)

    return HostileCase(name, make, (any_of(ACCEPTED),) * SLICES + (any_of(*outcomes),))


def cut_segmentation(folder: Path) -> None:
    """Cut the segmentation in its pixels."""
    path = folder / "zz-segmentation.dcm"
    path.write_bytes(path.read_bytes()[:-300])


def changed_segmentation(former: bytes, new: bytes) -> Callable[[Path], None]:
    """Return the damage that replaces bytes of the same length."""

    def damage(folder: Path) -> None:
        path = folder / "zz-segmentation.dcm"
        content = path.read_bytes()
        if former not in content or len(former) != len(new):
            raise ValueError("the bytes to be replaced are not there")
        path.write_bytes(content.replace(former, new))

    return damage


def lost_series(folder: Path) -> None:
    """Remove the series, so that the segmentation stands alone."""
    for path in folder.glob("slice-*"):
        path.unlink()


def alone() -> HostileCase:
    """Make a segmentation without its series."""
    case = segmented("a_segmentation_of_nothing", lost_series, Code.SEGMENTATION_UNMATCHED)
    return HostileCase(case.name, case.make, case.outcomes[-1:])


def skewed(slices: list[RawFile]) -> list[RawFile]:
    """Shear the stack further than a gantry tilts (45 degrees)."""
    return [placed(raw, 0, 3.0 * index, GAP_MM * index) for index, raw in enumerate(slices)]


UNEVEN = (Code.SERIES_MISSING_SLICE, Code.SERIES_GEOMETRY)
NONSENSE = (Code.SERIES_GEOMETRY, Code.BAD_ATTRIBUTE)
REGULAR = [GAP_MM * index for index in range(SLICES)]

GOOD = (
    series("slices_in_any_order", lambda s: [s[i] for i in (3, 0, 7, 1, 6, 2, 5, 4)], ACCEPTED),
    series("slices_from_head_to_feet", at(*reversed(REGULAR)), ACCEPTED),
    series("numbers_that_contradict_positions", every(lambda i, r: r.put(NUMBER, "IS", str(99 - i))), ACCEPTED),
    series("an_intercept_for_each_slice", every(lambda i, r: r.put(INTERCEPT, "DS", str(-1000 - i))), ACCEPTED),
    mixed(
        "one_slice_delivered_twice",
        lambda s: [*s, s[3]],
        (any_of(ACCEPTED),) * SLICES + (any_of(Code.DUPLICATE_INSTANCE),),
    ),
    mixed(
        "a_localizer_among_the_slices",
        one(0, lambda r: r.put(IMAGE_TYPE, "CS", "ORIGINAL\\PRIMARY\\LOCALIZER")),
        (any_of(Code.LOCALIZER),) + (any_of(ACCEPTED),) * (SLICES - 1),
    ),
)

GEOMETRY = (
    series("a_missing_slice", lambda s: s[:3] + s[4:], Code.SERIES_MISSING_SLICE, count=SLICES - 1),
    series("three_missing_slices", lambda s: [*s[:2], s[4], *s[6:]], *UNEVEN, count=SLICES - 3),
    series("two_slices_at_one_place", at(*REGULAR[:4], REGULAR[3], *REGULAR[5:]), Code.SERIES_DUPLICATE_POSITION),
    series("all_slices_at_one_place", at(*[5.0] * SLICES), Code.SERIES_DUPLICATE_POSITION),
    series("a_table_that_moves_sideways", skewed, Code.SERIES_TILTED),
    series("uneven_gaps", at(0, 2.5, 5, 8.1, 10, 12.5, 15, 17.5), *UNEVEN),
    series("gaps_that_grow", at(0, 1, 3, 6, 10, 15, 21, 28), *UNEVEN),
    series("two_slices", lambda s: s[:2], ACCEPTED, count=2),
    series("one_slice", lambda s: s[:1], Code.SERIES_TOO_SHORT, count=1),
    mixed("slices_kilometres_apart", at(*[1e6 * i for i in range(SLICES)]),
          (any_of(INCOMPLETE),) + (any_of(*NONSENSE),) * (SLICES - 1)),
    series("slices_metres_apart", at(*[1000.0 * i for i in range(SLICES)]), ACCEPTED, Code.SERIES_TOO_LARGE, *NONSENSE),
    series("slices_an_atom_apart", at(*[1e-7 * i for i in range(SLICES)]), Code.SERIES_DUPLICATE_POSITION,
           Code.SERIES_GEOMETRY),
    broken("a_slice_without_position", 2, lambda r: r.drop(POSITION), *NONSENSE),
    broken("a_slice_at_nan", 2, lambda r: r.put(POSITION, "DS", "0\\0\\nan"), *NONSENSE),
    broken("a_slice_at_two_numbers", 2, lambda r: r.put(POSITION, "DS", "0\\0"), *NONSENSE),
    series("orientations_of_zero", every(lambda _, r: r.put(ORIENTATION, "DS", "0\\0\\0\\0\\0\\0")), *NONSENSE),
    series("orientations_in_parallel", every(lambda _, r: r.put(ORIENTATION, "DS", "1\\0\\0\\1\\0\\0")), *NONSENSE),
    series("no_spacing", every(lambda _, r: r.drop(SPACING)), *NONSENSE),
    series("spacings_of_zero", every(lambda _, r: r.put(SPACING, "DS", "0\\0")), *NONSENSE),
    series("a_spacing_of_a_kilometre", every(lambda _, r: r.put(SPACING, "DS", "1e6\\1e6")), *NONSENSE,
           Code.SERIES_TOO_LARGE),
    series("a_spacing_of_two_metres", every(lambda _, r: r.put(SPACING, "DS", "2000\\2000")), ACCEPTED,
           Code.SERIES_TOO_LARGE, Code.MEMORY, *NONSENSE),
)  # fmt: skip

MIXTURES = (
    broken("one_slice_turned", 4, lambda r: r.put(ORIENTATION, "DS", "0\\1\\0\\-1\\0\\0"), Code.SERIES_FOREIGN),
    broken("one_slice_of_another_spacing", 4, lambda r: r.put(SPACING, "DS", "2\\2"), Code.SERIES_FOREIGN),
    broken("one_slice_of_another_size", 4,
           lambda r: r.number(ROWS, 32).number(COLUMNS, 32).pixels(bytes(2048)), Code.SERIES_FOREIGN),
    broken("one_slice_of_another_frame_of_reference", 4, lambda r: r.put(FRAME_OF_REFERENCE, "UI", "1.2.3"),
           Code.SERIES_FOREIGN),
    series("one_slice_of_another_study", one(4, lambda r: r.put(STUDY_UID, "UI", "1.2.3.4")), Code.SERIES_MIXED),
    series("one_slice_of_another_patient", one(4, lambda r: r.put(PATIENT_ID, "LO", "SOMEBODY")), Code.SERIES_MIXED,
           Code.SERIES_MISSING_SLICE, Code.SERIES_TOO_SHORT),
    series("one_uid_for_two_slices", lambda s: [s[0], renamed(s[1], s[0]), *s[2:]], Code.CONFLICTING_INSTANCE),
    broken("one_slice_cut_in_its_pixels", 4, lambda r: r.pixels(bytes(100)), Code.PIXEL_LENGTH),
    broken("the_last_slice_cut_in_its_pixels", SLICES - 1, lambda r: r.pixels(bytes(100)), Code.PIXEL_LENGTH,
           rest=ACCEPTED),
    broken("one_slice_without_pixels", 4, lambda r: r.drop(0x7FE00010), Code.NO_PIXELS),
    broken("one_slope_of_nan", 4, lambda r: r.put(0x00281053, "DS", "nan"), Code.RESCALE, Code.BAD_ATTRIBUTE),
)  # fmt: skip

ROWS_64, ROWS_32 = (b"\x28\0\x10\0US\x02\0" + rows + b"\0" for rows in (b"\x40", b"\x20"))
PLACE, ELSEWHERE = (b"\x20\0\x32\0DS\x06\0" + place for place in (b"0\\0\\10", b"9\\9\\10"))
UNREADABLE = (Code.SEGMENTATION_UNREADABLE, Code.SEGMENTATION_GEOMETRY)

SEGMENTATIONS = (
    segmented("a_good_segmentation", lambda _: None, ACCEPTED),
    segmented("a_segmentation_of_unknown_classes", lambda _: None, Code.SEGMENTATION_CLASSES,
              labels=("dragon", "unicorn")),
    segmented("a_segmentation_cut_in_its_pixels", cut_segmentation, *UNREADABLE, Code.PARSE),
    segmented("a_segmentation_of_another_size", changed_segmentation(ROWS_64, ROWS_32), *UNREADABLE),
    segmented("a_segmentation_elsewhere", changed_segmentation(PLACE, ELSEWHERE), *UNREADABLE),
    alone(),
)  # fmt: skip


def renamed(raw: RawFile, other: RawFile) -> RawFile:
    """Give a slice the SOP Instance UID of another."""
    raw.elements[INSTANCE_UID] = other.elements[INSTANCE_UID]
    return raw


CASES: tuple[HostileCase, ...] = GOOD + GEOMETRY + MIXTURES + SEGMENTATIONS

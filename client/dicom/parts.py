"""Which slices of a series belong together: strangers left out, several volumes told apart, the plan's one chosen.

Archives keep in one series what a scanner sent together: arterial and venous phase, two echoes, several b-values, a
scout before the scan. Slices at one place tell that there are several volumes; the marks of the slices tell which is
which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from client.dicom.reject import RejectCode, Rejected
from client.dicom.slices import Mark, Slice
from common.plan.task import Part

MIN_SLICES = 2  # one slice alone has no spacing
SAME_DIRECTION = 1e-3
SAME_SPACING_MM = 1e-3
SAME_PLACE_MM = 1e-3
SAME_PLACE = 0.05  # of the usual gap: copies of a place are rounded differently
MOST_MARKS = 3


@dataclass(frozen=True, slots=True)
class Chosen:
    """Slices of one volume; ``foreign``: that lie otherwise; ``others``: of the series' other volumes."""

    slices: list[Slice]
    foreign: list[Slice]
    others: list[Slice]


def chosen_part(slices: Sequence[Slice], part: Part) -> Chosen:
    """Return the volume of a series that the plan wants.

    Left out as foreign: what differs from the largest group in size, spacing, direction or frame of reference, if that
    group is at least half of the series. Of several volumes the first or last of the fullest, in the order of the marks
    that tell them apart (echo times, b-values, phases rise).
    Raises: Rejected(series_mixed), Rejected(series_duplicate_position) when no mark tells slices at one place apart.
    """
    groups: list[list[Slice]] = []
    for slice_ in slices:
        group = next((group for group in groups if _lie_alike(group[0], slice_)), None)
        groups.append([slice_]) if group is None else group.append(slice_)
    groups.sort(key=lambda group: (-len(group), group[0].marks, group[0].orientation))
    if len(groups) > 1 and (len(groups[0]) < MIN_SLICES or 2 * len(groups[0]) < len(slices)):
        raise Rejected(RejectCode.SERIES_MIXED)
    foreign = [slice_ for group in groups[1:] for slice_ in group]
    wanted = _wanted(groups[0], part) if groups else []
    kept = {id(slice_) for slice_ in wanted}
    return Chosen(wanted, foreign, [slice_ for slice_ in groups[0] if id(slice_) not in kept] if groups else [])


def _lie_alike(one: Slice, other: Slice) -> bool:
    if (one.rows, one.columns) != (other.rows, other.columns):
        return False
    references = {one.frame_of_reference, other.frame_of_reference} - {""}  # missing in one file says nothing
    if len(references) > 1:
        return False
    turned = np.allclose(one.orientation, other.orientation, rtol=0, atol=SAME_DIRECTION)
    return bool(turned and np.allclose(one.spacing_mm, other.spacing_mm, rtol=0, atol=SAME_SPACING_MM))


def _wanted(slices: list[Slice], part: Part) -> list[Slice]:
    places = _places(slices)
    if len(set(places)) == len(slices):
        return slices
    of_slice = {id(slice_): place for slice_, place in zip(slices, places, strict=True)}
    marks = range(len(slices[0].marks))
    varying = [number for number in marks if len({slice_.marks[number] for slice_ in slices}) > 1]
    for count in range(1, MOST_MARKS + 1):
        for numbers in combinations(varying, count):
            volumes = _volumes(slices, numbers)
            whole = [key for key, volume in volumes.items() if len(volume) == max(map(len, volumes.values()))]
            is_one_each = all(len({of_slice[id(s)] for s in v}) == len(v) for v in volumes.values())
            if is_one_each and len(volumes[whole[0]]) >= max(MIN_SLICES, len(set(places)) // 2):
                return volumes[min(whole) if part is Part.FIRST else max(whole)]
    raise Rejected(RejectCode.SERIES_DUPLICATE_POSITION)


def _volumes(slices: list[Slice], numbers: tuple[int, ...]) -> dict[tuple[Mark, ...], list[Slice]]:
    volumes: dict[tuple[Mark, ...], list[Slice]] = {}
    for slice_ in slices:
        volumes.setdefault(tuple(slice_.marks[number] for number in numbers), []).append(slice_)
    return volumes


def _places(slices: Sequence[Slice]) -> list[int]:
    """Number the places along the normal; slices at one place get one number."""
    orientation = slices[0].orientation
    depths = np.array([slice_.position for slice_ in slices]) @ np.cross(orientation[:3], orientation[3:])
    order = np.argsort(depths, kind="stable")
    gaps = np.diff(depths[order])
    apart = gaps[gaps > SAME_PLACE_MM]
    same = max(SAME_PLACE_MM, SAME_PLACE * float(np.median(apart))) if apart.size else SAME_PLACE_MM
    numbers = np.concatenate([[0], np.cumsum(gaps > same)])
    result = np.empty(len(slices), np.int64)
    result[order] = numbers
    return [int(number) for number in result]

"""A series of files -> one volume: gatekeeper, decoding slice by slice, resampling. Runs in a worker."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset

from client.dicom.decode import check_stream
from client.dicom.describe import describe
from client.dicom.facts import Facts
from client.dicom.grid import Grid
from client.dicom.header import read_header
from client.dicom.hounsfield import check_hounsfield
from client.dicom.image_module import ImageModule, check_has_pixels, check_image_module, check_kind
from client.dicom.intensity import Levels, to_levels, window_of
from client.dicom.limits import MAX_VOLUME_VOXELS
from client.dicom.pixels import Frame, read_frame
from client.dicom.presentation import check_presentation
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode, Rejected
from client.dicom.series import Slice, ordered, slices_of
from client.dicom.settings import IngestSettings
from common.plan.task import Intensity

Read = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class BuiltVolume:
    """A volume of the study, and the grid it came from (for segmentations)."""

    facts: Facts
    levels: Levels
    grid: Grid
    duplicates: list[int]


class SeriesFiles:
    """The files of one series, read one at a time by number; a multi-frame file is parsed once for all its frames."""

    def __init__(self, count: int, read: Read, settings: IngestSettings, pseudonyms: Pseudonyms) -> None:
        self.count = count
        self._read, self._settings, self._pseudonyms = read, settings, pseudonyms
        self._opened: tuple[int, Dataset, ImageModule] | None = None

    def header(self, file_index: int) -> tuple[Dataset, Facts]:
        """Return a file without its pixels, and its facts."""
        dataset = read_header(self._read(file_index), pixels=False)
        modality = check_kind(dataset, self._settings.modalities)
        check_presentation(dataset, modality, self._settings.presentation)
        return dataset, describe(dataset, modality, self._pseudonyms)

    def frame(self, file_index: int, frame_index: int) -> Frame:
        """Decode one frame."""
        if self._opened is None or self._opened[0] != file_index:
            dataset = read_header(self._read(file_index))
            check_has_pixels(dataset)
            module = check_image_module(dataset, check_kind(dataset, self._settings.modalities))
            check_stream(dataset, module, range(module.frames))
            self._opened = (file_index, dataset, module)
        if self._settings.intensity is Intensity.CT_WINDOW:
            check_hounsfield(self._opened[1], self._opened[2], frame_index)
        return read_frame(self._opened[1], self._opened[2], frame_index)


def build_volume(files: SeriesFiles, settings: IngestSettings, alive: Callable[[], None]) -> BuiltVolume:
    """Make a volume (depth, height, width) of all files of a series, in the order of their positions.

    Equal copies of an instance are left out and named in ``duplicates``; different contents under one UID are refused.
    Raises: Rejected.
    """
    facts, slices = _survey(files, alive)
    kept, duplicates = _without_copies(files, slices)
    in_order, geometry = ordered(kept)
    grid = Grid.for_study(geometry, settings)
    height, width = grid.slice_size_px
    if max(len(in_order), grid.axes[0].count) * height * width > MAX_VOLUME_VOXELS:
        raise Rejected(RejectCode.SERIES_TOO_LARGE)
    stack = np.empty((len(in_order), height, width), np.float32)
    grey_scale = (np.inf, -np.inf)
    for place, slice_ in enumerate(in_order):
        alive()
        frame = files.frame(slice_.file_index, slice_.frame_index)
        stack[place] = grid.slice_values(frame.values)
        grey_scale = (min(grey_scale[0], frame.grey_scale[0]), max(grey_scale[1], frame.grey_scale[1]))
    values = grid.depth_values(stack)
    low, high = window_of(values, None, grey_scale, settings)
    levels = grid.oriented(to_levels(values, low, high), 0)
    facts = replace(
        facts,
        instance_key=facts.series_key,  # a volume is labelled by its series, never by one of its slices
        slices=len(in_order),
        intensity_low=low,
        intensity_high=high,
        spacing_mm=settings.spacing_mm,
    )
    return BuiltVolume(facts, levels.astype(np.uint16, copy=False), grid, duplicates)


def _survey(files: SeriesFiles, alive: Callable[[], None]) -> tuple[Facts, list[Slice]]:
    """Read all headers; every file must belong to one patient, study and series."""
    found: list[Slice] = []
    common: Facts | None = None
    issuers: set[str] = set()
    for index in range(files.count):
        alive()
        dataset, facts = files.header(index)
        common = common or facts
        issuers |= {facts.issuer_key} - {""}
        if _owner(facts) != _owner(common) or len(issuers) > 1:
            raise Rejected(RejectCode.SERIES_MIXED)
        if facts.issuer_key and not common.issuer_key:
            common = facts  # one slice that names the issuer speaks for those that do not
        found += slices_of(dataset, index, facts)
    if common is None:
        raise Rejected(RejectCode.SERIES_TOO_SHORT)
    return common, found


def _owner(facts: Facts) -> tuple[str, str, str, str]:
    return facts.patient_id_key, facts.study_key, facts.series_key, facts.modality


def _without_copies(files: SeriesFiles, slices: Sequence[Slice]) -> tuple[list[Slice], list[int]]:
    first: dict[tuple[str, int], Slice] = {}
    duplicates: set[int] = set()
    for slice_ in slices:
        former = first.setdefault((slice_.instance_key, slice_.frame_index), slice_)
        if former is slice_:
            continue
        pair = [files.frame(one.file_index, one.frame_index).values for one in (former, slice_)]
        if former.position != slice_.position or not np.array_equal(pair[0], pair[1]):
            raise Rejected(RejectCode.CONFLICTING_INSTANCE)
        duplicates.add(slice_.file_index)
    return list(first.values()), sorted(duplicates)

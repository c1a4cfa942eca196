"""A series of files -> one volume: gatekeeper, decoding slice by slice, resampling. Runs in a worker."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset

from client.dicom.decode import check_stream
from client.dicom.describe import describe
from client.dicom.facts import Facts
from client.dicom.grid import Grid
from client.dicom.header import read_header
from client.dicom.image_module import ImageModule, check_has_pixels, check_image_module, check_kind
from client.dicom.instance import verdict
from client.dicom.intensity import Levels, Values, to_levels, window_of
from client.dicom.limits import MAX_VOLUME_VOXELS
from client.dicom.parts import chosen_part
from client.dicom.pixels import Frame
from client.dicom.presentation import check_presentation
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode, Rejected
from client.dicom.series import Geometry, ordered
from client.dicom.settings import IngestSettings
from client.dicom.slices import Slice, slices_of
from client.dicom.straighten import evened, shifted
from client.dicom.study_frame import read_study_frame

Read = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class BuiltVolume:
    """A volume of the study, and what it came from (for segmentations): grid, instances, frame of reference."""

    facts: Facts
    levels: Levels
    grid: Grid
    duplicates: list[int]
    instance_keys: frozenset[str] = frozenset()
    frame_of_reference: str = ""


class SeriesFiles:
    """The files of one series, read one at a time by number; a multi-frame file is parsed once for all its frames.

    ``left_out``: files that are no part of the volume, and why; filled while the volume is built.
    """

    def __init__(self, count: int, read: Read, settings: IngestSettings, pseudonyms: Pseudonyms) -> None:
        self.count = count
        self.left_out: dict[int, RejectCode] = {}
        self._read, self._settings, self._pseudonyms = read, settings, pseudonyms
        self._opened: tuple[int, Dataset, ImageModule] | None = None

    def header(self, file_index: int) -> tuple[Facts, list[Slice]]:
        """Return the facts of a file, and where its frames lie."""
        dataset = read_header(self._read(file_index), pixels=False)
        modality = check_kind(dataset, self._settings.modalities)
        check_presentation(dataset, modality, self._settings.presentation)
        facts = describe(dataset, modality, self._pseudonyms)
        return facts, slices_of(dataset, file_index, facts)

    def dataset(self, file_index: int) -> Dataset:
        """Return the header of a file, as it was written."""
        return read_header(self._read(file_index), pixels=False)

    def frame(self, file_index: int, frame_index: int) -> Frame:
        """Decode one frame."""
        if self._opened is None or self._opened[0] != file_index:
            self._opened = None  # half a gigabyte may hang on it
            dataset = read_header(self._read(file_index))
            check_has_pixels(dataset)
            module = check_image_module(dataset, check_kind(dataset, self._settings.modalities))
            self._opened = (file_index, dataset, module)
        _, dataset, module = self._opened
        check_stream(dataset, module, [frame_index])
        return read_study_frame(dataset, module, frame_index, self._settings)

    def leave_out(self, slices: Iterable[Slice], code: RejectCode) -> None:
        """Note the files of ``slices`` as no part of the volume."""
        for slice_ in slices:
            self.left_out.setdefault(slice_.file_index, code)


def build_volume(files: SeriesFiles, settings: IngestSettings, alive: Callable[[], None]) -> BuiltVolume:
    """Make a volume (depth, height, width) of the files of a series, in the order of their positions.

    Equal copies of an instance are left out and named in ``duplicates``; different contents under one UID are refused.
    Files that are broken, foreign or of another part than the plan's are noted in ``files.left_out``; what remains must
    be a whole volume.
    Raises: Rejected; series_incomplete when only the files left out made the rest unfit.
    """
    facts, slices = _survey(files, alive)
    kept, duplicates = _without_copies(files, slices)
    chosen = chosen_part(kept, settings.part)
    files.leave_out(chosen.foreign, RejectCode.SERIES_FOREIGN)
    files.leave_out(chosen.others, RejectCode.SERIES_OTHER_PART)
    for slice_ in chosen.slices:  # a file with at least one frame in the volume is part of it
        files.left_out.pop(slice_.file_index, None)
    in_order, grid, stack, grey_scale = _decoded(files, chosen.slices, settings, alive)
    levels, low, high = volume_levels(grid, stack, grey_scale, settings)
    facts = replace(
        facts,
        instance_key=facts.series_key,  # a volume is labelled by its series, never by one of its slices
        slices=len(in_order),
        intensity_low=low,
        intensity_high=high,
        spacing_mm=settings.spacing_mm,
    )
    instances = frozenset(slice_.instance_key for slice_ in in_order)
    frame = next((slice_.frame_of_reference for slice_ in in_order if slice_.frame_of_reference), "")
    return BuiltVolume(facts, levels, grid, duplicates, instances, frame)


def scanned_slices(files: SeriesFiles, settings: IngestSettings, alive: Callable[[], None]) -> tuple[list[Slice], Grid]:
    """Return the slices that ``build_volume`` made a volume of, in its order, and its grid; no pixel is decoded.

    ``files``: those that are part of the volume (no copies, none that it left out).
    Raises: Rejected.
    """
    _, slices = _survey(files, alive)
    in_order, geometry = _grid_of(files, chosen_part(slices, settings.part).slices, settings)
    return in_order, Grid.for_study(geometry, settings)


def volume_levels(
    grid: Grid, stack: Values, grey_scale: tuple[float, float], settings: IngestSettings
) -> tuple[Levels, float, float]:
    """Return levels of slices that lie on the study's grid in two axes, and the values of lowest and highest.

    Raises: Rejected(non_finite).
    """
    values = grid.depth_values(stack)
    low, high = window_of(values, None, grey_scale, settings)
    return grid.oriented(to_levels(values, low, high), 0).astype(np.uint16, copy=False), low, high


def _decoded(
    files: SeriesFiles, slices: Sequence[Slice], settings: IngestSettings, alive: Callable[[], None]
) -> tuple[list[Slice], Grid, Values, tuple[float, float]]:
    """Decode the slices onto the study's grid in two axes; broken ones are left out if the rest is still a volume."""
    while True:
        in_order, geometry = _grid_of(files, slices, settings)
        grid = Grid.for_study(geometry, settings)
        height, width = grid.slice_size_px
        if max(len(in_order), geometry.shape[0], grid.axes[0].count) * height * width > MAX_VOLUME_VOXELS:
            raise Rejected(RejectCode.SERIES_TOO_LARGE)
        stack = np.empty((len(in_order), height, width), np.float32)
        scales: list[tuple[float, float]] = []
        broken: list[Slice] = []
        for place, slice_ in enumerate(in_order):
            alive()
            frames: list[Frame] = []
            code = verdict(lambda s=slice_, f=frames: f.append(files.frame(s.file_index, s.frame_index)))  # type: ignore[misc]
            if code is RejectCode.MEMORY:
                raise Rejected(code)
            if code is not None:
                broken.append(slice_)
                files.leave_out([slice_], code)
                continue
            stack[place] = grid.slice_values(_upright(frames[0].values, geometry, place))
            scales.append(frames[0].grey_scale)
        if not broken:
            even = evened(stack, geometry.depths, geometry.shape[0]) if geometry.depths else stack
            return in_order, grid, even, (min(low for low, _ in scales), max(high for _, high in scales))
        failed = {slice_.file_index for slice_ in broken}
        slices = [slice_ for slice_ in slices if slice_.file_index not in failed]


def _upright(values: Values, geometry: Geometry, place: int) -> Values:
    if not geometry.offsets_px:
        return values
    return shifted(values, geometry.offsets_px[place], (geometry.shape[1], geometry.shape[2]))


def _grid_of(files: SeriesFiles, slices: Sequence[Slice], settings: IngestSettings) -> tuple[list[Slice], Geometry]:
    bad = [code for code in files.left_out.values() if code is not RejectCode.SERIES_OTHER_PART]
    if not slices and bad:
        raise Rejected(bad[0])
    try:
        return ordered(slices, settings.spacing_mm)
    except Rejected as rejected:
        raise Rejected(RejectCode.SERIES_INCOMPLETE if bad else rejected.code) from None


def _survey(files: SeriesFiles, alive: Callable[[], None]) -> tuple[Facts, list[Slice]]:
    """Read all headers; every file must belong to one patient, study and series, and a broken one is left out."""
    found: list[Slice] = []
    common: Facts | None = None
    issuers: set[str] = set()
    for index in range(files.count):
        alive()
        read: list[tuple[Facts, list[Slice]]] = []
        code = verdict(lambda index=index, read=read: read.append(files.header(index)))  # type: ignore[misc]
        if code is not None:
            files.left_out[index] = code
            continue
        facts, slices = read[0]
        common = common or facts
        issuers |= {facts.issuer_key} - {""}
        if _owner(facts) != _owner(common) or len(issuers) > 1:
            raise Rejected(RejectCode.SERIES_MIXED)
        if facts.issuer_key and not common.issuer_key:
            common = facts  # one slice that names the issuer speaks for those that do not
        found += slices
    if common is None:
        raise Rejected(next(iter(files.left_out.values()), RejectCode.SERIES_TOO_SHORT))
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

"""The scans of a scenario's hospitals: drawn, or dealt from a public collection; DICOM either way."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from simulation.errors import ScenarioInvalidError
from simulation.hospitals.hospital import Hospital
from simulation.hospitals.imported_hospitals import make_imported_hospitals
from simulation.hospitals.phantom_hospitals import make_phantom_hospitals
from simulation.hospitals.public_arrays import PublicArrays, load_public_arrays
from simulation.study.scenario import Scenario

Progress = Callable[[int], None]


def make_hospitals(out: Path, scenario: Scenario, archive: Path | None, progress: Progress) -> list[Hospital]:
    """Write the hospitals' folders and the test set into ``out``; ``progress`` gets the files written so far.

    Raises: ScenarioInvalidError for what cannot be made; FileUnreadableError for the archive; OutputExistsError.
    """
    hospitals, differences = scenario.hospitals, scenario.hospitals.differences(scenario.seed)
    try:
        if hospitals.source == "phantoms":
            return make_phantom_hospitals(out, hospitals.request, differences, progress)
        source = _collection(scenario, archive)
        spacing = (hospitals.spacing_mm,) * 3
        return make_imported_hospitals(
            out, source, hospitals.modality, differences, spacing_mm=spacing, progress=progress
        )
    except ValueError as error:
        raise ScenarioInvalidError(f"hospitals: {error}") from None


def planned_files(scenario: Scenario, archive: Path | None) -> int:
    """Return how many files will be written (0: unknown until the archive is read)."""
    hospitals = scenario.hospitals
    if hospitals.source == "phantoms":
        return hospitals.request.files(hospitals.differences(scenario.seed))
    return 0 if archive is None else hospitals.limit


def _collection(scenario: Scenario, archive: Path | None) -> PublicArrays:
    """Read the archive, name its classes, and keep at most ``limit`` images to deal."""
    hospitals = scenario.hospitals
    if archive is None or not archive.exists():
        raise ScenarioInvalidError(f"hospitals.archive: {archive} does not exist; give the file with --data")
    source = load_public_arrays(archive, colour=scenario.study.image.channels == 3)
    classes = scenario.study.task.classes
    if len(source.class_names) != len(classes):
        raise ScenarioInvalidError(
            f"study.task.classes has {len(classes)} names, the archive has {len(source.class_names)} classes"
        )
    source = replace(source, class_names=classes)
    if not 0 < hospitals.limit < len(source.images):
        return source
    chosen = np.sort(np.random.default_rng([scenario.seed, 77]).permutation(len(source.images))[: hospitals.limit])
    return replace(
        source,
        images=source.images[chosen],
        labels=source.labels[chosen],
        segmentations=None if source.segmentations is None else source.segmentations[chosen],
    )

"""Every hostile DICOM case, and how to write them: the input that no hospital's ingest may be broken by.

The list follows published corpora and our own measurements (decoders that panic, loop, or allocate by the header's
word). ``CASES`` are for a study of single images, ``SERIES_CASES`` for one of volumes with segmentations.
Run ``fedward-sim adversarial OUT``; a test ingests the result and compares each verdict.
"""

from pathlib import Path

from simulation.hospitals.hospital import new_output
from simulation.hostile import codestreams, containers, enhanced, file_systems, headers, pixel_modules, series
from simulation.hostile.case import HostileCase

SERIES_CASES: tuple[HostileCase, ...] = series.CASES + enhanced.CASES

CASES: tuple[HostileCase, ...] = (
    *containers.CASES,
    *headers.CASES,
    *pixel_modules.CASES,
    *codestreams.CASES,
    *file_systems.CASES,
)


def write_cases(out: Path, cases: tuple[HostileCase, ...] = CASES) -> None:
    """Write each case into a folder of its own below ``out``, named by the case.

    Raises: OutputExistsError if ``out`` holds something.
    """
    new_output(out)
    for case in cases:
        folder = out / case.name
        folder.mkdir()
        case.make(folder, case.name)

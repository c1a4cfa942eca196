"""Ingest every hostile case and hold each verdict against the list: does an ingest survive its worst files?"""

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.dicom.ingest import ingest
from client.dicom.settings import IngestSettings
from common.plan.task import Intensity, Modality, TaskKind
from simulation.hostile.adversarial_dicom import CASES, SERIES_CASES, write_cases
from simulation.hostile.case import HostileCase
from simulation.hostile.ingest_verdicts import verdicts
from simulation.hostile.mutations import mutation_cases

KIB = 1024

IMAGES = IngestSettings(
    kind=TaskKind.CLASSIFICATION,
    classes=("normal", "lesion"),
    modalities=(Modality.CT,),
    dimensions=2,
    size_px=(32, 32),
    intensity=Intensity.CT_WINDOW,
    window_hu=(0.0, 2048.0),
)
VOLUMES = IngestSettings(
    kind=TaskKind.SEGMENTATION,
    classes=("background", "lesion"),
    modalities=(Modality.CT,),
    dimensions=3,
    size_px=(8, 64, 64),
    spacing_mm=(2.5, 1.0, 1.0),
    intensity=Intensity.CT_WINDOW,
    window_hu=(0.0, 2048.0),
)
MIXED = IngestSettings(
    kind=TaskKind.CLASSIFICATION,
    classes=("normal", "lesion"),
    modalities=(Modality.CT, Modality.MR, Modality.CR, Modality.DX),
    dimensions=2,
    size_px=(32, 32),
    intensity=Intensity.PERCENTILES,
)
Trials = dict[str, tuple[IngestSettings, tuple[HostileCase, ...]]]


def trials(mutations: int = 0, seed: int = 0) -> Trials:
    """Return the cases by study: the listed ones, and ``mutations`` randomly damaged files."""
    listed: Trials = {"images": (IMAGES, CASES), "series": (VOLUMES, SERIES_CASES)}
    return listed | ({"mutations": (MIXED, mutation_cases(mutations, seed))} if mutations else {})


@dataclass(frozen=True, slots=True)
class Trial:
    """Verdicts by case, the cases with a wrong one, and the largest process of the whole run."""

    verdicts: dict[str, list[str]]
    wrong: list[str]
    peak_memory_bytes: int


def write_all(out: Path, chosen: Trials) -> None:
    """Write the cases below ``out``, a folder for each study and in it one for each case.

    Raises: OutputExistsError.
    """
    for name, (_, cases) in chosen.items():
        write_cases(out / name, cases)


def try_ingest(source: Path, cache: Path, secret: bytes, chosen: Trials) -> Trial:
    """Ingest what ``write_all`` made and compare each file's verdict with the right ones.

    ``peak_memory_bytes`` is the largest resident set of this process or any process it has waited for, so the caller
    should be a process of its own. Raises what ``ingest`` raises.
    """
    found: dict[str, list[str]] = {}
    wrong: list[str] = []
    for name, (settings, cases) in chosen.items():
        ingest(source / name, cache / name, settings=settings, secret=secret)
        found |= grouped(verdicts(source / name, cache / name, secret), cases)
        wrong += [case.name for case in cases if not is_right(found[case.name], case)]
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Trial(found, wrong, max(usage) * KIB)


def grouped(by_file: dict[str, str], cases: Sequence[HostileCase]) -> dict[str, list[str]]:
    """Return the verdicts of each case, in the order of its files' names."""
    result: dict[str, list[str]] = {case.name: [] for case in cases}
    for name, verdict in sorted(by_file.items()):
        result[name.partition("/")[0]].append(verdict)
    return result


def is_right(found: Sequence[str], case: HostileCase) -> bool:
    """Tell whether every file has a verdict, and a right one."""
    return len(found) == len(case.outcomes) and all(
        verdict in right for verdict, right in zip(found, case.outcomes, strict=True)
    )

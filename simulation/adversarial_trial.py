"""Ingest every hostile case and hold each verdict against the list: does an ingest survive its worst files?"""

import resource
from dataclasses import dataclass
from pathlib import Path

from client.dicom.ingest import ingest
from client.dicom.settings import IngestSettings
from common.plan.task import Intensity, Modality, TaskKind
from simulation.adversarial_dicom import CASES
from simulation.ingest_verdicts import verdicts

KIB = 1024

SETTINGS = IngestSettings(
    kind=TaskKind.CLASSIFICATION,
    classes=("normal", "lesion"),
    modalities=(Modality.CT,),
    dimensions=2,
    size_px=(32, 32),
    intensity=Intensity.CT_WINDOW,
    window_hu=(0.0, 2048.0),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of a trial: verdicts by case, cases with a wrong verdict, and the largest process of the whole run."""

    verdicts: dict[str, list[str]]
    wrong: list[str]
    peak_memory_bytes: int
    accepted: int


def try_ingest(source: Path, cache: Path, secret: bytes) -> Trial:
    """Ingest the folder that ``write_cases`` made and compare each file's verdict with the right ones.

    ``peak_memory_bytes`` is the largest resident set of this process or any process it has waited for, so the caller
    should be a process of its own. Raises what ``ingest`` raises.
    """
    report = ingest(source, cache, settings=SETTINGS, secret=secret)
    found: dict[str, list[str]] = {case.name: [] for case in CASES}
    for name, verdict in sorted(verdicts(source, cache, secret).items()):
        found[name.partition("/")[0]].append(verdict)
    wrong = [
        case.name
        for case in CASES
        if len(found[case.name]) != len(case.outcomes)
        or any(verdict not in right for verdict, right in zip(found[case.name], case.outcomes, strict=True))
    ]
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Trial(found, wrong, max(usage) * KIB, report.accepted)

"""A scenario: who holds which scans, what they study together, what goes wrong, what it is compared with.

The study is written as in a plan (``common.plan``), without what follows from the hospitals: names, keys, declared
counts, digests, and the noise, which is computed from the promised epsilon unless a phase names it.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.plan.part import PlanPart
from common.plan.task import ClassName
from server.drafting.draft import StudyDraft
from simulation.hospitals.differences import Differences
from simulation.hospitals.phantom_hospitals import PhantomRequest
from simulation.hospitals.phantoms import CLASSES, PhantomKind
from simulation.runtime.faults import Fault, Trouble

FORMAT = "fedward-scenario/1"

Share = Annotated[float, Field(ge=0, le=1)]


class Hospitals(PlanPart):
    """Who holds what.

    ``source``: generated scans ("phantoms") or a public collection ("archive", an ``.npz`` file). ``patients``: of each
    hospital (phantoms). ``limit``: most images taken from an archive (0: all). ``classes``: names for an archive's
    classes. The rest: see ``simulation.hospitals.differences.Differences`` and
    ``simulation.hospitals.phantom_hospitals.PhantomRequest``.
    """

    source: Literal["phantoms", "archive"]
    archive: str = ""
    classes: Annotated[tuple[ClassName, ...], Field(strict=False, max_length=64)] = ()
    modality: Literal["CT", "MR", "CR", "DX", "MG", "US", "OP", "XC"] = "DX"
    limit: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    spacing_mm: Annotated[float, Field(ge=0.01, le=50)] = 1.0
    kind: Annotated[PhantomKind, Field(strict=False)] = PhantomKind.XRAY
    patients: Annotated[int, Field(ge=1, le=100_000)] = 500
    size_px: Annotated[int, Field(ge=16, le=1024)] = 32
    depth: Annotated[int, Field(ge=0, le=512)] = 0
    lesions: Annotated[int, Field(ge=0, le=3)] = 1
    difficulty: Annotated[float, Field(ge=0.05, le=100)] = 1.0
    segmented: bool = False
    test_patients: Annotated[int, Field(ge=50, le=100_000)] = 1000
    sites: Annotated[int, Field(ge=3, le=1000)] = 4
    images_per_patient: Annotated[int, Field(ge=1, le=64)] = 1
    labelled_share: Share = 0.1
    unlabelled_sites: Annotated[int, Field(ge=0, le=999)] = 0
    skew_alpha: Annotated[float, Field(ge=0, le=1000)] = 0.0
    shift: Share = 0.5
    formats: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.source == "archive" and not self.archive:
            raise ValueError('archive is missing: name the .npz file, because source = "archive"')
        if self.unlabelled_sites >= self.sites:
            raise ValueError(f"unlabelled_sites is {self.unlabelled_sites}, it must be below sites ({self.sites})")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes of the label tables; empty where the archive names them."""
        return self.request.class_names if self.source == "phantoms" else self.classes

    @property
    def request(self) -> PhantomRequest:
        """What to draw."""
        return PhantomRequest(
            kind=self.kind,
            patients=self.patients,
            size_px=self.size_px,
            depth=self.depth,
            lesions=min(self.lesions, len(CLASSES[self.kind]) - 1),
            difficulty=self.difficulty,
            segmented=self.segmented,
            test_patients=self.test_patients,
        )

    def differences(self, seed: int) -> Differences:
        """Return how the hospitals differ."""
        return Differences(
            sites=self.sites,
            images_per_patient=self.images_per_patient,
            labelled_share=self.labelled_share,
            unlabelled_sites=self.unlabelled_sites,
            skew_alpha=self.skew_alpha,
            shift=self.shift,
            formats=self.formats,
            seed=seed,
        )


class FaultDraft(PlanPart):
    """What goes wrong; see ``simulation.runtime.faults``. ``actions``: order, keylist, forward, survivors, ..."""

    trouble: Annotated[Trouble, Field(strict=False)]
    sites: Annotated[tuple[str, ...], Field(strict=False)] = ()
    actions: Annotated[
        tuple[Literal["hello", "order", "keylist", "forward", "survivors", "certificate", "result"], ...],
        Field(strict=False),
    ] = ("order",)
    rounds: Annotated[tuple[int, ...], Field(strict=False, max_length=10_000)] = ()
    attempts: Annotated[tuple[int, ...], Field(strict=False, max_length=10_000)] = ()
    every: Annotated[int, Field(ge=0, le=100_000)] = 0
    delay_s: Annotated[float, Field(ge=0, le=3600)] = 0.0

    def fault(self) -> Fault:
        """Return it for the grid."""
        return Fault(**self.model_dump())


class Comparisons(PlanPart):
    """What the federation is compared with, on the same test images."""

    alone: bool = False
    supervised_only: bool = False
    without_privacy: bool = False
    pooled: bool = False


class Running(PlanPart):
    """Speed: sites that work at the same time, processes for comparisons, patients in one batch of gradients.

    ``lie``: what the coordinator cheats with (``simulation.runtime.lying_server.LIES``); empty = honest.
    """

    workers: Annotated[int, Field(ge=0, le=256)] = 2
    comparison_processes: Annotated[int, Field(ge=1, le=256)] = 2
    patients_at_once: Annotated[int, Field(ge=1, le=4096)] = 16
    lie: Annotated[str, Field(max_length=40)] = ""


class Scenario(PlanPart):
    """A whole scenario. ``seed`` makes the scans, never a key, a mask, or noise that protects."""

    format: Literal["fedward-scenario/1"]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{2,50}$")]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    hospitals: Hospitals
    study: StudyDraft
    faults: Annotated[tuple[FaultDraft, ...], Field(strict=False, max_length=1000)] = ()
    comparisons: Comparisons = Comparisons()
    running: Running = Running()

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        names, hospitals = set(self.site_names), self.hospitals
        strangers = {site for fault in self.faults for site in fault.sites} - names
        if strangers:
            raise ValueError(f"faults name {min(strangers)!r}, which is not one of {len(names)} hospitals")
        if hospitals.class_names and hospitals.class_names != self.study.task.classes:
            raise ValueError(
                f"study.task.classes is {list(self.study.task.classes)}, the hospitals have "
                f"{list(hospitals.class_names)}; they must be the same"
            )
        if self.study.image.channels == 3 and hospitals.source == "phantoms":
            raise ValueError("study.image.channels is 3, but phantoms are grey; take an archive of pictures in colour")
        return self

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of the hospitals, as ``simulation.hospitals.phantom_hospitals`` calls their folders."""
        return tuple(f"hospital-{number}" for number in range(1, self.hospitals.sites + 1))

    def encoder_paths(self, scenario_file: Path) -> tuple[Path, Path] | None:
        """Return where encoder and card lie: relative to the scenario's file; None without an encoder."""
        encoder = self.study.network.encoder
        if encoder is None:
            return None
        return (scenario_file.parent / encoder.file).resolve(), (scenario_file.parent / encoder.card).resolve()

    def archive_path(self, scenario_file: Path) -> Path:
        """Return where the archive lies: relative to the scenario's file."""
        return (scenario_file.parent / self.hospitals.archive).resolve()

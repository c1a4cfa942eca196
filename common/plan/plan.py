"""The study plan as one document: sections in the order a person reads them, and the rules between sections."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.plan.aggregation import Aggregation, SecureAggregation, Timing
from common.plan.part import PlanPart
from common.plan.phases import Method, Phase
from common.plan.privacy import Evaluation, NoisePlacement, Privacy
from common.plan.task import Image, Intensity, Modality, Network, Part, Presentation, Task, TaskKind
from common.trust.canonical import canonical_bytes, digest

FORMAT = "fedward-plan/1"


class Study(PlanPart):
    """Name of the study, what staff should know about it, and who may speak for it.

    ``roster_digest``: SHA-256 of the roster (``common.trust.roster``). ``order_key``: base64 of the Ed25519 public key
    (32 bytes) that signs the rounds' orders: an online key to which the plan, signed offline, delegates nothing else.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{2,62}$")]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    contact: Annotated[str, Field(max_length=200)] = ""
    roster_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    order_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$")]


class Site(PlanPart):
    """A hospital and the rounded patient counts it declared at enrolment (public; true counts are not)."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")]
    labelled_patients: Annotated[int, Field(ge=0, le=10_000_000)]
    unlabelled_patients: Annotated[int, Field(ge=0, le=10_000_000)]


class StudyPlan(PlanPart):
    """Everything that changes the model or the guarantee; two plans with one digest are one plan.

    Raises (from pydantic, turned into one sentence by ``reading.py``): ValidationError.
    """

    format: Literal["fedward-plan/1"]
    study: Study
    task: Task
    image: Image
    network: Network
    privacy: Privacy
    secure_aggregation: SecureAggregation
    sites: Annotated[tuple[Site, ...], Field(strict=False, min_length=3, max_length=1000)]
    phases: Annotated[tuple[Phase, ...], Field(strict=False, min_length=1, max_length=8)]
    aggregation: Aggregation = Aggregation()
    evaluation: Evaluation = Evaluation()
    timing: Timing = Timing()

    @property
    def declared_patients(self) -> int:
        """Patients of all sites as declared; the study's delta must lie below 1 / this."""
        return sum(site.labelled_patients + site.unlabelled_patients for site in self.sites)

    def expected_batch(self, phase: Phase) -> float:
        """Patients a round samples on average over all sites: the public divisor of the sum, never the realised one."""
        return sum(
            phase.labelled_sampling_rate * site.labelled_patients
            + phase.unlabelled_sampling_rate * site.unlabelled_patients
            for site in self.sites
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what the network takes at a time: (channels, *seen_px), or (features,) of a public encoder."""
        return (self.network.features,) if self.network.encoder else (self.image.channels, *self.image.seen_px)

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Shape of one row in training: ``input_shape``; of a public encoder the kept rows, (1 + views, features)."""
        encoder = self.network.encoder
        return (encoder.rows, encoder.features) if encoder else self.input_shape

    @property
    def prior_size(self) -> tuple[int, ...]:
        """Size of the network's prior, that of the images; empty where it has none."""
        return self.image.size_px if self.network.prior else ()

    @property
    def starts_with_zero_head(self) -> bool:
        """Whether the head starts at zero: for classes of an image, so that the first answer is the uniform one.

        For a segmentation that is a saddle: from a zero head one of two structures of the hippocampus was never found.
        A prior tells the structures apart, so then the first answer is the prior's.
        """
        return self.task.kind is not TaskKind.SEGMENTATION or self.network.prior

    @property
    def round_size(self) -> int:
        """The most hospitals in one round: the cohort, or with groups all of them, divided."""
        return len(self.sites) if self.aggregation.takes_median else self.secure_aggregation.cohort_size

    def canonical(self) -> bytes:
        """Return the bytes that are hashed and signed (RFC 8785): equal for every key order, spacing and machine."""
        return canonical_bytes(self.model_dump(mode="json"))

    def digest(self) -> str:
        """Return the SHA-256 digest, 64 hexadecimal digits: what sites approve."""
        return digest(FORMAT, self.canonical())

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        for name, values in (("sites", [s.name for s in self.sites]), ("phases", [p.name for p in self.phases])):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} has a name twice; each name may appear once")
        if self.secure_aggregation.cohort_size > len(self.sites):
            raise ValueError(
                f"secure_aggregation.cohort_size is {self.secure_aggregation.cohort_size}, "
                f"but the plan lists only {len(self.sites)} sites"
            )
        if self.declared_patients == 0:
            raise ValueError("every site declares 0 patients; enter the declared counts")
        self._check_image()
        self._check_order_of_phases()
        self._check_prior()
        self._check_phases()
        return self

    def _check_image(self) -> None:
        if len(self.image.size_px) != self.task.dimensions:
            raise ValueError(
                f"image.size_px has {len(self.image.size_px)} numbers, task.dimensions is {self.task.dimensions}"
            )
        if self.task.dimensions == 3 and len(self.image.spacing_mm) != 3:
            raise ValueError("image.spacing_mm must have 3 numbers, because task.dimensions is 3")
        if self.image.part is Part.LAST and self.task.dimensions != 3:
            raise ValueError("image.part has a meaning only with task.dimensions = 3; remove it")
        if self.image.intensity is Intensity.VOI_LUT and self.task.dimensions != 2:
            raise ValueError("image.intensity = voi_lut is for task.dimensions = 2: each slice may have another window")
        raw = self.image.presentation is Presentation.FOR_PROCESSING
        if raw and not {Modality.DX, Modality.MG} & set(self.task.modalities):
            raise ValueError("image.presentation has a meaning only with the modalities DX and MG; remove it")

    def _check_order_of_phases(self) -> None:
        last = self.phases[-1]
        if last.maximum_attempts <= last.rounds:
            raise ValueError(
                f"phase {last.name}: maximum_attempts is {last.maximum_attempts}, it must be above rounds "
                f"({last.rounds}), because the closing round that scores the final model is an attempt too"
            )

    def _check_prior(self) -> None:
        places = [index for index, phase in enumerate(self.phases) if phase.method is Method.PRIOR]
        if places and not self.network.prior:
            raise ValueError(f"phase {self.phases[places[0]].name}: method = prior needs network.prior = true")
        if self.network.prior and (places != [0] or len(self.phases) == 1):
            raise ValueError(
                "network.prior is true, so the first phase must have method = prior, no later one, and others must "
                "follow: the prior alone looks at no scan"
            )
        if places and self.privacy.noise is NoisePlacement.LOCAL:
            raise ValueError(
                f"phase {self.phases[0].name}: method = prior needs sums, so privacy.noise cannot be local"
            )

    def _check_phases(self) -> None:
        placement = self.privacy.noise
        for phase in self.phases:
            where = f"phase {phase.name}"
            if placement is NoisePlacement.NONE and phase.noise_multiplier != 0:
                raise ValueError(f"{where}: noise_multiplier must be 0, because privacy.noise = none")
            if placement is not NoisePlacement.NONE and phase.noise_multiplier == 0:
                raise ValueError(f"{where}: noise_multiplier must be above 0, because privacy.noise = {placement}")
            if placement is NoisePlacement.DISTRIBUTED and (phase.local_steps != 1 or phase.proximal_weight != 0):
                raise ValueError(
                    f"{where}: local_steps must be 1 and proximal_weight 0, because one clipped sum travels "
                    "with privacy.noise = distributed"
                )
            if placement is NoisePlacement.LOCAL and phase.method is Method.STANDARDISE:
                raise ValueError(f"{where}: method = standardise needs sums, so privacy.noise cannot be local")
            if phase.method is Method.RIDGE:
                self._check_ridge(phase)
            if phase.gate_balanced_accuracy > 0 and not self.image.public_images:
                raise ValueError(f"{where}: gate_balanced_accuracy needs image.public_images: the gate judges on those")
            if phase.class_weights and len(phase.class_weights) != len(self.task.classes):
                raise ValueError(
                    f"{where}: class_weights has {len(phase.class_weights)} numbers, "
                    f"task.classes has {len(self.task.classes)}"
                )
            if self.expected_batch(phase) <= 0 or not math.isfinite(self.expected_batch(phase)):
                raise ValueError(f"{where}: nobody is expected in a round; check sampling rates and declared patients")

    def _check_ridge(self, phase: Phase) -> None:
        where = f"phase {phase.name}"
        if self.privacy.noise is NoisePlacement.LOCAL:
            raise ValueError(f"{where}: method = ridge needs sums, so privacy.noise cannot be local")
        if not any(site.labelled_patients for site in self.sites):
            raise ValueError(f"{where}: method = ridge needs labelled patients, and no site declares any")
        if not any(site.unlabelled_patients for site in self.sites):
            raise ValueError(f"{where}: method = ridge needs unlabelled patients, and no site declares any")

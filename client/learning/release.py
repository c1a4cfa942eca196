"""The mechanisms of one approved study at this site, for each phase and for the scores: all from plan and manifest."""

from typing import Self

from client.installation.folder import SiteFolder
from client.learning.mechanism import WIDEST, Mechanism, SumRules
from client.learning.noise import PrivacyRandomness
from client.learning.patient_counts import PatientCounts, frozen_counts
from client.learning.phase_settings import phase_settings
from client.learning.private_round import PrivateRound
from client.private_gradients.lattice import finest_step
from common.plan.fitting import lattice_limit, lattice_step
from common.plan.guarantee import evaluation_noise_multiplier
from common.plan.phases import Phase
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.protocol import site_weight
from common.plan.schedule import count_layout
from common.plan.shape import Shapes


class StudyRelease:
    """What a round of the study goes through before it may leave: ``round_of``.

    ``patients``: how many the study may see here. ``counts_multiplier``: noise of one evaluation; 0 for a plan without
    privacy. Raises: PlanWeakPrivacyError when a phase has no room for its noise.
    """

    def __init__(
        self, plan: StudyPlan, shapes: Shapes, patients: PatientCounts, *, site_id: str, counts_multiplier: float
    ) -> None:
        self._plan = plan
        self._site = next(site for site in plan.sites if site.name == site_id)
        self._lengths = [shape.sum_length for shape in shapes]
        self._patients = patients
        distributed = plan.privacy.noise is NoisePlacement.DISTRIBUTED
        self._count_rules = SumRules.of_counts(
            count_layout(plan),
            held_out=patients.held_out,
            noise_multiplier=counts_multiplier,
            honest_survivors=plan.secure_aggregation.honest_survivors if distributed else 1,
        )
        self._sum_rules = [
            self._rules_of(phase, length) for phase, length in zip(plan.phases, self._lengths, strict=True)
        ]

    @classmethod
    def open(cls, folder: SiteFolder, plan: StudyPlan, shapes: Shapes, *, site_id: str) -> Self:
        """Return it for an approved study. Raises: CacheInvalidError, KeyExposedError, PlanWeakPrivacyError."""
        multiplier = evaluation_noise_multiplier(plan)
        return cls(plan, shapes, frozen_counts(folder, plan), site_id=site_id, counts_multiplier=multiplier)

    def round_of(self, index: int) -> PrivateRound:
        """Return a new round of a phase, with randomness of the operating system."""
        plan, phase = self._plan, self._plan.phases[index]
        noise = PrivacyRandomness()
        return PrivateRound(
            phase_settings(plan, phase, self._site),
            sums=Mechanism(self._sum_rules[index], noise),
            counts=Mechanism(self._count_rules, noise),
            step=self._step_of(phase, self._lengths[index]),
            weight=site_weight(plan, phase, self._site),
        )

    def _rules_of(self, phase: Phase, length: int) -> SumRules:
        local = self._plan.privacy.noise is NoisePlacement.LOCAL
        return SumRules.of_gradients(
            phase_settings(self._plan, phase, self._site),
            self._patients,
            length=length,
            step=self._step_of(phase, length),
            limit=WIDEST if local else lattice_limit(self._plan),
        )

    def _step_of(self, phase: Phase, length: int) -> float:
        """Return the worth of one integer: the plan's words decide it, but where real numbers travel."""
        if self._plan.privacy.noise is NoisePlacement.LOCAL:
            return finest_step(phase.clipping_norm, length)
        return lattice_step(self._plan)

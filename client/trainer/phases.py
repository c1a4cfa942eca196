"""A phase of a plan as the training of one site: the same for patients, and for what is tried before there are any."""

from torch import nn

from client.learning.patients import Patients
from client.learning.phase_settings import phase_settings
from client.learning.speed import Speed
from client.learning.training import PhaseTraining, PublicImages
from client.private_gradients.verdict import Verdicts
from common.plan.fitting import lattice_step
from common.plan.plan import Site, StudyPlan
from common.plan.privacy import NoisePlacement


def phase_training(
    plan: StudyPlan,
    index: int,
    site: Site,
    network: nn.Module,
    patients: Patients,
    *,
    speed: Speed,
    public: PublicImages | None = None,
    verdicts: Verdicts | None = None,
) -> PhaseTraining:
    """Return the training of phase ``index`` with ``network``. Raises: as ``PhaseTraining``."""
    local = plan.privacy.noise is NoisePlacement.LOCAL
    return PhaseTraining(
        network,
        patients,
        phase_settings(plan, plan.phases[index], site),
        lattice_step=None if local else lattice_step(plan),
        public=public,
        speed=speed.gradients,
        patients_at_once=speed.patients_at_once,
        input_shape=plan.scan_shape,
        verdicts=verdicts,
        limit=speed.limit,
    )

"""The shape of a plan's phases, found in this process; PyTorch is imported at the first call only."""

from common.plan.plan import StudyPlan
from common.plan.shape import Shapes


def shapes_here(plan: StudyPlan) -> Shapes:
    """Return the shape of every phase of a plan, found in this process.

    Raises: NetworkUnsuitableError, WeightsInvalidError.
    """
    from common.plan.start import phase_shapes  # noqa: PLC0415 (200 MB of PyTorch come with it)

    return phase_shapes(plan)

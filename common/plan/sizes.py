"""How many bytes a study's messages may have, from its plan alone: both sides refuse more before they look at it."""

from common.plan.fitting import phase_layout, plan_shape
from common.plan.plan import StudyPlan
from common.plan.protocol import vector_spec
from common.plan.schedule import count_layout


def largest_payload_bytes(plan: StudyPlan) -> int:
    """Return the bytes of the largest masked vector of any phase.

    Raises: NetworkUnsuitableError, VectorRefusedError.
    """
    shape, meta_words = plan_shape(plan), count_layout(plan).length
    lengths = [phase_layout(shape, phase).num_parameters for phase in plan.phases]
    return vector_spec(plan, body_length=max(lengths), meta_words=meta_words).payload_bytes

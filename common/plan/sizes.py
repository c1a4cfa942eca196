"""How many bytes a study's messages may have, from its plan alone: both sides refuse more before they look at it."""

from common.plan.plan import StudyPlan
from common.plan.protocol import vector_spec
from common.plan.schedule import count_layout


def largest_payload_bytes(plan: StudyPlan, *, longest_body: int) -> int:
    """Return the bytes of the largest masked vector of any phase; ``longest_body``: numbers of the longest sum of any.

    Raises: VectorRefusedError.
    """
    return vector_spec(plan, body_length=longest_body, meta_words=count_layout(plan).length).payload_bytes

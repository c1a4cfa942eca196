"""From a study, its state and a cohort to the one ORDER of an attempt."""

import os
from collections.abc import Callable

from common.plan.plan import StudyPlan
from common.secagg.order import Order
from server.model.blocks import Weights
from server.model.state import StateOf
from server.study.folder import Study

BYTES_PER_WEIGHT = 4


def new_order(
    study: Study,
    state: StateOf[Weights],
    *,
    attempt: int,
    digest: bytes,
    cohort: tuple[str, ...],
    now_unix_s: float,
    entropy: Callable[[int], bytes] = os.urandom,
) -> Order:
    """Return the order of an attempt at the state's round; ``attempt`` is durable already.

    ``digest``: of the model that goes out with it (``PhaseFacts.model_digest``).

    Everything but cohort, attempt, nonce and deadline follows from the plan and the model, and sites check that.
    """
    facts, rules = study.network.phases[state.phase], study.plan.secure_aggregation
    return Order(
        federation=study.roster.federation,
        epoch=study.roster.epoch,
        roster_digest=bytes.fromhex(study.roster.digest()),
        plan_digest=study.plan_digest,
        phase=state.phase,
        round_number=state.round_number,
        attempt=attempt,
        nonce=entropy(32),
        cohort=cohort,
        threshold=rules.threshold,
        minimum_survivors=rules.minimum_survivors,
        colluders=rules.assumed_colluders,
        meta_words=facts.vector.meta_words,
        body_length=facts.vector.body_length,
        word_bits=facts.vector.word_bits,
        guard_bits=facts.vector.guard_bits,
        coordinate_range=facts.vector.coordinate_range,
        cohort_maximum=facts.vector.cohort_maximum,
        layout_digest=facts.layout_digest,
        task_digest=facts.task_digest,
        privacy_digest=facts.privacy_digest,
        model_digest=digest,
        model_bytes=BYTES_PER_WEIGHT * facts.travelling_parameters,
        deadline_unix_s=int(now_unix_s + session_length_s(study.plan)) + 1,
    )


def session_length_s(plan: StudyPlan) -> float:
    """Return the longest an attempt can take: training and five more stages, each with its timeout."""
    return plan.timing.training_timeout_s + 5 * plan.timing.stage_timeout_s

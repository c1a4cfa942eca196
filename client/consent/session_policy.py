"""From an approved plan to what a session of secure aggregation checks each order against."""

from client.consent.approval import CheckedPlan
from client.consent.confirmation import least_confirmed
from client.consent.policy import SitePolicyFile
from client.secagg.rules import PhaseRules, SecondAttempt, SitePolicy
from common.plan.attempts import most_orders, slots_of
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.protocol import privacy_digest, task_digest
from common.plan.reply_slot import reply_slot_s
from common.plan.schedule import count_layout, last_round
from common.plan.shape import Shapes
from common.trust.canonical import decode_base64
from common.trust.identity import public_bytes

BYTES_PER_WEIGHT = 4
SECOND_ATTEMPT = {
    NoisePlacement.NONE: SecondAttempt.NEVER,
    NoisePlacement.DISTRIBUTED: SecondAttempt.FRESH_NOISE,
    NoisePlacement.LOCAL: SecondAttempt.STORED_UPDATE,
}


def session_policy(checked: CheckedPlan, policy: SitePolicyFile) -> SitePolicy:
    """Return the rules of one study: the plan's own numbers, never weaker than the site's policy.

    Raises: PlanWeakThresholdError.
    """
    plan, roster = checked.plan, checked.roster
    rules = plan.secure_aggregation
    return SitePolicy(
        site_id=checked.site_id,
        federation=roster.federation,
        epoch=roster.epoch,
        roster_digest=bytes.fromhex(roster.digest()),
        identities={name: public_bytes(key) for name, key in roster.sites.items()},
        order_key=decode_base64(plan.study.order_key),
        plan_digest=bytes.fromhex(plan.digest()),
        phases=_phases(plan, checked.shapes),
        minimum_cohort=max(rules.minimum_survivors, policy.minimum_cohort),
        minimum_survivors=max(rules.minimum_survivors, policy.minimum_survivors),
        confirmed=checked.confirmed | {checked.site_id},
        minimum_confirmed=least_confirmed(policy, plan),
        colluders=max(rules.assumed_colluders, policy.assumed_colluders),
        maximum_session_s=policy.maximum_session_s,
        maximum_orders=most_orders(plan),
    )


def _phases(plan: StudyPlan, shapes: Shapes) -> tuple[PhaseRules, ...]:
    found, slots = [], slots_of(plan)
    for index, (phase, shape) in enumerate(zip(plan.phases, shapes, strict=True)):
        found.append(
            PhaseRules(
                layout_digest=bytes.fromhex(phase.layout_hash),
                task_digest=task_digest(plan, phase),
                privacy_digest=privacy_digest(plan),
                frozen_digest=shape.frozen_digest,
                model_bytes=BYTES_PER_WEIGHT * shape.travelling_parameters,
                rounds=last_round(plan, index),
                maximum_attempts=phase.maximum_attempts,
                slots=slots[index],
                meta_words=count_layout(plan).length,
                body_length=shape.sum_length,
                coordinate_range=plan.secure_aggregation.coordinate_range,
                word_bits=frozenset({plan.secure_aggregation.word_bits}),
                minimum_guard_bits=plan.secure_aggregation.guard_bits,
                second_attempt=SECOND_ATTEMPT[plan.privacy.noise],
                cohort_maximum=plan.secure_aggregation.cohort_size,
                reply_slot_s=reply_slot_s(plan),
            )
        )
    return tuple(found)

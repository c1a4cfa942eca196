"""What a site checks before it answers, stage by stage; each line is one row of ``common.secagg.refusals.TABLE``.

The facts come from the site's own policy, journal and state; a message only ever claims.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from client.secagg.journal import SiteJournal
from client.secagg.rules import PhaseRules, SecondAttempt, SitePolicy
from client.secagg.slots import ReplySlots
from client.secagg.state import ConsistentState, KeyedState, MaskedState, SharedState
from common.plan.attempts import fit
from common.secagg.errors import VectorRefusedError
from common.secagg.keys import is_signed
from common.secagg.messages import Certificate, Forward, Keylist, SignedOrder, Survivors
from common.secagg.order import Order, decode_order, model_digest
from common.secagg.refusals import BlamedError, Check, CheckSet, RefusedError
from common.secagg.sealed_shares import SharePair
from common.secagg.shamir import share_from_bytes
from common.secagg.statements import consistency_statement, keys_statement, masked_statement, order_statement
from common.secagg.thresholds import is_reachable, least_survivors, never_both_kinds
from common.secagg.wire import WireError


def is_strictly_sorted(names: Sequence[str]) -> bool:
    """Tell whether the names are sorted and distinct."""
    return all(before < after for before, after in itertools.pairwise(names))


def _each(names: Iterable[str], holds: Callable[[str], bool]) -> bool:
    """Tell whether ``holds`` for each name; blame the first for which it does not."""
    for name in names:
        if not holds(name):
            raise BlamedError(name)
    return True


def read_order(checks: CheckSet, policy: SitePolicy, signed: SignedOrder) -> Order:
    """R0, first of all: only what the approved plan's key signed is even parsed."""
    checks.demand(
        Check.R0_SIGNATURE, lambda: is_signed(signed.signature, policy.order_key, *order_statement(signed.order))
    )
    try:
        return decode_order(signed.order)
    except WireError:
        raise RefusedError(Check.WIRE_FIELDS) from None


def check_plan(checks: CheckSet, policy: SitePolicy, order: Order, now_s: float) -> PhaseRules:
    """R0: the order belongs to this federation, roster and approved plan; returns the rules of its phase."""
    checks.demand(Check.R0_FEDERATION, lambda: order.federation == policy.federation)
    checks.demand(Check.R0_ROSTER, lambda: order.roster_digest == policy.roster_digest)
    checks.demand(Check.R0_EPOCH, lambda: order.epoch == policy.epoch)
    checks.demand(Check.R0_PLAN, lambda: order.plan_digest == policy.plan_digest)
    checks.demand(Check.R0_PHASE, lambda: order.phase < len(policy.phases))
    phase = policy.phases[order.phase]
    checks.demand(Check.R0_ROUND, lambda: order.round_number <= phase.rounds)
    checks.demand(Check.R0_LAYOUT, lambda: order.layout_digest == phase.layout_digest)
    checks.demand(Check.R0_TASK, lambda: order.task_digest == phase.task_digest)
    checks.demand(Check.R0_PRIVACY, lambda: order.privacy_digest == phase.privacy_digest)
    slots = ReplySlots(now_s, phase.reply_slot_s, order.deadline_unix_s)
    checks.demand(
        Check.R0_DEADLINE, lambda: slots.has_one and order.deadline_unix_s <= now_s + policy.maximum_session_s
    )
    return phase


def check_cohort(checks: CheckSet, policy: SitePolicy, order: Order, *, phase: PhaseRules) -> None:
    """R0: who takes part, and the arithmetic of ``common.secagg.thresholds``."""
    n, t, c, s_min = len(order.cohort), order.threshold, order.colluders, order.minimum_survivors
    n_roster = len(policy.identities)
    checks.demand(Check.R0_COHORT_SORTED, lambda: is_strictly_sorted(order.cohort))
    checks.demand(Check.R0_COHORT_SELF, lambda: policy.site_id in order.cohort)
    checks.demand(Check.R0_COHORT_ROSTER, lambda: set(order.cohort) <= set(policy.identities))
    checks.demand(Check.R0_COHORT_MINIMUM, lambda: n >= policy.minimum_cohort)
    checks.demand(Check.R0_COHORT_MAXIMUM, lambda: n <= order.cohort_maximum <= (phase.cohort_maximum or n_roster))
    checks.demand(Check.R0_CONFIRMED, lambda: policy.count_confirmed(order.cohort) >= policy.least_confirmed)
    checks.demand(Check.R0_COLLUDERS, lambda: c >= policy.colluders)
    checks.demand(Check.R0_BOTH_KINDS, lambda: never_both_kinds(n, t, policy.colluders_among(order.cohort, c)))
    checks.demand(Check.R0_REACHABLE, lambda: is_reachable(n, t) and s_min <= n)
    checks.demand(Check.R0_SURVIVORS, lambda: s_min >= max(least_survivors(c), policy.minimum_survivors))
    checks.demand(Check.R0_HONEST, lambda: s_min - c >= policy.guaranteed_honest)
    # Two sums over one model need 2t openings, and a site gives one for a model (R0.released) unless it colludes.
    is_noiseless = phase.second_attempt is SecondAttempt.NEVER
    all_colluders = policy.colluders_among(policy.identities, c)
    checks.demand(Check.R0_TWO_SUMS, lambda: not is_noiseless or never_both_kinds(n_roster, t, all_colluders))


def check_vector(checks: CheckSet, phase: PhaseRules, order: Order) -> None:
    """R0: the form of the vector, as planned and proven free of overflow."""
    checks.demand(Check.R0_WORD, lambda: order.word_bits in phase.word_bits)
    guard, is_distributed = phase.minimum_guard_bits, phase.second_attempt is SecondAttempt.FRESH_NOISE
    checks.demand(Check.R0_GUARD, lambda: order.guard_bits == guard if is_distributed else order.guard_bits >= guard)
    checks.demand(Check.R0_RANGE, lambda: order.coordinate_range == phase.coordinate_range)
    checks.demand(
        Check.R0_LENGTH, lambda: (order.meta_words, order.body_length) == (phase.meta_words, phase.body_length)
    )
    checks.demand(Check.R0_OVERFLOW, lambda: _is_exact(order))


def _is_exact(order: Order) -> bool:
    try:
        order.vector.check()
    except VectorRefusedError:
        return False
    return True


def check_model(checks: CheckSet, phase: PhaseRules, order: Order, model: memoryview) -> None:
    """R0: the model beside the order is the one that every site of the cohort was told of."""
    checks.demand(Check.R0_MODEL_SIZE, lambda: order.model_bytes == phase.model_bytes == len(model))
    checks.demand(
        Check.R0_MODEL_DIGEST,
        lambda: order.model_digest == model_digest(order.layout_digest, phase.frozen_digest, model),
    )


def check_history(checks: CheckSet, policy: SitePolicy, phase: PhaseRules, journal: SiteJournal, order: Order) -> None:
    """R0: what this site did before. The last check also writes: the attempt is on disk when it returns."""
    plan, is_noiseless = order.plan_digest, phase.second_attempt is SecondAttempt.NEVER
    announced = journal.result_of(plan, phase=order.phase, round_number=order.round_number - 1)
    checks.demand(Check.R0_RESULT, lambda: announced in {None, order.model_digest})
    checks.demand(Check.R0_ATTEMPT_MAXIMUM, lambda: _has_attempt_left(policy, journal, order))
    # With noise, a model may be ordered again: at a higher attempt (below), with fresh noise (R0.fresh), and charged.
    checks.demand(
        Check.R0_RELEASED,
        lambda: not is_noiseless or journal.released_in(plan, order.model_digest) == 0,
    )
    checks.demand(Check.R0_ATTEMPT, lambda: journal.record_attempt(plan, order.phase, order.attempt))


def _has_attempt_left(policy: SitePolicy, journal: SiteJournal, order: Order) -> bool:
    """Tell whether one more vector may leave in this phase, and one more order be taken at all."""
    phases = range(len(policy.phases))
    released = [journal.masked_in(order.plan_digest, phase) + (phase == order.phase) for phase in phases]
    begun = sum(journal.attempts_in(order.plan_digest, phase) for phase in phases)
    return fit(released, policy.slots) and begun < policy.maximum_orders


def check_fresh(checks: CheckSet, phase: PhaseRules, journal: SiteJournal, *, plan: bytes, contribution: bytes) -> None:
    """R0: distributed noise is never used twice."""
    checks.demand(
        Check.R0_FRESH,
        lambda: (
            phase.second_attempt is not SecondAttempt.FRESH_NOISE or journal.record_contribution(plan, contribution)
        ),
    )


def check_keylist(
    checks: CheckSet, policy: SitePolicy, journal: SiteJournal, keyed: KeyedState, keylist: Keylist
) -> None:
    """R1: every key of U1 is signed by its pinned site for this order, mine are as I sent them, and there is one truth.

    What an earlier attempt led to must be the same for everybody who was told; what one alone was told says nothing.
    """
    order, entries = keyed.order, {keys.site_id: keys for keys in keylist.entries}
    names = [keys.site_id for keys in keylist.entries]
    public_keys = [key for keys in keylist.entries for key in (keys.sealing_key, keys.mask_key)]
    checks.demand(Check.R1_SORTED, lambda: is_strictly_sorted(names))
    checks.demand(Check.R1_COHORT, lambda: set(names) <= set(order.cohort))
    checks.demand(Check.R1_SIZE, lambda: len(names) >= max(order.least_set, policy.minimum_cohort))
    checks.demand(Check.R1_CONFIRMED, lambda: policy.count_confirmed(names) >= policy.least_confirmed)
    checks.demand(Check.R1_OWN, lambda: entries.get(policy.site_id) == keyed.own_keys)
    checks.demand(Check.R1_ORDER, lambda: _each(names, lambda v: entries[v].order_digest == keyed.order_digest))
    checks.demand(
        Check.R1_SIGNATURES,
        lambda: _each(
            names, lambda v: is_signed(entries[v].signature, policy.identities[v], *keys_statement(entries[v]))
        ),
    )
    checks.demand(Check.R1_DISTINCT, lambda: len(set(public_keys)) == len(public_keys))

    def was_told_the_same(v: str) -> bool:
        return journal.announcement_of(order.plan_digest, entries[v].last_attempt) in {None, entries[v].last_result}

    checks.demand(Check.R1_RESULTS, lambda: _each(names, was_told_the_same))


def check_agreement(checks: CheckSet, agreed: Mapping[str, tuple[bytes | None, bytes | None]]) -> None:
    """R1: both shared secrets with each peer exist; a key of low order would make them known to everybody."""
    checks.demand(Check.R1_LOW_ORDER, lambda: _each(agreed, lambda v: None not in agreed[v]))


def check_forward(checks: CheckSet, policy: SitePolicy, shared: SharedState, forward: Forward) -> None:
    """R2: U2 lies within U1, is large enough, holds me, and each other member's sealed shares are here once."""
    dealers, members = forward.dealers, {policy.site_id, *shared.peers}
    others = [v for v in dealers if v != policy.site_id]
    checks.demand(Check.R2_SORTED, lambda: is_strictly_sorted(dealers))
    checks.demand(Check.R2_SELF, lambda: policy.site_id in dealers)
    checks.demand(Check.R2_SUBSET, lambda: set(dealers) <= members)
    checks.demand(Check.R2_SIZE, lambda: len(dealers) >= shared.order.least_set)
    checks.demand(Check.R2_CONFIRMED, lambda: policy.count_confirmed(dealers) >= policy.least_confirmed)
    checks.demand(Check.R2_CIPHERTEXTS, lambda: [each.site_id for each in forward.sealed] == others)


def check_shares(checks: CheckSet, pairs: Mapping[str, SharePair | None]) -> None:
    """R2: everything opens under the key of its dealer, and holds two elements of the field."""
    checks.demand(Check.R2_OPENS, lambda: _each(pairs, lambda v: pairs[v] is not None))
    checks.demand(Check.R2_SHARE_RANGE, lambda: _each(pairs, lambda v: _in_field(pairs[v])))


def _in_field(pair: SharePair | None) -> bool:
    shares = (pair.seed_share, pair.key_share) if pair else ()
    return all(share_from_bytes(share) is not None for share in shares)


def check_survivors(checks: CheckSet, policy: SitePolicy, masked: MaskedState, message: Survivors) -> None:
    """R3: U3 lies within U2, is large enough, holds me, and each member signed for its vector in this session."""
    survivors = {each.site_id: each for each in message.survivors}
    names = [each.site_id for each in message.survivors]
    sid, u2h = masked.session_id, masked.dealers_digest
    checks.demand(Check.R3_SORTED, lambda: is_strictly_sorted(names))
    checks.demand(Check.R3_SELF, lambda: policy.site_id in survivors)
    checks.demand(Check.R3_SUBSET, lambda: set(names) <= set(masked.pairs))
    checks.demand(Check.R3_SIZE, lambda: len(names) >= masked.order.least_set)
    checks.demand(Check.R3_CONFIRMED, lambda: policy.count_confirmed(names) >= policy.least_confirmed)

    def is_vouched(v: str) -> bool:
        statement = masked_statement(sid, u2h, v, survivors[v].vector_digest)
        return is_signed(survivors[v].signature, policy.identities[v], *statement)

    checks.demand(Check.R3_SIGNATURES, lambda: _each(names, is_vouched))


def check_certificate(checks: CheckSet, policy: SitePolicy, consistent: ConsistentState, message: Certificate) -> None:
    """R4: enough members of U3 signed the very list that I signed."""
    signatures = {each.site_id: each.signature for each in message.witnesses}
    names = [each.site_id for each in message.witnesses]
    sid, u3h = consistent.session_id, consistent.survivors_digest
    checks.demand(Check.R4_SORTED, lambda: is_strictly_sorted(names))
    checks.demand(Check.R4_MEMBERS, lambda: set(names) <= consistent.survivors)
    checks.demand(Check.R4_SIZE, lambda: len(names) >= consistent.order.least_set)

    def saw_the_same(v: str) -> bool:
        return is_signed(signatures[v], policy.identities[v], *consistency_statement(sid, u3h, v))

    checks.demand(Check.R4_SIGNATURES, lambda: _each(names, saw_the_same))

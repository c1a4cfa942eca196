"""What a site does at each stage, in the order of the protocol: check, work, answer.

Each function takes the state and a message and returns the next state and the answer; it changes nothing else but the
journal and the ledger, and raises RefusedError instead of answering. ``client.secagg.session`` wraps them into a
session.
"""

from collections.abc import Iterable
from dataclasses import replace

from client.secagg.checks import (
    check_agreement,
    check_certificate,
    check_cohort,
    check_forward,
    check_fresh,
    check_history,
    check_keylist,
    check_model,
    check_plan,
    check_shares,
    check_survivors,
    check_vector,
    read_order,
)
from client.secagg.context import SiteContext
from client.secagg.dealing import agree_with_all, deal
from client.secagg.rules import PhaseRules
from client.secagg.slots import ReplySlots
from client.secagg.state import (
    ConsistentState,
    Contribution,
    KeyedState,
    MaskedState,
    OwnSecrets,
    Peer,
    SharedState,
    UnmaskedState,
    fingerprint_of,
)
from common.errors import FedwardError
from common.secagg.encoding import DIGEST_BYTES
from common.secagg.keys import (
    KEY_BYTES,
    is_signed,
    mask_sign,
    pairwise_mask_key,
    public_key,
    sealing_key,
    self_mask_key,
    sign,
)
from common.secagg.masking import MaskedVector, mask_vector
from common.secagg.messages import (
    Certificate,
    Consistent,
    DealtShare,
    Forward,
    Keylist,
    Keys,
    Masked,
    Packet,
    Recorded,
    Result,
    SealedShares,
    Shares,
    SignedOrder,
    Survivors,
    Unmask,
    encode,
)
from common.secagg.order import Order, order_digest
from common.secagg.refusals import Check, RefusedError
from common.secagg.sealed_shares import SharePair, seal, unseal
from common.secagg.statements import (
    consistency_statement,
    dealers_digest,
    keys_statement,
    masked_statement,
    recorded_statement,
    result_digest,
    result_statement,
    seed_commitment,
    session_id,
    shares_statement,
    survivors_digest,
    unmask_statement,
)

_UNSIGNED = bytes(64)


def answer_order(
    site: SiteContext, message: SignedOrder, model: memoryview, *, came_s: float
) -> tuple[KeyedState, Packet]:
    """R0: check the order, journal its attempt, train, and answer with fresh keys at the end of a reply slot.

    ``came_s``: when the order came, on the site's clock.
    """
    order = read_order(site.checks, site.policy, message)
    phase = check_plan(site.checks, site.policy, order, came_s)
    check_cohort(site.checks, site.policy, order, phase=phase)
    check_vector(site.checks, phase, order)
    check_model(site.checks, phase, order, model)
    check_history(site.checks, site.policy, phase, site.journal, order)
    slots = ReplySlots(came_s, phase.reply_slot_s, order.deadline_unix_s)
    try:
        contribution = _contribute(site, phase, order, model, until_unix_s=slots.train_until_s)
        site.checks.demand(Check.ANY_DEADLINE, lambda: slots.leaves_at_s(site.clock()) < order.deadline_unix_s)
    except RefusedError as refused:
        refused.delay_s = _delay_s(site, slots)
        raise
    # Keys come after training: what a crash or a theft of memory during hours of training finds is no key.
    secrets = OwnSecrets(*(bytearray(site.entropy(KEY_BYTES)) for _ in range(3)))
    keys = _signed_keys(site, order, order_digest(message.order), secrets)
    state = KeyedState(order, keys.order_digest, keys, secrets, contribution)
    return state, Packet(encode(keys), delay_s=_delay_s(site, slots))


def _contribute(
    site: SiteContext, phase: PhaseRules, order: Order, model: memoryview, *, until_unix_s: float
) -> Contribution:
    try:
        contribution = site.work.contribute(order, model, until_unix_s)
        fingerprint = fingerprint_of(order, contribution)
    except Exception as error:
        raise RefusedError(Check.R0_CONTRIBUTION) from error
    check_fresh(site.checks, phase, site.journal, plan=order.plan_digest, contribution=fingerprint)
    return contribution


def _delay_s(site: SiteContext, slots: ReplySlots) -> float:
    now_s = site.clock()
    return slots.leaves_at_s(now_s) - now_s


def _signed_keys(site: SiteContext, order: Order, ph: bytes, secrets: OwnSecrets) -> Keys:
    ledger_head = site.work.ledger_head(order)
    if len(ledger_head) != DIGEST_BYTES:
        raise ValueError("the head of the ledger's chain must have 32 bytes")
    last_attempt, last_result = site.journal.last_announcement(order.plan_digest)
    keys = Keys(
        order_digest=ph,
        site_id=site.policy.site_id,
        sealing_key=public_key(secrets.sealing_secret),
        mask_key=public_key(secrets.mask_secret),
        seed_commitment=seed_commitment(ph, site.policy.site_id, secrets.seed),
        ledger_head=ledger_head,
        last_attempt=last_attempt,
        last_result=last_result,
        signature=_UNSIGNED,
    )
    return replace(keys, signature=sign(site.identity, *keys_statement(keys)))


def answer_keylist(site: SiteContext, keyed: KeyedState, message: Keylist) -> tuple[SharedState, Packet]:
    """R1: check everybody's keys, agree with each peer, and deal out shares of both secrets."""
    check_keylist(site.checks, site.policy, site.journal, keyed, message)
    sid = session_id(keyed.order_digest, message.entries)
    agreed = agree_with_all(site, keyed.secrets, message.entries)
    check_agreement(site.checks, agreed)
    pairs = deal(site, keyed, [keys.site_id for keys in message.entries])
    own, peers, sealed = site.policy.site_id, {}, []
    for peer_id, (sealing, masking) in agreed.items():
        if sealing is None or masking is None:
            raise TypeError("check R1.low_order let a peer without a shared secret through")
        key = sealing_key(sealing, sid, own, peer_id)
        text = seal(key, pairs[peer_id], session_id=sid, dealer=own, receiver=peer_id)
        sealed.append(SealedShares(site_id=peer_id, sealed=text))
        peers[peer_id] = Peer(sealing_key(sealing, sid, peer_id, own), pairwise_mask_key(masking, sid, own, peer_id))
    shares = Shares(session_id=sid, site_id=own, sealed=tuple(sealed), signature=_UNSIGNED)
    shares = replace(shares, signature=sign(site.identity, *shares_statement(shares)))
    state = SharedState(keyed.order, sid, peers, pairs[own], keyed.secrets, keyed.contribution)
    return state, Packet(encode(shares))


def answer_forward(site: SiteContext, shared: SharedState, message: Forward) -> tuple[MaskedState, Packet]:
    """R2: open what the others dealt, charge the ledger, and send the masked vector."""
    check_forward(site.checks, site.policy, shared, message)
    own, sid = site.policy.site_id, shared.session_id
    opened = {each.site_id: _open(shared, each, receiver=own) for each in message.sealed}
    check_shares(site.checks, opened)
    pairs = {own: shared.own_pair, **{v: pair for v, pair in opened.items() if pair is not None}}
    vector = _mask(site, shared, message.dealers)
    site.journal.record_masked(shared.order.plan_digest, shared.order.phase, shared.order.attempt)
    _spend(site, shared.order)
    u2h = dealers_digest(sid, message.dealers)
    signature = sign(site.identity, *masked_statement(sid, u2h, own, vector.digest))
    answer = Masked(session_id=sid, site_id=own, vector_digest=vector.digest, signature=signature)
    shared.secrets.wipe()
    return MaskedState(shared.order, sid, u2h, pairs), Packet(encode(answer), vector.payload.data.toreadonly())


def _open(shared: SharedState, sealed: SealedShares, *, receiver: str) -> SharePair | None:
    peer = shared.peers[sealed.site_id]
    return unseal(
        peer.opening_key, sealed.sealed, session_id=shared.session_id, dealer=sealed.site_id, receiver=receiver
    )


def _mask(site: SiteContext, shared: SharedState, dealers: Iterable[str]) -> MaskedVector:
    # y_u = enc(x_u) + PRG(b_u) + sum over v in U2 of (+ if u < v else -) PRG(k_uv)
    own = site.policy.site_id
    streams = [(self_mask_key(shared.secrets.seed, shared.session_id, own), 1)]
    streams += [(shared.peers[v].pairwise_key, mask_sign(own, v)) for v in dealers if v != own]
    try:
        return mask_vector(
            shared.order.vector,
            shared.contribution.meta,
            shared.contribution.body,
            streams,
            dither=site.entropy(KEY_BYTES),
            threads=site.threads,
        )
    except FedwardError as error:
        raise RefusedError(Check.R2_ENCODING) from error


def _spend(site: SiteContext, order: Order) -> None:
    try:
        site.work.spend(order)
    except Exception as error:
        raise RefusedError(Check.R2_SPEND) from error


def answer_survivors(site: SiteContext, masked: MaskedState, message: Survivors) -> tuple[ConsistentState, Packet]:
    """R3: check who is in the sum, and sign that list."""
    check_survivors(site.checks, site.policy, masked, message)
    sid, own = masked.session_id, site.policy.site_id
    u3h = survivors_digest(sid, masked.dealers_digest, message.survivors)
    signature = sign(site.identity, *consistency_statement(sid, u3h, own))
    survivors = frozenset(each.site_id for each in message.survivors)
    answer = Consistent(session_id=sid, site_id=own, signature=signature)
    return ConsistentState(masked.order, sid, u3h, survivors, masked.pairs), Packet(encode(answer))


def answer_certificate(
    site: SiteContext, consistent: ConsistentState, message: Certificate
) -> tuple[UnmaskedState, Packet]:
    """R4: once enough sites signed the same list, open one share for each dealer: which one, the list decides.

    The release is in the journal before the answer exists.
    """
    check_certificate(site.checks, site.policy, consistent, message)
    order, sid, pairs = consistent.order, consistent.session_id, consistent.pairs
    alive = sorted(consistent.survivors)
    dropped = sorted(set(pairs) - consistent.survivors)
    unmask = Unmask(
        session_id=sid,
        site_id=site.policy.site_id,
        seed_shares=tuple(DealtShare(site_id=v, share=pairs[v].seed_share) for v in alive),
        key_shares=tuple(DealtShare(site_id=v, share=pairs[v].key_share) for v in dropped),
        signature=_UNSIGNED,
    )
    unmask = replace(unmask, signature=sign(site.identity, *unmask_statement(unmask, consistent.survivors_digest)))
    site.journal.record_release(order.plan_digest, order.model_digest, order.attempt)
    return UnmaskedState(order, sid, consistent.survivors_digest), Packet(encode(unmask))


def answer_result(site: SiteContext, unmasked: UnmaskedState, message: Result) -> tuple[UnmaskedState, Packet]:
    """R5: note which model came of the round; the next ORDER must bring that one."""
    site.checks.demand(
        Check.R5_SIGNATURE, lambda: is_signed(message.signature, site.policy.order_key, *result_statement(message))
    )
    site.checks.demand(Check.R5_SURVIVORS, lambda: message.survivors_digest == unmasked.survivors_digest)
    order = unmasked.order
    site.journal.record_announcement(order.plan_digest, order.attempt, result_digest(message))
    site.journal.record_result(
        order.plan_digest, phase=order.phase, round_number=order.round_number, model_digest=message.model_digest
    )
    sid, own = unmasked.session_id, site.policy.site_id
    signature = sign(site.identity, *recorded_statement(sid, own, message.model_digest))
    return unmasked, Packet(encode(Recorded(session_id=sid, site_id=own, signature=signature)))

"""What the server checks of each answer; a bad answer is dropped with the site's name and never stops the round.

Each line is one row of ``common.secagg.refusals.TABLE`` (C.*). What honest sites would refuse in a list is refused
here first, so that one bad site cannot make all others refuse.
"""

import hashlib
from collections.abc import Sequence

from common.secagg.keys import agree, is_signed, open_secret
from common.secagg.messages import Consistent, DealtShare, Keys, Masked, Recorded, Refusal, Shares, Unmask
from common.secagg.refusals import Check, CheckSet
from common.secagg.shamir import share_from_bytes
from common.secagg.statements import (
    consistency_statement,
    keys_statement,
    masked_statement,
    recorded_statement,
    refusal_statement,
    shares_statement,
    unmask_statement,
)
from server.secagg.facts import RoundFacts

# Only tells whether a peer's key is of low order; it protects nothing.
_PROBE = open_secret(bytes(range(32)))


def check_keys(checks: CheckSet, facts: RoundFacts, keys: Keys) -> None:
    """KEYS: signed for this order, true about what was announced, two keys that nobody else uses and all can use."""
    checks.demand(Check.ANY_SESSION, lambda: keys.order_digest == facts.order_digest)
    checks.demand(
        Check.C_SIGNATURE, lambda: is_signed(keys.signature, facts.identities[keys.site_id], *keys_statement(keys))
    )
    # a false claim would have every other site refuse; of an attempt that was never announced nobody knows better
    told = facts.announced.get(keys.last_attempt, keys.last_result)
    checks.demand(Check.C_RESULT, lambda: told == keys.last_result)
    in_use = {key for other in facts.keys.values() for key in (other.sealing_key, other.mask_key)}
    fresh = {keys.sealing_key, keys.mask_key}
    checks.demand(Check.C_DISTINCT, lambda: len(fresh) == 2 and not fresh & in_use)
    checks.demand(Check.C_LOW_ORDER, lambda: all(agree(_PROBE, key) is not None for key in fresh))


def check_shares(checks: CheckSet, facts: RoundFacts, shares: Shares) -> None:
    """SHARES: one sealed pair for every other site of U1."""
    others = [v for v in sorted(facts.keys) if v != shares.site_id]
    checks.demand(Check.C_RECEIVERS, lambda: [each.site_id for each in shares.sealed] == others)
    checks.demand(
        Check.C_SIGNATURE,
        lambda: is_signed(shares.signature, facts.identities[shares.site_id], *shares_statement(shares)),
    )


def check_masked(checks: CheckSet, facts: RoundFacts, masked: Masked, vector: memoryview) -> None:
    """MASKED: a vector of the announced size, and the one that was signed for."""
    statement = masked_statement(facts.session_id, facts.dealers_digest, masked.site_id, masked.vector_digest)
    checks.demand(Check.C_PAYLOAD, lambda: vector.nbytes == facts.order.vector.payload_bytes)
    checks.demand(Check.C_SIGNATURE, lambda: is_signed(masked.signature, facts.identities[masked.site_id], *statement))
    checks.demand(Check.C_DIGEST, lambda: hashlib.sha256(vector).digest() == masked.vector_digest)


def check_consistent(checks: CheckSet, facts: RoundFacts, consistent: Consistent) -> None:
    """CONSISTENT: a signature on the survivors that this server named."""
    statement = consistency_statement(facts.session_id, facts.survivors_digest, consistent.site_id)
    checks.demand(
        Check.C_SIGNATURE, lambda: is_signed(consistent.signature, facts.identities[consistent.site_id], *statement)
    )


def check_unmask(checks: CheckSet, facts: RoundFacts, unmask: Unmask) -> None:
    """UNMASK: exactly the shares that the survivors call for, each in the field."""
    checks.demand(
        Check.C_UNMASK_SETS,
        lambda: (
            _dealers(unmask.seed_shares) == sorted(facts.masked)
            and _dealers(unmask.key_shares) == facts.dropped_after_shares
        ),
    )
    shares = [*unmask.seed_shares, *unmask.key_shares]
    checks.demand(Check.C_SHARE_RANGE, lambda: all(share_from_bytes(each.share) is not None for each in shares))
    statement = unmask_statement(unmask, facts.survivors_digest)
    checks.demand(Check.C_SIGNATURE, lambda: is_signed(unmask.signature, facts.identities[unmask.site_id], *statement))


def check_refusal(checks: CheckSet, facts: RoundFacts, refusal: Refusal) -> None:
    """REFUSAL: of this order or session, and signed; a forged one would push a site out."""
    checks.demand(
        Check.ANY_SESSION, lambda: refusal.reference in {facts.order_digest, facts.session_id or facts.order_digest}
    )
    checks.demand(
        Check.C_SIGNATURE,
        lambda: is_signed(refusal.signature, facts.identities[refusal.site_id], *refusal_statement(refusal)),
    )


def _dealers(shares: Sequence[DealtShare]) -> list[str]:
    return [each.site_id for each in shares]


def check_recorded(checks: CheckSet, facts: RoundFacts, recorded: Recorded, model_digest: bytes) -> None:
    """RECORDED: the site signed that it noted this result."""
    statement = recorded_statement(facts.session_id, recorded.site_id, model_digest)
    checks.demand(
        Check.C_SIGNATURE, lambda: is_signed(recorded.signature, facts.identities[recorded.site_id], *statement)
    )

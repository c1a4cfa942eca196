"""The end of a round at the server: rebuild secrets, remove masks, check the sum."""

import hashlib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from common.secagg.accumulator import Accumulator, SumCheckFailed, SummedVector
from common.secagg.keys import public_key
from common.secagg.messages import DealtShare, Unmask
from common.secagg.refusals import Check, CheckSet, RefusedError, RoundAbortedError
from common.secagg.shamir import SECRET_BYTES, secret_from_element, share_from_bytes
from common.secagg.statements import seed_commitment
from common.secagg.words import LatticeValues
from server.secagg.facts import RoundFacts
from server.secagg.recovery import ShareRebuilder, WrongShare, masks_to_remove

LargestNorm: TypeAlias = Callable[[Collection[str]], float]  # of a sum over these sites, in units of the lattice
_NORM_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class OpenedSum:
    """The end of a round.

    Attributes:
        total: the exact sums, see ``common.secagg.accumulator.SummedVector``.
        participants: U3, sorted: whose vectors are in it. dropped: the rest of the cohort, sorted.
        wrong_shares: shares that did not fit, where others were used instead.
        session_id, survivors_digest, sum_digest: for the journal and RESULT.
    """

    total: SummedVector
    participants: tuple[str, ...]
    dropped: tuple[str, ...]
    wrong_shares: tuple[WrongShare, ...]
    session_id: bytes
    survivors_digest: bytes
    sum_digest: bytes


def open_sum(facts: RoundFacts, accumulator: Accumulator, *, checks: CheckSet, threads: int) -> OpenedSum:
    """Turn the sum of masked vectors into the sum of vectors.

    Raises: RoundAbortedError with C.seed or C.mask_key (naming the dealer whose secret no subset rebuilds) or C.sum.
    """
    rebuilder = ShareRebuilder(facts.order.threshold, {v: facts.order.share_index(v) for v in facts.unmask})
    opening = _Opening(facts, rebuilder, checks)
    seed_shares = _by_dealer(facts, lambda unmask: unmask.seed_shares)
    key_shares = _by_dealer(facts, lambda unmask: unmask.key_shares)
    seeds = {v: _rebuild_seed(opening, v, seed_shares.get(v, {})) for v in sorted(facts.masked)}
    dropped = {v: _rebuild_mask_secret(opening, v, key_shares.get(v, {})) for v in facts.dropped_after_shares}
    streams = masks_to_remove(facts.session_id, seeds=seeds, dropped_secrets=dropped, keys=facts.keys)
    accumulator.apply_streams(streams, threads=threads)
    total = _checked_sum(accumulator, len(facts.masked), checks)
    return OpenedSum(
        total=total,
        participants=tuple(sorted(facts.masked)),
        dropped=tuple(sorted(set(facts.order.cohort) - set(facts.masked))),
        wrong_shares=tuple(rebuilder.wrong),
        session_id=facts.session_id,
        survivors_digest=facts.survivors_digest,
        sum_digest=_sum_digest(total),
    )


def unbounded(participants: Collection[str]) -> float:
    """Bound no sum."""
    del participants
    return math.inf


def check_norm(checks: CheckSet, opened: OpenedSum, largest_norm: LargestNorm) -> None:
    """Refuse a sum that is longer than honest sites can make it.

    Raises: RoundAbortedError with C.norm.
    """
    limit = largest_norm(opened.participants)
    if math.isinf(limit):
        return
    norm = _norm(opened.total.body_sum)
    if not checks.passes(Check.C_NORM, lambda: norm <= limit):
        sentence = (
            f"the sum of {len(opened.participants)} vectors has norm {norm:.4g} units, honest ones cannot exceed "
            f"{limit:.4g}; a site sent more than its patients can add, nobody can say which"
        )
        raise RoundAbortedError(Check.C_NORM, sentence)


def _norm(values: LatticeValues) -> float:
    """Return the L2 norm; block by block, so that no second vector of that size is in memory."""
    blocks = (values[start : start + _NORM_BLOCK].astype(np.float64) for start in range(0, values.size, _NORM_BLOCK))
    return math.sqrt(math.fsum(float(block @ block) for block in blocks))


@dataclass(frozen=True, slots=True)
class _Opening:
    """What rebuilding every secret of a round has in common."""

    facts: RoundFacts
    rebuilder: ShareRebuilder
    checks: CheckSet

    def rebuild(self, check: Check, dealer: str, shares: dict[str, int], is_right: Callable[[int], bool]) -> int | None:
        return self.rebuilder.rebuild(dealer, shares, lambda found: self.checks.passes(check, lambda: is_right(found)))


def _rebuild_seed(opening: _Opening, dealer: str, shares: dict[str, int]) -> bytes:
    facts = opening.facts
    announced = facts.keys[dealer].seed_commitment

    def is_committed(element: int) -> bool:
        seed = secret_from_element(element)
        return seed is not None and seed_commitment(facts.order_digest, dealer, seed) == announced

    seed = opening.rebuild(Check.C_SEED, dealer, shares, is_committed)
    if seed is None:
        raise RoundAbortedError(Check.C_SEED, _no_subset(opening.facts, shares), suspects=(dealer,))
    return _low_bytes(seed)


def _rebuild_mask_secret(opening: _Opening, dealer: str, shares: dict[str, int]) -> bytes:
    def is_announced(element: int) -> bool:
        secret = secret_from_element(element)
        return secret is not None and public_key(secret) == opening.facts.keys[dealer].mask_key

    secret = opening.rebuild(Check.C_MASK_KEY, dealer, shares, is_announced)
    if secret is None:
        raise RoundAbortedError(Check.C_MASK_KEY, _no_subset(opening.facts, shares), suspects=(dealer,))
    return _low_bytes(secret)


def _low_bytes(element: int) -> bytes:
    # The check has seen that the element is a 256-bit secret; cutting it here keeps this total without the check.
    return (element % (1 << 8 * SECRET_BYTES)).to_bytes(SECRET_BYTES, "big")


def _by_dealer(facts: RoundFacts, which: Callable[[Unmask], tuple[DealtShare, ...]]) -> dict[str, dict[str, int]]:
    """Return the opened shares of one kind: dealer -> holder -> share."""
    found: dict[str, dict[str, int]] = {}
    for holder, unmask in facts.unmask.items():
        for each in which(unmask):
            share = share_from_bytes(each.share)
            if share is not None:
                found.setdefault(each.site_id, {})[holder] = share
    return found


def _no_subset(facts: RoundFacts, shares: dict[str, int]) -> str:
    return (
        f"no {facts.order.threshold} of {len(shares)} shares rebuild the secret that the dealer signed for: the dealer "
        "lied, or a site that opened its share"
    )


def _sum_digest(total: SummedVector) -> bytes:
    hashed = hashlib.sha256(total.meta.tobytes())
    hashed.update(total.body_sum.data)
    return hashed.digest()


def _checked_sum(accumulator: Accumulator, participants: int, checks: CheckSet) -> SummedVector:
    found: list[SummedVector] = []

    def is_sound() -> bool:
        try:
            found.append(accumulator.finish(participants))
        except SumCheckFailed:
            return False
        return True

    try:
        checks.demand(Check.C_SUM, is_sound)
        return found[0]
    except RefusedError:
        sentence = (
            f"the sum of {participants} vectors is not one of honest vectors; a site sent garbage, nobody can say which"
        )
        raise RoundAbortedError(Check.C_SUM, sentence) from None

"""What is hashed and what each signature says: one function for each, used by the signer and by every verifier.

    ph  = H("order", bytes)                                     which order
    sid = H("session", ph, [u, c_pk, s_pk, b_commit of U1])     which session: every key of every member is in it
    u2h = H("u2", sid, U2)
    u3h = H("u3", sid, u2h, [(v, d_v) of U3])
    b_commit = H("b", ph, u, b_u)

A statement is the label and the fields of Sig(label, ...); pass it on as ``sign(identity, *statement)``.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from common.secagg.encoding import Field, digest, encode_injectively
from common.secagg.messages import DealtShare, Keys, Refusal, Result, SealedShares, Shares, Survivor, Unmask

Statement: TypeAlias = "tuple[str, *tuple[Field, ...]]"


def order_statement(order: bytes) -> Statement:
    """Sig_C("order", bytes)."""
    return ("order", order)


def seed_commitment(order_digest: bytes, site_id: str, seed: bytes | bytearray) -> bytes:
    """b_commit: lets the server notice wrong shares of the seed, and tells it nothing of a 256-bit seed."""
    return digest("b", order_digest, site_id, bytes(seed))


def keys_statement(keys: Keys) -> Statement:
    """Sig_u("keys", ph, u, c_pk, s_pk, b_commit, ledger_head, last_attempt, last_result)."""
    return (
        "keys",
        keys.order_digest,
        keys.site_id,
        keys.sealing_key,
        keys.mask_key,
        keys.seed_commitment,
        keys.ledger_head,
        keys.last_attempt,
        keys.last_result,
    )


def session_id(order_digest: bytes, entries: Iterable[Keys]) -> bytes:
    """sid: a site that was shown another list of keys has another sid, and can neither open shares nor cancel masks."""
    members = [
        encode_injectively(keys.site_id, keys.sealing_key, keys.mask_key, keys.seed_commitment) for keys in entries
    ]
    return digest("session", order_digest, members)


def shares_statement(shares: Shares) -> Statement:
    """Sig_u("shares", sid, u, H(list))."""
    return ("shares", shares.session_id, shares.site_id, _sealed_digest(shares.sealed))


def _sealed_digest(sealed: Sequence[SealedShares]) -> bytes:
    return digest("sealed", [encode_injectively(each.site_id, each.sealed) for each in sealed])


def dealers_digest(sid: bytes, dealers: Sequence[str]) -> bytes:
    """u2h: the set whose pairwise masks are in every vector."""
    return digest("u2", sid, list(dealers))


def masked_statement(sid: bytes, u2h: bytes, site_id: str, vector_digest: bytes) -> Statement:
    """Sig_u("masked", sid, u2h, u, d_u)."""
    return ("masked", sid, u2h, site_id, vector_digest)


def survivors_digest(sid: bytes, u2h: bytes, survivors: Sequence[Survivor]) -> bytes:
    """u3h: who is in the sum, and with which bytes."""
    return digest("u3", sid, u2h, [encode_injectively(each.site_id, each.vector_digest) for each in survivors])


def consistency_statement(sid: bytes, u3h: bytes, site_id: str) -> Statement:
    """Sig_u("u3", sid, u3h, u)."""
    return ("u3", sid, u3h, site_id)


def unmask_statement(unmask: Unmask, u3h: bytes) -> Statement:
    """Sig_u("unmask", sid, u3h, u, H(shares))."""
    opened = digest("opened", _opened(unmask.seed_shares), _opened(unmask.key_shares))
    return ("unmask", unmask.session_id, u3h, unmask.site_id, opened)


def _opened(shares: Sequence[DealtShare]) -> list[bytes]:
    return [encode_injectively(each.site_id, each.share) for each in shares]


def result_statement(result: Result) -> Statement:
    """Sig_C("result", sid, u3h, sum digest, divisor, new model digest)."""
    return (
        "result",
        result.session_id,
        result.survivors_digest,
        result.sum_digest,
        result.divisor.hex(),
        result.model_digest,
    )


def result_digest(result: Result) -> bytes:
    """H("result", sid, u3h, sum digest, divisor, new model digest): one truth for every site of an attempt."""
    return digest(*result_statement(result))


def recorded_statement(sid: bytes, site_id: str, model_digest: bytes) -> Statement:
    """Sig_u("recorded", sid, u, new model digest)."""
    return ("recorded", sid, site_id, model_digest)


def refusal_statement(refusal: Refusal) -> Statement:
    """Sig_u("refusal", reference, u, code, about)."""
    return ("refusal", refusal.reference, refusal.site_id, refusal.code, refusal.about)

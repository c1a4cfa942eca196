"""The messages of the protocol, one dataclass for each kind, and the strict way between them and bytes.

Large buffers never enter a message: an ORDER has the model beside it and MASKED the vector, as separate buffers that
are passed on without a copy (``Packet``); the signed message binds them by digest.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from common.secagg.encoding import PROTOCOL
from common.secagg.order import MAX_COUNT, MAX_ORDER_BYTES
from common.secagg.refusals import ALL_CHECKS, CHECK_OF_CODE, Check, CheckSet, RefusedError
from common.secagg.stages import Kind
from common.secagg.wire import (
    DIGEST,
    KEY,
    MAX_MESSAGE_BYTES,
    NAME,
    NAME_OR_NOTHING,
    NAMES,
    SEALED,
    SHARE,
    SIGNATURE,
    WireError,
    listing,
    nested,
    octets_up_to,
    pack,
    read_fields,
    real,
    unpack,
    whole,
    wire,
    write_fields,
)

_NO_PAYLOAD = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Packet:
    """What one side hands to the transport.

    Attributes:
        message: the control message.
        payload: the buffer beside it, flat bytes (empty for most kinds). It is a view: send it before the next call.
        delay_s: seconds to wait before sending. Training time follows the private batch, so what answers an ORDER
            after training (KEYS, or a refusal) leaves at a multiple of the plan's public slot.
    """

    message: bytes
    payload: memoryview = field(default=_NO_PAYLOAD, repr=False)
    delay_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SignedOrder:
    """R0, server to site: the bytes of an ``Order`` and Sig_C("order", bytes). Beside it: the model."""

    order: bytes = wire(octets_up_to(MAX_ORDER_BYTES))
    signature: bytes = wire(SIGNATURE)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """R0', site to server: fresh keys for one order.

    ``last_attempt``, ``last_result``: of the newest RESULT of this plan that the site was told, and H("result", ...) of
    it, so that hospitals that were told different ones find out; 0 and zeros where it was told none.
    Sig_u("keys", ph, u, c_pk, s_pk, b_commit, ledger_head, last_attempt, last_result).
    """

    order_digest: bytes = wire(DIGEST)
    site_id: str = wire(NAME)
    sealing_key: bytes = wire(KEY)
    mask_key: bytes = wire(KEY)
    seed_commitment: bytes = wire(DIGEST)
    ledger_head: bytes = wire(DIGEST)
    last_attempt: int = wire(whole(0, MAX_COUNT))
    last_result: bytes = wire(DIGEST)
    signature: bytes = wire(SIGNATURE)


@dataclass(frozen=True, kw_only=True)
class Keylist:
    """R1, server to site: the KEYS of U1 verbatim, sorted by name."""

    order_digest: bytes = wire(DIGEST)
    entries: tuple[Keys, ...] = wire(listing(nested(Keys)))


@dataclass(frozen=True, kw_only=True)
class SealedShares:
    """One sealed pair of shares: from or for ``site_id``, whichever the message is about."""

    site_id: str = wire(NAME)
    sealed: bytes = wire(SEALED)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """R1', site to server: sealed shares for every other site of U1, Sig_u("shares", sid, u, H(list))."""

    session_id: bytes = wire(DIGEST)
    site_id: str = wire(NAME)
    sealed: tuple[SealedShares, ...] = wire(listing(nested(SealedShares)))
    signature: bytes = wire(SIGNATURE)


@dataclass(frozen=True, kw_only=True)
class Forward:
    """R2, server to one site: U2, and what each other member dealt to this site."""

    session_id: bytes = wire(DIGEST)
    dealers: tuple[str, ...] = wire(NAMES)
    sealed: tuple[SealedShares, ...] = wire(listing(nested(SealedShares)))


@dataclass(frozen=True, kw_only=True)
class Masked:
    """R2', site to server: d_u = SHA-256 of the vector beside it, Sig_u("masked", sid, H("u2", sid, U2), u, d_u)."""

    session_id: bytes = wire(DIGEST)
    site_id: str = wire(NAME)
    vector_digest: bytes = wire(DIGEST)
    signature: bytes = wire(SIGNATURE)


@dataclass(frozen=True, kw_only=True)
class Survivor:
    """One member of U3 with its signed digest, as it stood in MASKED."""

    site_id: str = wire(NAME)
    vector_digest: bytes = wire(DIGEST)
    signature: bytes = wire(SIGNATURE)


@dataclass(frozen=True, kw_only=True)
class Survivors:
    """R3, server to site: U3, sorted by name."""

    session_id: bytes = wire(DIGEST)
    survivors: tuple[Survivor, ...] = wire(listing(nested(Survivor)))


@dataclass(frozen=True, kw_only=True)
class Consistent:
    """R3', site to server: Sig_u("u3", sid, u3h, u): this site saw exactly these survivors."""

    session_id: bytes = wire(DIGEST)
    site_id: str = wire(NAME)
    signature: bytes = wire(SIGNATURE)


@dataclass(frozen=True, kw_only=True)
class Witness:
    """One site's signature on the list of survivors."""

    site_id: str = wire(NAME)
    signature: bytes = wire(SIGNATURE)


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """R4, server to site: the consistency signatures, sorted by name."""

    session_id: bytes = wire(DIGEST)
    witnesses: tuple[Witness, ...] = wire(listing(nested(Witness)))


@dataclass(frozen=True, kw_only=True)
class DealtShare:
    """One share of the secret of ``site_id`` (its dealer), opened."""

    site_id: str = wire(NAME)
    share: bytes = wire(SHARE)


@dataclass(frozen=True, kw_only=True)
class Unmask:
    """R4', site to server: shares of b_v for v in U3 and of s_sk_v for v in U2 without U3; the *site* decides which.

    Sig_u("unmask", sid, u3h, u, H(shares)).
    """

    session_id: bytes = wire(DIGEST)
    site_id: str = wire(NAME)
    seed_shares: tuple[DealtShare, ...] = wire(listing(nested(DealtShare)))
    key_shares: tuple[DealtShare, ...] = wire(listing(nested(DealtShare)))
    signature: bytes = wire(SIGNATURE)


@dataclass(frozen=True, kw_only=True)
class Result:
    """R5, server to site: what came of the round, Sig_C("result", sid, u3h, sum digest, divisor, new model)."""

    session_id: bytes = wire(DIGEST)
    survivors_digest: bytes = wire(DIGEST)
    sum_digest: bytes = wire(DIGEST)
    divisor: float = wire(real(0.0, 1e30))
    model_digest: bytes = wire(DIGEST)
    signature: bytes = wire(SIGNATURE)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """R5', site to server: the result stands in this site's journal, Sig_u("recorded", sid, u, new model)."""

    session_id: bytes = wire(DIGEST)
    site_id: str = wire(NAME)
    signature: bytes = wire(SIGNATURE)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Site to server, at any stage: a fixed code, never a text. Sig_u("refusal", reference, u, code, about).

    ``reference`` is the session id, before one exists the order digest, and zeros where no message could be read (or
    the site is busy: it goes on, and the server must not count it out). ``about`` names the site whose
    data was at fault, where one can be named.
    """

    reference: bytes = wire(DIGEST)
    site_id: str = wire(NAME)
    code: int = wire(whole(1, 9999))
    about: str = wire(NAME_OR_NOTHING)
    signature: bytes = wire(SIGNATURE)

    @property
    def check(self) -> Check:
        """The check behind the code; an unknown code counts as an internal fault of the site."""
        return CHECK_OF_CODE.get(self.code, Check.ANY_INTERNAL)


MESSAGES: dict[Kind, type[Any]] = {
    Kind.ORDER: SignedOrder,
    Kind.KEYS: Keys,
    Kind.KEYLIST: Keylist,
    Kind.SHARES: Shares,
    Kind.FORWARD: Forward,
    Kind.MASKED: Masked,
    Kind.SURVIVORS: Survivors,
    Kind.CONSISTENT: Consistent,
    Kind.CERTIFICATE: Certificate,
    Kind.UNMASK: Unmask,
    Kind.RESULT: Result,
    Kind.RECORDED: Recorded,
    Kind.REFUSAL: Refusal,
}
KINDS: dict[type[Any], Kind] = {message: kind for kind, message in MESSAGES.items()}


def encode(message: Any) -> bytes:
    """Return the one encoding of a message of this module."""
    return pack([PROTOCOL, KINDS[type(message)], write_fields(message)])


def decode(octets: bytes, accepted: Collection[Kind], checks: CheckSet = ALL_CHECKS) -> tuple[Kind, Any]:
    """Return the kind and the message of ``octets``.

    Order: size, form, version, kind, fields, one encoding only; each is a check of its own.
    Raises: RefusedError (checks wire.* and any.kind), whatever the bytes.
    """
    checks.demand(Check.WIRE_SIZE, lambda: len(octets) <= MAX_MESSAGE_BYTES)
    try:
        plain = unpack(octets)
    except WireError:
        raise RefusedError(Check.WIRE_CANONICAL) from None
    if not (type(plain) is list and len(plain) == 3):
        raise RefusedError(Check.WIRE_FIELDS)
    version, kind_text, plain_fields = plain
    checks.demand(Check.WIRE_VERSION, lambda: version == PROTOCOL)
    kind = _kind(kind_text)
    checks.demand(Check.ANY_KIND, lambda: kind in accepted)
    try:
        message = read_fields(MESSAGES[kind], plain_fields)
    except WireError:
        raise RefusedError(Check.WIRE_FIELDS) from None
    checks.demand(Check.WIRE_CANONICAL, lambda: encode(message) == octets)
    return kind, message


def _kind(text: Any) -> Kind:
    if type(text) is str and text in MESSAGES:
        return Kind(text)
    raise RefusedError(Check.ANY_KIND)

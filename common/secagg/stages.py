"""The stages of one round as two tables: what each side may receive, what it answers, where it goes.

Law 1: whatever decides which message is legal when stands in the tables of this file, and nowhere else.
Law 2: this file knows no keys, no vectors and no network.

The server opens a stage by sending one kind of message to each site of a set, collects one kind of answer, and closes
the stage; who has not answered by then has dropped out. A site answers each message once. Both sides are DEAD or
ABORTED after any refusal: a site takes nothing but a new ORDER then, and an ORDER always starts from nothing.

    set   who                                     known from
    U0    the cohort                              ORDER
    U1    sent KEYS in time                       KEYLIST
    U2    sent SHARES in time                     FORWARD
    U3    sent MASKED in time: the sum's members  SURVIVORS
    U4    signed the same U3                      CERTIFICATE

``docs/protocol.md`` shows these tables as a diagram made by ``common.secagg.diagram``.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of message, by the name that travels."""

    ORDER = "order"
    KEYS = "keys"
    KEYLIST = "keylist"
    SHARES = "shares"
    FORWARD = "forward"
    MASKED = "masked"
    SURVIVORS = "survivors"
    CONSISTENT = "consistent"
    CERTIFICATE = "certificate"
    UNMASK = "unmask"
    RESULT = "result"
    RECORDED = "recorded"
    REFUSAL = "refusal"


class SiteStage(StrEnum):
    """Where a site's session stands, named by the last thing it did."""

    IDLE = "idle"
    KEYED = "keyed"
    SHARED = "shared"
    MASKED = "masked"
    CONSISTENT = "consistent"
    UNMASKED = "unmasked"
    DONE = "done"
    DEAD = "dead"


class ServerStage(StrEnum):
    """Where the server's session stands, named by what it waits for."""

    WAITING_FOR_KEYS = "waiting_for_keys"
    WAITING_FOR_SHARES = "waiting_for_shares"
    WAITING_FOR_MASKED = "waiting_for_masked"
    WAITING_FOR_CONSISTENT = "waiting_for_consistent"
    WAITING_FOR_UNMASK = "waiting_for_unmask"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class SiteTransition:
    """A site in some stage receives a message: its answer and its next stage."""

    answer: Kind
    goes_to: SiteStage


@dataclass(frozen=True, slots=True)
class ServerTransition:
    """The server in some stage: which answers it collects, what it sends when it closes the stage, and where it goes.

    ``sends`` is None at the end: closing the last stage opens the sum.
    """

    collects: Kind
    sends: Kind | None
    goes_to: ServerStage


SITE_TRANSITIONS: dict[tuple[SiteStage, Kind], SiteTransition] = {
    **{(stage, Kind.ORDER): SiteTransition(Kind.KEYS, SiteStage.KEYED) for stage in SiteStage},
    (SiteStage.KEYED, Kind.KEYLIST): SiteTransition(Kind.SHARES, SiteStage.SHARED),
    (SiteStage.SHARED, Kind.FORWARD): SiteTransition(Kind.MASKED, SiteStage.MASKED),
    (SiteStage.MASKED, Kind.SURVIVORS): SiteTransition(Kind.CONSISTENT, SiteStage.CONSISTENT),
    (SiteStage.CONSISTENT, Kind.CERTIFICATE): SiteTransition(Kind.UNMASK, SiteStage.UNMASKED),
    (SiteStage.UNMASKED, Kind.RESULT): SiteTransition(Kind.RECORDED, SiteStage.DONE),
}

SERVER_TRANSITIONS: dict[ServerStage, ServerTransition] = {
    ServerStage.WAITING_FOR_KEYS: ServerTransition(Kind.KEYS, Kind.KEYLIST, ServerStage.WAITING_FOR_SHARES),
    ServerStage.WAITING_FOR_SHARES: ServerTransition(Kind.SHARES, Kind.FORWARD, ServerStage.WAITING_FOR_MASKED),
    ServerStage.WAITING_FOR_MASKED: ServerTransition(Kind.MASKED, Kind.SURVIVORS, ServerStage.WAITING_FOR_CONSISTENT),
    ServerStage.WAITING_FOR_CONSISTENT: ServerTransition(
        Kind.CONSISTENT, Kind.CERTIFICATE, ServerStage.WAITING_FOR_UNMASK
    ),
    ServerStage.WAITING_FOR_UNMASK: ServerTransition(Kind.UNMASK, None, ServerStage.FINISHED),
}

SITE_RECEIVES = frozenset(kind for _, kind in SITE_TRANSITIONS)
SITE_SENDS = frozenset(transition.answer for transition in SITE_TRANSITIONS.values()) | {Kind.REFUSAL}


def site_transition(stage: SiteStage, kind: Kind) -> SiteTransition | None:
    """Return what a site in ``stage`` does with a message of ``kind``, or None where it must refuse it."""
    return SITE_TRANSITIONS.get((stage, kind))

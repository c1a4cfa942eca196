"""The site's half of secure aggregation: one object, bytes in, bytes out.

    session = SiteSession(policy=..., identity=..., journal=..., work=...)
    packet = session.receive(message, payload)      # for each message of the server, in whatever order it comes

Rules, whoever the server is:
1. The state is DEAD before a message is worked on and goes forward only when the answer stands complete.
2. Whatever is refused ends the session: secrets wiped, a signed fixed code as answer, nothing else. Only an ORDER
   starts another, and it wipes the old one first.
3. A message is answered once. The very same bytes again get the very same answer again; nothing is computed twice.
4. Secrets live in this object only. A restart of the process is a dropout.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.secagg.context import RoundWork, SiteContext
from client.secagg.journal import SiteJournal
from client.secagg.rules import SitePolicy
from client.secagg.state import (
    ConsistentState,
    IdleState,
    KeyedState,
    MaskedState,
    SharedState,
    SiteState,
    UnmaskedState,
    reference_of,
    wipe,
)
from client.secagg.steps import (
    answer_certificate,
    answer_forward,
    answer_keylist,
    answer_order,
    answer_result,
    answer_survivors,
)
from common.secagg.keys import sign
from common.secagg.messages import Packet, Refusal, decode, encode
from common.secagg.order import order_digest
from common.secagg.refusals import ALL_CHECKS, TABLE, Check, CheckSet, RefusedError
from common.secagg.stages import SITE_RECEIVES, Kind, SiteStage, site_transition
from common.secagg.statements import refusal_statement
from common.secagg.wire import MAX_MESSAGE_BYTES

_log = logging.getLogger("fedward.secagg")
_OWN_FAULTS = frozenset({Check.R0_CONTRIBUTION, Check.R0_FRESH, Check.R2_ENCODING, Check.R2_SPEND, Check.ANY_INTERNAL})


class SiteSession:
    """One site's half of the protocol, for one round after the other.

    Safe to call from several threads: a second message while one is worked on is refused as busy and changes nothing.
    Never raises for anything a message holds.
    """

    def __init__(
        self,
        *,
        policy: SitePolicy,
        identity: Ed25519PrivateKey,
        journal: SiteJournal,
        work: RoundWork,
        threads: int = 1,
        checks: CheckSet = ALL_CHECKS,
        entropy: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start idle.

        Args: policy, what may be asked of this site; identity, its Ed25519 key; journal, its durable memory; work,
        training and ledger; threads, how many mask the vector. ``checks``, ``entropy`` (a CSPRNG) and ``clock``
        (seconds since 1970) are for tests: no configuration reaches them.
        """
        self._site = SiteContext(policy, identity, journal, work, checks, entropy, clock, threads)
        self._stage = SiteStage.IDLE
        self._state: SiteState = IdleState()
        self._reference = bytes(32)
        self._last_message = b""
        self._last_answer = Packet(b"")
        self._turn = threading.Lock()

    @property
    def stage(self) -> SiteStage:
        """Where the session stands."""
        return self._stage

    def receive(
        self, message: bytes | memoryview, payload: bytes | memoryview = b"", *, came_s: float | None = None
    ) -> Packet:
        """Answer one message of the server; a refusal is an answer too (``Kind.REFUSAL``).

        Args: payload, the buffer beside the message: the model for an ORDER, empty for every other kind. It is not
        kept, and a view may come back released. The answer's payload is the masked vector for MASKED, empty otherwise.
        came_s, when the message came to this site, on the session's clock; None: now.
        """
        if not self._turn.acquire(blocking=False):
            return self._refusal(RefusedError(Check.ANY_BUSY), bytes(32))
        try:
            # one view from here on: the work under way lets go of the model by releasing it
            model = payload if isinstance(payload, memoryview) else memoryview(payload)
            came_s = self._site.clock() if came_s is None else came_s
            return self._answer(bytes(message[: MAX_MESSAGE_BYTES + 1]), model, came_s)
        finally:
            self._turn.release()

    def expire(self) -> bool:
        """Wipe the session if its deadline has passed; tell whether it did. The agent calls this now and then."""
        with self._turn:
            if isinstance(self._state, IdleState) or not self._is_late():
                return False
            self._die(Check.ANY_DEADLINE)
            return True

    def wipe(self) -> None:
        """End the session now: the site's staff paused it, or the agent stops.

        Waits for the message being worked on; whoever cannot wait for training makes ``work.contribute`` raise first.
        """
        with self._turn:
            self._die(Check.ANY_STAGE)

    def _answer(self, message: bytes, payload: memoryview, came_s: float) -> Packet:
        if message == self._last_message and message and not self._is_late():
            return self._last_answer
        stage, self._stage = self._stage, SiteStage.DEAD
        self._reference, fault = reference_of(self._state), RefusedError(Check.ANY_INTERNAL)
        try:
            next_stage, self._state, packet = self._step(stage, message, payload, came_s)
            self._stage, self._last_message, self._last_answer = next_stage, message, packet
        except RefusedError as refused:
            fault = refused
        except Exception as error:  # noqa: BLE001 (whatever it is, nothing of it may travel)
            _log.error("a message met a fault of this side (%s) at stage %s", type(error).__name__, stage)
        finally:
            # also on KeyboardInterrupt: no way out of here leaves secrets behind
            if self._stage is SiteStage.DEAD:
                self._die(fault.check)
        if self._stage is SiteStage.DEAD:
            cause = type(fault.__cause__).__name__ if fault.__cause__ else "nothing of ours"
            _log.warning("refused at stage %s by check %s, caused by %s", stage, fault.check, cause)
            return self._refusal(fault, self._reference)
        return packet

    def _step(
        self, stage: SiteStage, octets: bytes, payload: memoryview, came_s: float
    ) -> tuple[SiteStage, SiteState, Packet]:
        kind, message = decode(octets, SITE_RECEIVES, self._site.checks)
        transition = site_transition(stage, kind)
        self._site.checks.demand(Check.ANY_STAGE, lambda: transition is not None)
        if kind is Kind.ORDER:
            self._die(Check.ANY_STAGE)
            self._reference = order_digest(message.order)
            answer: tuple[SiteState, Packet] = answer_order(self._site, message, _flat(payload), came_s=came_s)
        else:
            self._check_session(kind, message, payload)
            answer = self._continue(kind, message)
        return (transition.goes_to if transition else SiteStage.DEAD), *answer

    def _check_session(self, kind: Kind, message: Any, payload: memoryview) -> None:
        claimed = message.order_digest if kind is Kind.KEYLIST else message.session_id
        checks = self._site.checks
        checks.demand(Check.ANY_PAYLOAD, lambda: payload.nbytes == 0)
        checks.demand(Check.ANY_SESSION, lambda: claimed == reference_of(self._state))
        checks.demand(Check.ANY_DEADLINE, lambda: not self._is_late())

    def _continue(self, kind: Kind, message: Any) -> tuple[SiteState, Packet]:
        match kind, self._state:
            case Kind.KEYLIST, KeyedState() as keyed:
                return answer_keylist(self._site, keyed, message)
            case Kind.FORWARD, SharedState() as shared:
                return answer_forward(self._site, shared, message)
            case Kind.SURVIVORS, MaskedState() as masked:
                return answer_survivors(self._site, masked, message)
            case Kind.CERTIFICATE, ConsistentState() as consistent:
                return answer_certificate(self._site, consistent, message)
            case Kind.RESULT, UnmaskedState() as unmasked:
                return answer_result(self._site, unmasked, message)
        raise TypeError("the table allows a message that this stage has no work for")

    def _is_late(self) -> bool:
        return not isinstance(self._state, IdleState) and self._site.clock() >= self._state.order.deadline_unix_s

    def _die(self, reason: Check) -> None:
        state, self._state, self._stage = self._state, IdleState(), SiteStage.DEAD
        self._last_message, self._last_answer = b"", Packet(b"")
        wipe(state)
        if isinstance(state, KeyedState | SharedState) and reason not in _OWN_FAULTS:
            try:
                self._site.work.abandon(state.order)
            except Exception as error:  # noqa: BLE001 (the ledger errs on the side of spent)
                _log.error("the ledger could not void an abandoned round (%s): it is spent", type(error).__name__)

    def _refusal(self, refused: RefusedError, reference: bytes) -> Packet:
        refusal = Refusal(
            reference=reference,
            site_id=self._site.policy.site_id,
            code=TABLE[refused.check].code,
            about=refused.about,
            signature=bytes(64),
        )
        signature = sign(self._site.identity, *refusal_statement(refusal))
        return Packet(encode(replace(refusal, signature=signature)), delay_s=refused.delay_s)


def _flat(payload: memoryview) -> memoryview:
    """Return the payload as bytes; itself where it is that already."""
    return payload if payload.format == "B" and payload.ndim == 1 else payload.cast("B")

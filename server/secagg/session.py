"""The server's half of secure aggregation: one object for one attempt at one round, bytes in, bytes out.

    server = ServerSession(order=..., order_key=..., identities=..., model=...)
    for site_id, packet in server.start().items(): ...              # ORDER and model to each site
    server.receive(message, payload)                                # for each answer that comes
    for site_id, packet in server.advance().items(): ...            # close the stage, open the next: four times
    opened = server.finish()                                        # the sum, checked
    for site_id, packet in server.announce(...).items(): ...        # RESULT

The server learns the sum and who took part. It waits as long as its caller likes: ``waiting_for`` names who has not
answered. Whoever has not when a stage is closed has dropped out; late and bad answers are refused and change nothing.
It holds one accumulator and the one vector that is being received. It does no waiting, no sending and no storing.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.secagg.accumulator import Accumulator
from common.secagg.keys import sign
from common.secagg.messages import Packet, Result, SignedOrder, decode, encode
from common.secagg.order import Order, encode_order, order_digest
from common.secagg.refusals import ALL_CHECKS, Check, CheckSet, RefusedError, RoundAbortedError
from common.secagg.stages import SERVER_TRANSITIONS, SITE_SENDS, Kind, ServerStage
from common.secagg.statements import order_statement, result_digest, result_statement
from common.secagg.wire import MAX_MESSAGE_BYTES
from server.secagg.checks import (
    check_consistent,
    check_keys,
    check_masked,
    check_recorded,
    check_refusal,
    check_shares,
    check_unmask,
)
from server.secagg.facts import RoundFacts
from server.secagg.lists import open_certificate, open_forward, open_keylist, open_survivors
from server.secagg.opening import LargestNorm, OpenedSum, check_norm, open_sum, unbounded
from server.secagg.own_order import check_order
from server.secagg.receipts import Receipt, SiteRefusal
from server.secagg.transcript import Transcript

_log = logging.getLogger("fedward.secagg")
_MOST_REJECTED = 1000


class ServerSession:
    """One attempt at one round; not safe for several threads at once.

    Attributes:
        refusals: what sites refused (site -> refusal). rejected: the last answers that this side refused.
        transcript: the signed messages so far. announced_digest: of the RESULT, once there is one.
    """

    def __init__(
        self,
        *,
        order: Order,
        order_key: Ed25519PrivateKey,
        identities: Mapping[str, bytes],
        model: bytes | memoryview,
        minimum_cohort: int = 3,
        announced: Mapping[int, bytes] = MappingProxyType({}),
        largest_norm: LargestNorm = unbounded,
        threads: int = 1,
        checks: CheckSet = ALL_CHECKS,
    ) -> None:
        """Prepare an attempt; its number must be durable before ``start`` is called.

        Args: order, complete; order_key, the key that the plan delegates; identities, the roster (site -> Ed25519
        public key); model, the trainable weights that travel with the order; minimum_cohort, n_min: the key list may
        not be shorter; announced, the RESULT's digest of each attempt that had one; largest_norm, of a sum over these
        sites, in units of the lattice. ``checks`` is for tests: no configuration reaches it.
        Raises: PlanWeakThresholdError, RosterInvalidError, VectorRefusedError, WeightsInvalidError for an order that
        no honest site would take.
        """
        check_order(order, identities, memoryview(model), minimum_cohort)
        octets = encode_order(order)
        self._order_message = SignedOrder(order=octets, signature=sign(order_key, *order_statement(octets)))
        self._order_key, self._checks, self._threads = order_key, checks, threads
        self._model: memoryview | None = memoryview(model)
        self._minimum_cohort, self._largest_norm = minimum_cohort, largest_norm
        self._facts = RoundFacts(order, order_digest(octets), identities, announced)
        self._sum = Accumulator(order.vector)
        self._stage = ServerStage.WAITING_FOR_KEYS
        self._expected = frozenset(order.cohort)
        self._result: Result | None = None  # of the opened sum, divisor and model still open
        self._announced, self.announced_digest = b"", b""
        self.refusals: dict[str, SiteRefusal] = {}
        self.rejected: deque[Receipt] = deque(maxlen=_MOST_REJECTED)
        self.recorded: set[str] = set()
        self.transcript = Transcript()

    @property
    def stage(self) -> ServerStage:
        """What the session waits for."""
        return self._stage

    @property
    def least(self) -> int:
        """The fewest sites that must answer the present stage."""
        order = self._facts.order
        if self._stage is ServerStage.WAITING_FOR_UNMASK:
            return order.threshold
        return max(order.least_set, self._minimum_cohort if self._stage is ServerStage.WAITING_FOR_KEYS else 0)

    @property
    def has_enough(self) -> bool:
        """Whether so many have answered that the stage can be closed."""
        return len(self._answers) >= self.least

    @property
    def ledger_heads(self) -> dict[str, bytes]:
        """The head of its ledger's chain that each site signed with its keys (32 bytes)."""
        return {site: keys.ledger_head for site, keys in self._facts.keys.items()}

    @property
    def dealers(self) -> tuple[str, ...]:
        """U2, sorted: whose secrets the sum needs."""
        return tuple(sorted(self._facts.shares))

    @property
    def summed(self) -> tuple[str, ...]:
        """U3, sorted: whose vectors were added; complete once that stage is closed."""
        return tuple(sorted(self._facts.masked))

    @property
    def waiting_for(self) -> frozenset[str]:
        """The sites that may still answer in this stage."""
        return self._expected - set(self._answers) - set(self.refusals)

    def start(self) -> dict[str, Packet]:
        """Return the ORDER, the same for each site of the cohort, with the model as payload, which is not kept.

        Raises: RuntimeError when it was handed out already.
        """
        if self._model is None:
            raise RuntimeError("the order was handed out already")
        packet, self._model = Packet(encode(self._order_message), self._model), None
        self.transcript.add("", packet.message)
        return dict.fromkeys(self._facts.order.cohort, packet)

    def receive(self, message: bytes | memoryview, payload: bytes | memoryview = b"") -> Receipt:
        """Take one answer of one site, or refuse it; never raises for anything it holds.

        A masked vector is added to the sum at once; the buffer is not kept.
        """
        octets, site_id, check = bytes(message[: MAX_MESSAGE_BYTES + 1]), "", Check.ANY_INTERNAL
        try:
            kind, incoming = decode(octets, SITE_SENDS, self._checks)
            site_id = incoming.site_id
            self._take(kind, incoming, memoryview(payload))
        except RefusedError as refused:
            check = refused.check
        except Exception as error:  # noqa: BLE001 (a fault of ours must not end the round of all)
            _log.error("an answer met a fault of this side (%s) at stage %s", type(error).__name__, self._stage)
        else:
            self.transcript.add(site_id, octets)
            return Receipt(site_id, None)
        self.rejected.append(Receipt(site_id, check))
        return self.rejected[-1]

    def advance(self) -> dict[str, Packet]:
        """Close the stage and return the next message for each site that is still in.

        Raises: RoundAbortedError (check C.too_few) if too few answered; RuntimeError in a stage that only ``finish``
        ends, or after the end.
        """
        if self._stage not in _OPENINGS:
            raise RuntimeError(f"there is no next message in stage {self._stage}")
        self._demand_enough()
        packets = _OPENINGS[self._stage](self._facts)
        self._expected = frozenset(packets)
        self._stage = SERVER_TRANSITIONS[self._stage].goes_to
        return packets

    def finish(self) -> OpenedSum:
        """Close the last stage: rebuild the masks, remove them, check the sum and return it; it is not kept.

        Raises: RoundAbortedError with C.too_few, C.seed or C.mask_key (naming the dealer), C.sum or C.norm;
        RuntimeError in another stage.
        """
        if self._stage is not ServerStage.WAITING_FOR_UNMASK:
            raise RuntimeError(f"nothing can be opened in stage {self._stage}")
        self._demand_enough()
        self._stage = ServerStage.ABORTED
        opened = open_sum(self._facts, self._sum, checks=self._checks, threads=self._threads)
        check_norm(self._checks, opened, self._largest_norm)
        self._result = Result(
            session_id=opened.session_id,
            survivors_digest=opened.survivors_digest,
            sum_digest=opened.sum_digest,
            divisor=math.nan,
            model_digest=bytes(32),
            signature=bytes(64),
        )
        self._stage = ServerStage.FINISHED
        return opened

    def announce(self, *, model_digest: bytes, divisor: float) -> dict[str, Packet]:
        """Return the signed RESULT for each site that helped to unmask: the next ORDER must bring ``model_digest``.

        Raises: RuntimeError before ``finish``.
        """
        if self._result is None:
            raise RuntimeError("there is no sum to announce yet")
        result = replace(self._result, divisor=float(divisor), model_digest=model_digest)
        result = replace(result, signature=sign(self._order_key, *result_statement(result)))
        self._announced = model_digest
        self.announced_digest = result_digest(result)
        packet = Packet(encode(result))
        self.transcript.add("", packet.message)
        return dict.fromkeys(sorted(self._facts.unmask), packet)

    @property
    def _answers(self) -> dict[str, Any]:
        """The accepted answers of the present stage, by site."""
        facts = self._facts
        answers: dict[ServerStage, dict[str, Any]] = {
            ServerStage.WAITING_FOR_KEYS: facts.keys,
            ServerStage.WAITING_FOR_SHARES: facts.shares,
            ServerStage.WAITING_FOR_MASKED: facts.masked,
            ServerStage.WAITING_FOR_CONSISTENT: facts.consistent,
            ServerStage.WAITING_FOR_UNMASK: facts.unmask,
        }
        return answers.get(self._stage, {})

    def _take(self, kind: Kind, incoming: Any, payload: memoryview) -> None:
        """Refuse or keep one answer. Order: who, which session, which stage, once, then what it says."""
        checks, facts = self._checks, self._facts
        checks.demand(Check.C_SITE, lambda: incoming.site_id in self._expected)
        checks.demand(Check.ANY_PAYLOAD, lambda: kind is Kind.MASKED or payload.nbytes == 0)
        if kind is Kind.REFUSAL:
            checks.demand(Check.C_ONCE, lambda: incoming.site_id not in self.refusals)
            check_refusal(checks, facts, incoming)
            self.refusals[incoming.site_id] = SiteRefusal(self._stage, incoming.check, incoming.about)
            return
        if kind is not Kind.KEYS:
            checks.demand(Check.ANY_SESSION, lambda: incoming.session_id == facts.session_id)
        if kind is Kind.RECORDED:
            checks.demand(Check.C_ONCE, lambda: incoming.site_id not in self.recorded)
            check_recorded(checks, facts, incoming, self._announced)
            self.recorded.add(incoming.site_id)
            return
        step = SERVER_TRANSITIONS.get(self._stage)
        checks.demand(Check.C_STAGE, lambda: step is not None and step.collects is kind)
        checks.demand(Check.C_ONCE, lambda: incoming.site_id in self.waiting_for)
        self._check_content(kind, incoming, payload)
        self._answers[incoming.site_id] = incoming

    def _check_content(self, kind: Kind, incoming: Any, payload: memoryview) -> None:
        checks, facts = self._checks, self._facts
        if kind is Kind.MASKED:
            check_masked(checks, facts, incoming, payload)
            self._sum.add(payload)
        elif kind is Kind.KEYS:
            check_keys(checks, facts, incoming)
        elif kind is Kind.SHARES:
            check_shares(checks, facts, incoming)
        elif kind is Kind.CONSISTENT:
            check_consistent(checks, facts, incoming)
        else:
            check_unmask(checks, facts, incoming)

    def _demand_enough(self) -> None:
        order, present = self._facts.order, len(self._answers)
        needed = self.least
        if not self._checks.passes(Check.C_TOO_FEW, lambda: present >= needed):
            stage, self._stage = self._stage, ServerStage.ABORTED
            # who was told something else is not at fault
            at_fault = (each for each in self.refusals.values() if each.check is not Check.R1_RESULTS)
            blamed = tuple(sorted({refusal.about for refusal in at_fault} - {""}))
            sentence = f"{present} of {len(order.cohort)} sites are left in stage {stage}, {needed} are needed"
            raise RoundAbortedError(Check.C_TOO_FEW, f"{sentence}; order a new attempt", suspects=blamed)


_OPENINGS: dict[ServerStage, Callable[[RoundFacts], dict[str, Packet]]] = {
    ServerStage.WAITING_FOR_KEYS: open_keylist,
    ServerStage.WAITING_FOR_SHARES: open_forward,
    ServerStage.WAITING_FOR_MASKED: open_survivors,
    ServerStage.WAITING_FOR_CONSISTENT: open_certificate,
}

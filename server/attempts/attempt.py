"""One attempt at a round: each stage sent, each answer handed to the session, each outcome noted."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from common.flower.messages import Received
from common.secagg.messages import Packet
from common.secagg.refusals import TABLE, Check
from common.secagg.stages import Kind
from server.attempts.channel import Channel
from server.attempts.exchange import NOBODY_LATE, SLOW, TAKEN, TIMEOUT, First, Late
from server.attempts.stage import GARBAGE, Asked, Stage, StageSettings
from server.secagg.opening import OpenedSum
from server.secagg.session import ServerSession
from server.study.events import AttemptStart, RoundEvents
from server.study.journal_rows import AnswerRow, Details, HeadRow, OpenedRow, RefusalRow


@dataclass(frozen=True)
class Patience:
    """Who is ordered first, and how long the slowest are waited for (``server.attempts.exchange``).

    ``first`` are ordered before all others: these ``head_start_s`` later, or when the first have answered and enough
    are left. ``slow_multiple``: of the plan, in effect after ``least_s`` of a stage.
    """

    first: tuple[str, ...] = ()
    head_start_s: float = 0.0
    slow_multiple: float = 0.0
    least_s: float = 0.0


class Attempt:
    """Carries one ``ServerSession`` over the channel.

    Attributes: start, its number, round and cohort; whole, the sites that could have taken part; session; answers,
    what became of each question, in order; forwarded, whether shares went out, so that masked vectors may have left.
    """

    def __init__(
        self,
        channel: Channel,
        session: ServerSession,
        events: RoundEvents,
        *,
        start: AttemptStart,
        whole: tuple[str, ...],
        patience: Patience,
        forwards: Callable[[int], None],
    ) -> None:
        """``forwards``: makes durable that the attempt of this number is charged, before its shares leave."""
        self._channel, self._events, self._began_s = channel, events, time.monotonic()
        self.session, self.start, self.whole = session, start, whole
        self.patience, self._forwards, self.forwarded = patience, forwards, False
        self.answers: list[AnswerRow] = []

    @property
    def number(self) -> int:
        """The attempt's number."""
        return self.start.attempt

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._began_s

    def ask(self, kind: Kind, packets: dict[str, Packet], timeout_s: float, *, reply_bytes: int = 0) -> None:
        """Send one stage and hand every answer to the session as it comes; returns when all are in, or it is time.

        ``packets`` is empty afterwards. ``reply_bytes``: the payload that an answer brings (0: none).
        """
        self._events.on_stage(kind.value, tuple(packets), timeout_s)
        stage = self.stage(kind, packets, timeout_s, reply_bytes=reply_bytes)
        packets.clear()  # the model is in Flower's message now; the caller may still hold what it handed over
        patience, is_order = self.patience, kind is Kind.ORDER
        first = First(patience.first if is_order else (), patience.head_start_s, self._can_have_enough)
        late = Late(patience.slow_multiple, patience.least_s, lambda: self.session.has_enough)
        self._channel.ask(stage, first=first, late=NOBODY_LATE if kind is Kind.RESULT else late)

    def stage(self, kind: Kind, packets: Mapping[str, Packet], timeout_s: float, *, reply_bytes: int = 0) -> Stage:
        """Return one stage without sending it or telling anybody; arguments as for ``ask``."""

        def note(site: str, asked: Asked) -> None:
            sizes = asked.bytes_to_site, asked.bytes_from_site
            self.answers.append(AnswerRow(self.number, kind.value, site, asked.outcome, *sizes, asked.seconds))
            self._events.on_answer(self.answers[-1])

        if kind is Kind.FORWARD:
            self._forwards(self.number)
            self.forwarded = True
        nodes = dict(self._channel.nodes)
        take = partial(self._take, nodes)
        settings = StageSettings(kind, timeout_s, str(self.number), take, note, reply_bytes)
        return Stage(packets, nodes, settings)

    def _can_have_enough(self) -> bool:
        """Tell whether the order can still be answered by enough sites."""
        lost = {row.site for row in self.answers if row.outcome != TAKEN}
        return len(set(self.start.cohort) - lost) >= self.session.least

    @property
    def silent(self) -> set[str]:
        """The sites that let a timeout pass, or took so much longer than others that nobody waited."""
        return {row.site for row in self.answers if row.outcome in {TIMEOUT, SLOW}}

    @property
    def spoke(self) -> set[str]:
        """The sites that answered something."""
        return {row.site for row in self.answers if row.bytes_from_site > 0}

    @property
    def doubtful(self) -> set[str]:
        """The sites at whose node somebody else may sit: bytes that are not a site's, or a site nobody asked."""
        return {row.site for row in self.answers if row.outcome in {GARBAGE, f"rejected:{Check.C_SITE}"}}

    def refusals(self) -> list[RefusalRow]:
        """Return the signed refusals of this attempt."""
        return [
            RefusalRow(self.number, site, refusal.stage.value, TABLE[refusal.check].code, refusal.about)
            for site, refusal in sorted(self.session.refusals.items())
        ]

    def details(self) -> Details:
        """Return what the journal keeps of this attempt besides its end."""
        heads = [HeadRow(self.number, site, head) for site, head in sorted(self.session.ledger_heads.items())]
        return Details(self.answers, self.refusals(), heads)

    def opened_row(self, opened: OpenedSum) -> OpenedRow:
        """Return the journal's row of the sum."""
        return OpenedRow(
            attempt=self.number,
            participants=opened.participants,
            dropped=opened.dropped,
            sum_digest=opened.sum_digest,
            session_id=opened.session_id,
            survivors_digest=opened.survivors_digest,
            transcript_digest=self.session.transcript.digest(),
            meta=opened.total.meta,
        )

    def _take(self, nodes: Mapping[str, int], site: str, received: Received) -> str:
        receipt = self.session.receive(received.message, received.payload)
        if receipt.check is not None:
            return f"rejected:{receipt.check}"
        if receipt.site_id != site:
            # it counts for the site that signed it, which is then found at this node
            self._channel.claim(receipt.site_id, at=nodes[site])
            return "rejected:site"
        refusal = self.session.refusals.get(site)
        return f"refused:{refusal.check}" if refusal else TAKEN

"""One question to each of some nodes, and their answers as they come: works on any of Flower's grids.

Flower's own ``send_and_receive`` sleeps three seconds between looks, holds all replies at once, and lets one bad push
end the exchange. Here each push and each reply stands alone: whatever goes wrong with one node becomes that node's
outcome. Replies are mapped by the identifier of the question, because errors that the infrastructure sends come from
node 1; a late reply finds nobody who waits for it.
"""

import logging
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from flwr.app import Message
from flwr.serverapp import Grid

_log = logging.getLogger("fedward.exchange")

TAKEN = "taken"
TIMEOUT = "timeout"
SLOW = "slow"  # others were there, and it took much longer than they
FIRST_POLL_S = 0.002
POLL_GROWTH = 1.5

Take = Callable[[str, Message], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one question, and after how many seconds."""

    what: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How patiently answers are looked for.

    ``longest_poll_s``: the pause between two looks grows to this while nothing comes, from ``first_poll_s``. ``batch``:
    most replies taken from the grid at once, so that large ones are not all in memory together.
    """

    longest_poll_s: float = 0.2
    batch: int = 1000
    first_poll_s: float = FIRST_POLL_S


@dataclass(frozen=True, slots=True)
class First:
    """``sites`` are asked before the others: those ``head_start_s`` later, or as soon as the first have answered.

    ``is_enough`` is then asked; where it says no, the others are not asked at all: their work would be in vain.
    """

    sites: Collection[str] = ()
    head_start_s: float = 0.0
    is_enough: Callable[[], bool] = lambda: True


NOBODY_FIRST: Final = First()


@dataclass(frozen=True, slots=True)
class Late:
    """Who takes longer than ``multiple`` times the median of those who answered is not waited for (0: always is).

    Only once ``is_enough``, and never before ``least_s``, so that short stages do not hang on chance.
    """

    multiple: float = 0.0
    least_s: float = 0.0
    is_enough: Callable[[], bool] = lambda: False

    def after_s(self, seconds: Sequence[float]) -> float:
        """Return after how long the rest is late, where those who answered took ``seconds``."""
        if self.multiple == 0 or not seconds or not self.is_enough():
            return math.inf
        return max(self.least_s, self.multiple * statistics.median(seconds))


NOBODY_LATE: Final = Late()


def exchange(
    grid: Grid,
    questions: dict[str, Message],
    take: Take,
    *,
    timeout_s: float,
    pace: Pace,
    settled: Callable[[str, Outcome], None] = lambda _site, _outcome: None,
    first: First = NOBODY_FIRST,
    late: Late = NOBODY_LATE,
) -> dict[str, Outcome]:
    """Send each question (by site name), hand each reply to ``take`` as it comes, and return every site's outcome.

    ``questions`` is empty afterwards: each is let go once it was sent, because a model may be in it, and so is each
    reply before the next is fetched.

    ``take`` returns the outcome of a reply with content. Outcomes otherwise: ``failed:push``, ``failed:<Flower's error
    code>``, ``timeout``, ``slow``. ``settled`` is called with each as soon as it is known. Who was not asked
    (``first``) has none. Returns when all have answered, or the rest is ``late``, or after ``timeout_s`` seconds.
    """
    now = [site for site in questions if site in first.sites or not first.sites]
    asking = _Asking(grid, questions, take, settled, later=[site for site in questions if site not in now])
    asking.send(now)
    pause_s = pace.first_poll_s
    while asking.goes_on and (left_s := timeout_s - asking.seconds) > 0:
        if asking.later and (not asking.waiting or asking.seconds >= first.head_start_s):
            if not first.is_enough():
                asking.let_go()
                break
            asking.send_later()
        before, looked_s = len(asking.waiting), time.monotonic()
        asking.collect(pace.batch)
        pause_s = pace.first_poll_s if len(asking.waiting) < before else min(pause_s * POLL_GROWTH, pace.longest_poll_s)
        if not asking.later and asking.seconds >= late.after_s(asking.took_s):
            asking.settle_rest(SLOW)
        rest_s = pause_s - (time.monotonic() - looked_s)  # a grid that itself waits for answers has paused enough
        if asking.waiting and rest_s > 0:
            time.sleep(min(rest_s, max(left_s, 0.0)))
    asking.settle_rest(TIMEOUT)
    return asking.outcomes


class _Asking:
    """The questions that are out. ``later``: who is asked later; ``took_s``: how long answers took that were taken."""

    def __init__(
        self,
        grid: Grid,
        questions: dict[str, Message],
        take: Take,
        settled: Callable[[str, Outcome], None],
        *,
        later: list[str],
    ) -> None:
        self._grid, self._questions, self._take, self._settled = grid, questions, take, settled
        self._started = time.monotonic()
        self.later, self.waiting = later, dict[str, str]()
        self.outcomes: dict[str, Outcome] = {}

    @property
    def seconds(self) -> float:
        """How long ago the first question was sent."""
        return time.monotonic() - self._started

    @property
    def goes_on(self) -> bool:
        """Whether an answer may still come."""
        return bool(self.waiting or self.later)

    @property
    def took_s(self) -> list[float]:
        """After how many seconds each answer came that was taken."""
        return [outcome.seconds for outcome in self.outcomes.values() if outcome.what == TAKEN]

    def send(self, sites: Iterable[str]) -> None:
        """Send the questions of these sites, and let go of them."""
        for site in list(sites):
            identifier = _push(self._grid, self._questions.pop(site))
            if identifier:
                self.waiting[identifier] = site
            else:
                self._settle(site, "failed:push")

    def send_later(self) -> None:
        """Send the questions that were held back."""
        later, self.later = self.later, []
        self.send(later)

    def collect(self, batch: int) -> None:
        """Take what has come."""
        for reply in _replies(self._grid, list(self.waiting), batch):
            site = self.waiting.pop(reply.metadata.reply_to_message_id, None)
            if site is not None:
                self._settle(site, f"failed:{reply.error.code}" if reply.has_error() else self._take(site, reply))
            del reply

    def let_go(self) -> None:
        """Wait for nobody any more, and ask nobody else."""
        self._questions.clear()
        self.waiting, self.later = {}, []

    def settle_rest(self, what: str) -> None:
        """Note what became of all who have not answered."""
        for site in self.waiting.values():
            self._settle(site, what)
        self.waiting = {}

    def _settle(self, site: str, what: str) -> None:
        self.outcomes[site] = Outcome(what, self.seconds)
        self._settled(site, self.outcomes[site])


def _push(grid: Grid, question: Message) -> str:
    """Send one question; "" where the grid does not take it. One by one, because some grids leave rejected ones out."""
    try:
        identifiers = list(grid.push_messages([question]))
    except Exception as error:  # noqa: BLE001 (a node that cannot be reached is that node's outcome)
        _log.warning("a question could not be sent (%s)", type(error).__name__)
        return ""
    return identifiers[0] if identifiers and identifiers[0] else ""


def _replies(grid: Grid, identifiers: list[str], batch: int) -> Iterator[Message]:
    """Yield what has come; a grid that is away for a moment (a restart of the SuperLink) counts as nothing come."""
    for start in range(0, len(identifiers), batch):
        try:
            replies = list(grid.pull_messages(identifiers[start : start + batch]))[::-1]
        except Exception as error:  # noqa: BLE001 (see above)
            _log.warning("answers could not be fetched (%s)", type(error).__name__)
            return
        while replies:
            yield replies.pop()  # nobody else holds it, so a vector is gone once it was added

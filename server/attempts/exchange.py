"""One question to each of some nodes, and their answers as they come: works on any of Flower's grids.

Flower's own ``send_and_receive`` sleeps three seconds between looks, holds all replies at once, and lets one bad push
end the exchange. Here each push and each reply stands alone: whatever goes wrong with one node becomes that node's
outcome. Replies are mapped by the identifier of the question, because errors that the infrastructure sends come from
node 1; a late reply finds nobody who waits for it.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

_log = logging.getLogger("fedward.exchange")

TAKEN = "taken"
TIMEOUT = "timeout"
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


def exchange(
    grid: Grid,
    questions: dict[str, Message],
    take: Take,
    *,
    timeout_s: float,
    pace: Pace,
    settled: Callable[[str, Outcome], None] = lambda _site, _outcome: None,
) -> dict[str, Outcome]:
    """Send each question (by site name), hand each reply to ``take`` as it comes, and return every site's outcome.

    ``questions`` is empty afterwards: each is let go once it was sent, because a model may be in it, and so is each
    reply before the next is fetched.

    ``take`` returns the outcome of a reply with content. Outcomes otherwise: ``failed:push``, ``failed:<Flower's error
    code>``, ``timeout``. ``settled`` is called with each as soon as it is known.
    Returns when all have answered, or after ``timeout_s`` seconds.
    """
    started = time.monotonic()
    outcomes: dict[str, Outcome] = {}

    def settle(site: str, what: str) -> None:
        outcomes[site] = Outcome(what, time.monotonic() - started)
        settled(site, outcomes[site])

    waiting: dict[str, str] = {}
    for site in list(questions):
        identifier = _push(grid, questions.pop(site))
        if identifier:
            waiting[identifier] = site
        else:
            settle(site, "failed:push")
    pause_s = pace.first_poll_s
    while waiting and (left_s := started + timeout_s - time.monotonic()) > 0:
        before, looked_s = len(waiting), time.monotonic()
        for reply in _replies(grid, list(waiting), pace.batch):
            answered = waiting.pop(reply.metadata.reply_to_message_id, None)
            if answered is not None:
                settle(answered, f"failed:{reply.error.code}" if reply.has_error() else take(answered, reply))
            del reply
        pause_s = pace.first_poll_s if len(waiting) < before else min(pause_s * POLL_GROWTH, pace.longest_poll_s)
        rest_s = pause_s - (time.monotonic() - looked_s)  # a grid that itself waits for answers has paused enough
        if waiting and rest_s > 0:
            time.sleep(min(rest_s, max(left_s, 0.0)))
    for site in waiting.values():
        settle(site, TIMEOUT)
    return outcomes


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

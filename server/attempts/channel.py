"""The way to the sites over one of Flower's grids: who is at which node, and one stage at a time."""

import logging
import os
import time
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from common.flower.errors import ContentRefusedError
from common.flower.messages import HELLO_TYPE, NONCE_BYTES, hello_question, read_hello
from common.trust.provenance import code_digest
from server.attempts.exchange import (
    FIRST_POLL_S,
    NOBODY_FIRST,
    NOBODY_LATE,
    TAKEN,
    First,
    Late,
    Outcome,
    Pace,
    exchange,
)
from server.attempts.stage import GARBAGE, TTL_MARGIN_S, Stage

_log = logging.getLogger("fedward.channel")

GREET_AGAIN_S = 30.0  # a node that does not say who it is must not hold up every round
LARGEST_BATCH_BYTES = 64 << 20


@dataclass(eq=False)
class Channel:
    """The nodes of a grid by site.

    Args: grid; names, the sites of the plan; longest_poll_s and first_poll_s, see ``server.attempts.exchange.Pace``;
    hello_timeout_s.
    Attributes: nodes, site -> node, as claimed in a hello: a site proves itself by the signature under its KEYS.
    """

    grid: Grid
    names: frozenset[str]
    longest_poll_s: float = 0.2
    hello_timeout_s: float = 30.0
    first_poll_s: float = FIRST_POLL_S
    nodes: dict[str, int] = field(default_factory=dict)
    _greeted_at_s: dict[int, float] = field(default_factory=dict)

    def online(self) -> tuple[str, ...]:
        """Return the sites that can be reached now, sorted; nodes that are new are asked who they are."""
        present = set(self.grid.get_node_ids())
        self.nodes = {site: node for site, node in self.nodes.items() if node in present}
        now_s = time.monotonic()
        strangers = [
            node
            for node in sorted(present - set(self.nodes.values()))
            if now_s >= self._greeted_at_s.get(node, -GREET_AGAIN_S) + GREET_AGAIN_S
        ]
        if strangers:
            self._greeted_at_s |= dict.fromkeys(strangers, now_s)
            self._greet(strangers)
        return tuple(sorted(self.nodes))

    def claim(self, site: str, *, at: int) -> None:
        """Take it that ``site`` is at node ``at``: its signature came from there, which is more than a hello's word."""
        self.nodes = {name: node for name, node in self.nodes.items() if node != at} | {site: at}

    def doubt(self, site: str) -> None:
        """Forget where a site is, because what came from there was not its own; ask the nodes without a name first."""
        node = self.nodes.pop(site, None)
        if node is not None:
            self._greeted_at_s = {node: time.monotonic()}

    def ask(self, *stages: Stage, first: First = NOBODY_FIRST, late: Late = NOBODY_LATE) -> None:
        """Send a stage's questions and read every answer as it comes; returns when all are in, or it is time.

        Several stages are those of several attempts: one kind, one timeout, no site in two of them. ``first``: who is
        asked before the others; ``late``: who is not waited for (``server.attempts.exchange``).

        Outcomes: what the stage's ``take`` returned, ``rejected:content``, those of ``server.attempts.exchange``, and
        ``failed:offline`` for a site without a node.
        """
        settings, of = stages[0].settings, {site: stage for stage in stages for site in stage.sites}
        pace = Pace(
            self.longest_poll_s,
            max(1, LARGEST_BATCH_BYTES // (settings.reply_bytes + 1)),
            first_poll_s=self.first_poll_s,
        )
        questions: dict[str, Message] = {}
        for stage in stages:
            for site in stage.offline:
                stage.settle(site, Outcome("failed:offline", 0.0))
            questions |= stage.questions
            stage.questions.clear()  # each is let go once it was sent

        def read(site: str, reply: Message) -> str:
            return of[site].read(site, reply)

        def settle(site: str, outcome: Outcome) -> None:
            of[site].settle(site, outcome)

        exchange(
            self.grid, questions, read, timeout_s=settings.timeout_s, pace=pace, settled=settle, first=first, late=late
        )

    def _greet(self, nodes: list[int]) -> None:
        nonces = {str(node): os.urandom(NONCE_BYTES) for node in nodes}

        def read(node: str, reply: Message) -> str:
            try:
                nonce, hello = read_hello(reply.content)
            except ContentRefusedError:
                return GARBAGE
            # first come, first kept: a second node with the same name gets it only after ``forget``
            if nonce != nonces[node] or hello.site_id not in self.names or hello.site_id in self.nodes:
                return GARBAGE
            if hello.code_digest != code_digest():
                _log.warning("%s runs other sources of `common` than this server", hello.site_id)
            self.nodes[hello.site_id] = int(node)
            return TAKEN

        questions = {node: self._hello(int(node), nonce) for node, nonce in nonces.items()}
        pace = Pace(self.longest_poll_s, first_poll_s=self.first_poll_s)
        outcomes = exchange(self.grid, questions, read, timeout_s=self.hello_timeout_s, pace=pace)
        for node, outcome in outcomes.items():
            if outcome.what != TAKEN:
                _log.warning("node %s did not say who it is: %s", node, outcome.what)

    def _hello(self, node: int, nonce: bytes) -> Message:
        ttl_s = self.hello_timeout_s + TTL_MARGIN_S
        return Message(hello_question(nonce), node, HELLO_TYPE, ttl=ttl_s, group_id="hello")

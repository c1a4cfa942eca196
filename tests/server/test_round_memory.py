"""What a round lets go of, and when: a model or a vector of 100 MB must not outlive the moment it is needed."""

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from common.flower.messages import from_content
from common.secagg.messages import Packet
from common.secagg.stages import Kind
from server.attempts.attempt import Attempt, Patience
from server.attempts.channel import Channel
from server.attempts.exchange import TAKEN, Pace, exchange
from server.attempts.stage import Stage, StageSettings
from server.study.events import AttemptStart, LoggedEvents
from simulation.runtime.secagg_federation import new_federation

NODES = {"east": 11, "north": 12, "west": 13}
START = AttemptStart(1, 0, "train", 1, 1, False, tuple(NODES))


@pytest.fixture(autouse=True)
def _exact_lifetimes():
    """Only reference counts free anything here, as in a process that has no time to collect."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class ForgetfulGrid:
    """Sends by forgetting; every reply brings a payload. ``alive`` counts, at each call, what came before it."""

    def __init__(self):
        self.questions, self.replies, self.alive = [], [], []

    def push_messages(self, messages):
        self.look(self.questions)
        identifiers = []
        for message in messages:
            identifiers.append(f"id-{len(self.questions)}")
            self.questions.append(weakref.ref(message))
        del message
        return identifiers

    def pull_messages(self, identifiers):
        self.look(self.replies)
        settings = StageSettings(Kind.FORWARD, 1.0, "1", lambda *_: TAKEN, lambda *_: None)
        question = Stage({"east": Packet(b"m", memoryview(bytes(1000)))}, NODES, settings).questions["east"]
        question.metadata.__dict__["_message_id"] = identifiers[0]
        reply = Message(question.content, reply_to=question)
        self.replies.append(weakref.ref(reply))
        return [reply]

    def look(self, earlier):
        self.alive.append(sum(each() is not None for each in earlier))


def test_a_question_is_let_go_once_it_is_sent_and_a_reply_before_the_next_is_fetched():
    grid = ForgetfulGrid()
    settings = StageSettings(Kind.ORDER, 1.0, "1", lambda *_: TAKEN, lambda *_: None)
    questions = Stage(dict.fromkeys(NODES, Packet(b"m", memoryview(bytes(1000)))), NODES, settings).questions
    outcomes = exchange(grid, questions, lambda *_: TAKEN, timeout_s=5.0, pace=Pace(0.01, 1))
    assert [outcome.what for outcome in outcomes.values()] == [TAKEN] * 3
    assert len(grid.questions) == len(grid.replies) == 3
    assert set(grid.alive) == {0}


class Listener(Channel):
    """A channel that notes, when it is asked, whether the model behind the packets is still there."""

    def ask(self, stage, **_how):
        self.model_alive = self.model() is not None
        content = next(iter(stage.questions.values())).content
        self.payload = bytes(from_content(content, max_payload_bytes=1000).payload)


def test_the_model_is_let_go_before_its_order_is_sent():
    def packets():
        model = np.arange(100, dtype=np.uint8)
        channel.model = weakref.ref(model)
        return dict.fromkeys(NODES, Packet(b"order", model.data))

    channel = Listener(None, frozenset(NODES), nodes=NODES)
    attempt = Attempt(channel, None, LoggedEvents(), start=START, whole=tuple(NODES), patience=Patience(),
                      forwards=lambda _: None)  # fmt: skip
    attempt.ask(Kind.ORDER, packets(), 1.0)
    assert channel.payload == bytes(range(100))
    assert not channel.model_alive


def test_a_session_hands_its_order_out_once_and_keeps_neither_model_nor_sum(tmp_path: Path) -> None:
    federation = new_federation(4, tmp_path)
    server = federation.new_server(federation.new_order())
    packets = server.start()
    with pytest.raises(RuntimeError, match="handed out already"):
        server.start()
    federation.deliver(server, packets)
    for _ in range(4):
        federation.deliver(server, server.advance())
    opened = server.finish()
    body = weakref.ref(opened.total.body_sum)
    del opened
    assert body() is None
    assert set(server.announce(model_digest=bytes(32), divisor=1.0)) == set(federation.order.cohort)

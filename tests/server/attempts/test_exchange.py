"""One question each, every reply on its own: whatever one node does, the others are heard."""

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from server.attempts.exchange import TAKEN, TIMEOUT, Pace, exchange

NODES = {"east": 11, "north": 12, "west": 13}
PACE = Pace(longest_poll_s=0.01)


@pytest.fixture(autouse=True)
def _task():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def content(text):
    return RecordDict({"said": ConfigRecord({"text": text})})


class ScriptedGrid:
    """The two calls of Flower's Grid that an exchange uses. ``script``: node -> what it does; default: it answers.

    ``pulls`` notes how many identifiers each pull asked for.
    """

    def __init__(self, **script):
        self.script = {NODES[site]: action for site, action in script.items()}
        self.questions, self.pulls, self.held = {}, [], []

    def push_messages(self, messages):
        identifiers = []
        for message in messages:
            action = self.script.get(message.metadata.dst_node_id)
            if action == "push raises":
                raise RuntimeError("the text must not matter")
            if action == "push is left out":  # as InMemoryGrid does it
                continue
            identifier = "" if action == "push is empty" else f"id-{len(self.questions)}"  # "": as HttpGrid does it
            message.metadata.__dict__["_message_id"] = identifier
            self.questions[identifier] = message
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, identifiers):
        self.pulls.append(len(identifiers))
        if self.script.get("first pull") == "raises" and len(self.pulls) == 1:
            raise ConnectionError
        replies = [reply for identifier in identifiers for reply in self.replies_to(identifier)]
        self.held.append(len(replies))
        return replies

    def replies_to(self, identifier):
        question = self.questions[identifier]
        action = self.script.get(question.metadata.dst_node_id, "answers")
        if action == "hangs":
            return []
        if action == "error from node 1":
            reply = Message(Error(5, "gone"), reply_to=question)
            reply.metadata.__dict__["_src_node_id"] = 1
            return [reply]
        answer = Message(content(f"from {question.metadata.dst_node_id}"), reply_to=question)
        if action == "answers twice":
            return [answer, answer]
        if action == "answers for nobody":
            answer.metadata.__dict__["_reply_to_message_id"] = "id-of-nobody"
        return [answer]


def ask(grid, *, timeout_s=0.1, batch=1000):
    taken = []

    def take(site, reply):
        taken.append((site, reply.content["said"]["text"]))
        return TAKEN

    questions = {site: Message(content("?"), node, "query.keylist") for site, node in NODES.items()}
    settled = []
    outcomes = exchange(
        grid,
        questions,
        take,
        timeout_s=timeout_s,
        pace=Pace(PACE.longest_poll_s, batch),
        settled=lambda site, outcome: settled.append((site, outcome)),
    )
    assert dict(settled) == outcomes
    assert len(settled) == len(NODES)
    return {site: outcome.what for site, outcome in outcomes.items()}, taken


def test_every_reply_reaches_the_one_it_is_from():
    outcomes, taken = ask(ScriptedGrid())
    assert outcomes == dict.fromkeys(NODES, TAKEN)
    assert sorted(taken) == [("east", "from 11"), ("north", "from 12"), ("west", "from 13")]


TROUBLES = {
    "push raises": "failed:push",
    "push is left out": "failed:push",
    "push is empty": "failed:push",
    "hangs": TIMEOUT,
    "error from node 1": "failed:5",
    "answers for nobody": TIMEOUT,
    "answers twice": TAKEN,
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("site", NODES)
def test_what_one_node_does_is_its_own_outcome(trouble, site):
    outcomes, taken = ask(ScriptedGrid(**{site: trouble}))
    assert outcomes == dict.fromkeys(NODES, TAKEN) | {site: TROUBLES[trouble]}
    assert len(taken) == len(set(taken))


def test_a_grid_that_is_away_for_a_moment_loses_nothing():
    grid = ScriptedGrid()
    grid.script["first pull"] = "raises"
    outcomes, _ = ask(grid)
    assert outcomes == dict.fromkeys(NODES, TAKEN)


def test_large_replies_are_fetched_one_at_a_time():
    grid = ScriptedGrid()
    ask(grid, batch=1)
    assert set(grid.pulls) == {1}
    assert max(grid.held) == 1


def test_nobody_to_ask_takes_no_time():
    assert exchange(ScriptedGrid(), {}, lambda *_: TAKEN, timeout_s=60, pace=PACE) == {}

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode

from simulation.runtime.faults import Delivery, Fault, Trouble, passing_order
from simulation.runtime.loopback import FIRST_NODE_ID, LoopbackGrid, Sent
from simulation.runtime.secagg_federation import new_federation

SITES = {"north": Path("sites/north"), "south": Path("sites/south"), "west": Path("sites/west")}


def content(values: np.ndarray) -> RecordDict:
    """An envelope as the protocol uses it."""
    body = ArrayRecord({"message": Array(values), "payload": Array(values)})
    return RecordDict({"fedward": body, "envelope": ConfigRecord({"nonce": b"0" * 16})})


def counting_app() -> ClientApp:
    """A site that counts its messages in its own context and answers with folder, count and twice the values."""
    app = ClientApp()

    @app.query("double")
    def double(message, context):
        state = context.state.config_records.setdefault("seen", ConfigRecord({"count": 0}))
        state["count"] += 1
        values = message.content["fedward"]["message"].numpy()
        answer = content(values * 2)
        answer["who"] = ConfigRecord({"folder": context.node_config["site-folder"], "count": state["count"]})
        return Message(answer, reply_to=message)

    @app.query("fail")
    def fail(message, context):
        raise ValueError("patient 4711 is ill")

    @app.train("order")
    def order(message, context):
        return Message(message.content, reply_to=message)

    return app


def ask(grid: LoopbackGrid, action: str = "query.double", values: np.ndarray | None = None) -> dict[int, Message]:
    """One exchange with every node; answers by the message they reply to, as the server must map them."""
    nodes = list(grid.get_node_ids())
    numbers = np.arange(5, dtype=np.uint8) if values is None else values
    messages = [Message(content(numbers), node, action, ttl=60) for node in nodes]
    ids = grid.push_messages(messages)
    node_of = dict(zip(ids, nodes, strict=True))
    replies: dict[int, Message] = {}
    for _ in range(200):
        for reply in grid.pull_messages(ids):
            replies[node_of[reply.metadata.reply_to_message_id]] = reply
        if len(replies) == len(nodes):
            break
    return replies


@pytest.mark.parametrize("workers", [0, 2])
def test_every_site_answers_from_its_own_folder_and_keeps_its_own_context(workers):
    grid = LoopbackGrid(counting_app(), SITES, workers=workers)
    for round_number in (1, 2, 3):
        replies = ask(grid)
        answers = [replies[node].content["who"] for node in grid.get_node_ids()]
        assert [answer["folder"] for answer in answers] == ["sites/north", "sites/south", "sites/west"]
        assert [answer["count"] for answer in answers] == [round_number] * 3
        assert replies[FIRST_NODE_ID].content["fedward"]["message"].numpy().tolist() == [0, 2, 4, 6, 8]
    grid.close()


def test_nothing_is_shared_between_the_two_ends():
    values = np.zeros(4, np.uint8)
    app = ClientApp()
    received = []

    @app.query("keep")
    def keep(message, context):
        received.append(message)
        return Message(message.content, reply_to=message)

    grid = LoopbackGrid(app, {"north": Path("north")})
    sent = Message(content(values), FIRST_NODE_ID, "query.keep", ttl=60)
    (reply,) = grid.send_and_receive([sent], timeout=5)
    assert received[0].content is not sent.content
    assert reply.content is not received[0].content
    assert reply.content["fedward"]["payload"].data is not sent.content["fedward"]["payload"].data


def test_an_unknown_node_is_told_by_an_empty_identifier_as_flower_does():
    grid = LoopbackGrid(counting_app(), SITES)
    assert grid.push_messages([Message(content(np.zeros(1, np.uint8)), 7, "query.double", ttl=60)]) == [""]


def test_an_exception_of_a_site_becomes_a_code_and_its_text_stays_there():
    replies = ask(LoopbackGrid(counting_app(), SITES), "query.fail")
    assert {reply.error.code for reply in replies.values()} == {ErrorCode.CLIENT_APP_RAISED_EXCEPTION}
    assert not any("4711" in str(reply.error.reason) for reply in replies.values())


TROUBLES = {
    "a dropped message never reaches the site, and the infrastructure answers": (Trouble.DROP, 0, True, 0),
    "a lost answer: the site has worked and sent": (Trouble.DROP_AFTER, 1, True, 1),
    "garbage: the site has worked, other bytes arrive": (Trouble.GARBAGE, 1, False, 1),
    "late: the answer comes after the delay": (Trouble.SLOW, 1, False, 1),
}


@pytest.mark.parametrize(("trouble", "worked", "is_error", "sent"), TROUBLES.values(), ids=TROUBLES)
def test_faults(trouble, worked, is_error, sent):
    tapped: list[Sent] = []
    fault = Fault(trouble, sites=("south",), actions=("double",), delay_s=0.05)
    grid = LoopbackGrid(counting_app(), SITES, faults=[fault], tap=tapped.append)
    replies = ask(grid)
    south = replies[FIRST_NODE_ID + 1]
    assert south.has_error() is is_error
    assert sum(item.site == "south" for item in tapped) == sent
    assert not replies[FIRST_NODE_ID].has_error()
    if is_error:
        assert south.metadata.src_node_id == SUPERLINK_NODE_ID
        assert south.error.code == ErrorCode.NODE_UNAVAILABLE
    if trouble is Trouble.GARBAGE:
        right = replies[FIRST_NODE_ID].content["fedward"]["message"].data
        assert south.content["fedward"]["message"].data != right
        assert len(south.content["fedward"]["message"].data) == len(right)
    assert grid._nodes[FIRST_NODE_ID + 1].context.state.config_records.get("seen", {"count": 0})["count"] == worked


def test_a_hanging_site_never_answers_and_does_not_hold_up_the_others():
    grid = LoopbackGrid(counting_app(), SITES, faults=[Fault(Trouble.HANG, sites=("west",))], workers=2)
    messages = [Message(content(np.zeros(1, np.uint8)), node, "query.double", ttl=60) for node in grid.get_node_ids()]
    replies = grid.send_and_receive(messages, timeout=0.3)
    assert sorted(reply.metadata.src_node_id for reply in replies) == [FIRST_NODE_ID, FIRST_NODE_ID + 1]
    grid.close()


def test_the_tap_sees_exactly_what_arrives():
    tapped: list[Sent] = []
    grid = LoopbackGrid(counting_app(), SITES, tap=tapped.append)
    values = np.frombuffer(b"a very particular sequence of bytes", np.uint8)
    replies = ask(grid, values=values)
    assert [item.site for item in tapped] == list(SITES)
    for item, reply in zip(tapped, replies.values(), strict=True):
        assert reply.content["fedward"]["payload"].numpy().tobytes() in item.octets


BEFALLS = {
    "a fault without conditions hits everything": (Fault(Trouble.DROP), Delivery("north", "order", 3, 4), True),
    "another site": (Fault(Trouble.DROP, sites=("south",)), Delivery("north", "order", 3, 4), False),
    "another stage": (Fault(Trouble.DROP, actions=("keylist",)), Delivery("north", "order", 3, 4), False),
    "the round is named": (Fault(Trouble.DROP, rounds=(2, 3)), Delivery("north", "order", 3, 4), True),
    "the attempt is another": (Fault(Trouble.DROP, attempts=(3,)), Delivery("north", "order", 3, 4), False),
    "every second round, in the third": (Fault(Trouble.DROP, every=2), Delivery("north", "order", 3, 4), False),
    "every second round, in the fourth": (Fault(Trouble.DROP, every=2), Delivery("north", "order", 4, 4), True),
    "every second round, before the first": (Fault(Trouble.DROP, every=2), Delivery("north", "hello"), False),
}


@pytest.mark.parametrize(("fault", "delivery", "is_hit"), BEFALLS.values(), ids=BEFALLS)
def test_which_delivery_a_fault_befalls(fault, delivery, is_hit):
    assert fault.befalls(delivery) is is_hit


def test_round_and_attempt_are_read_from_the_order_that_passes_by(tmp_path):
    federation = new_federation(3, tmp_path)
    order = federation.new_order(round_number=6, attempt=9)
    octets = next(iter(federation.new_server(order).start().values())).message
    assert (passing_order(octets).round_number, passing_order(octets).attempt) == (6, 9)
    assert passing_order(b"anything") is None
    grid = LoopbackGrid(counting_app(), SITES, faults=[Fault(Trouble.DROP, sites=("north",), rounds=(6,))])
    replies = ask(grid, "train.order", np.frombuffer(octets, np.uint8))
    assert replies[FIRST_NODE_ID].has_error()
    assert not replies[FIRST_NODE_ID + 1].has_error()
    assert ask(grid)[FIRST_NODE_ID].has_error()  # later messages of the same round are hit too

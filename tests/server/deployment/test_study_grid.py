"""Replies as the SuperLink hands them out: a broken one costs its sender, and nobody else."""

import gc
import http.server
import json
import threading
import time
import weakref
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id, get_object_tree
from flwr.superlink.grid.http_grid import HttpGrid

from common.flower import objects as flower_objects
from server.attempts.exchange import TAKEN, Pace, exchange
from server.deployment import study_grid
from server.deployment.study_grid import SMALL_REPLY_BYTES, StudyGrid

SITES = ("east", "north", "west")
MB = 1_000_000


def reply_of(site, content=None):
    metadata = Metadata(
        run_id=1,
        message_id="",
        src_node_id=10 + SITES.index(site),
        dst_node_id=1,
        message_type="query.keylist",
        group_id="",
        ttl=60.0,
        reply_to_message_id=f"question to {site}",
        created_at=1.0,
    )
    return make_message(metadata=metadata, content=content or RecordDict({"said": ConfigRecord({"by": site})}))


class SuperLink:
    """The three calls that a grid makes for replies, answered from a store. Replies are forgotten once listed."""

    def __init__(self):
        self.objects, self.listed, self.pulled_bytes, self.asked = {}, [], 0, []
        self.under_way = set()  # announced, and not uploaded yet

    def put(self, message, change=None):
        """Store a message; ``change`` may replace the content of any of its objects, as a sender could."""
        announced = message_to_proto(remove_content_from_message(message))
        tree = get_object_tree(message)
        announced.metadata.message_id = tree.object_id
        for name, item in get_all_nested_objects(message).items():
            content = item.deflate()
            self.objects[name] = (change or (lambda _item, same: same))(item, content)
        self.listed.append((announced, tree))

    def PullMessages(self, request):  # noqa: N802 (Flower's name)
        self.asked += request.message_ids
        found = [pair for pair in self.listed if pair[0].metadata.reply_to_message_id in request.message_ids]
        self.listed = [pair for pair in self.listed if pair not in found]
        return PullAppMessagesResponse(
            messages_list=[announced for announced, _ in found], message_object_trees=[tree for _, tree in found]
        )

    def PullObject(self, request):  # noqa: N802 (Flower's name)
        content = self.objects.get(request.object_id)
        available = request.object_id not in self.under_way
        self.pulled_bytes += len(content or b"") if available else 0
        return SimpleNamespace(object_found=content is not None, object_available=available, object_content=content)

    def ConfirmMessageReceived(self, request):  # noqa: N802 (Flower's name)
        del request


def grid_over(superlink, kind=StudyGrid):
    plain = {"insecure": True} if kind is HttpGrid else {"authority": None}
    grid = kind("127.0.0.1:1", token="token", **plain)
    grid._client, grid._run = superlink, SimpleNamespace(run_id=1)
    return grid


def array_reply(data):
    array = Array(dtype="uint8", shape=(len(data),), stype="numpy.ndarray", data=data)
    return RecordDict({"vector": ArrayRecord({"x": array})})


def only(kind, new):
    """Replace the body of one kind of object, with a head that fits."""

    def change(item, content):
        if type(item).__name__ != kind:
            return content
        head, _, body = content.partition(b"\0")
        name, children, _ = head.split(b" ")
        body = new(body)
        return b"%s %s %d\0" % (name, children, len(body)) + body

    return change


def changed_metadata(**changes):
    return lambda body: json.dumps(json.loads(body) | changes).encode()


BROKEN = {
    "an array whose description is no JSON": only("Array", lambda body: b"{" + body),
    "an array without a description": only("Array", lambda body: b"{}"),
    "an array of a chunk that is not there": only("Array", changed_metadata(arraychunk_ids=[7])),
    "a record that is no protobuf": only("ConfigRecord", lambda body: b"\xff" * 9),
    "a message that is no protobuf": only("Message", lambda body: b"\xff" * 9),
    "a message that is another kind of object": lambda item, content: (
        content.replace(b"Message", b"RecordDict", 1) if isinstance(item, Message) else content
    ),
    "objects that are nothing at all": lambda item, content: b"",
    "objects that are missing": lambda item, content: None,
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_reply_comes_as_an_error_and_the_others_arrive(case):
    superlink = SuperLink()
    superlink.put(reply_of("east"))
    both = RecordDict({**array_reply(b"x" * 1000), "said": ConfigRecord({"by": "north"})})
    superlink.put(reply_of("north", both), BROKEN[case])
    superlink.put(reply_of("west"))
    superlink.objects = {name: content for name, content in superlink.objects.items() if content is not None}
    replies = {
        reply.metadata.reply_to_message_id.removeprefix("question to "): reply
        for reply in grid_over(superlink).pull_messages([f"question to {site}" for site in SITES])
    }
    assert set(replies) == set(SITES)
    assert [replies[site].content["said"]["by"] for site in ("east", "west")] == ["east", "west"]
    assert replies["north"].error.code == ErrorCode.MESSAGE_UNAVAILABLE


def test_with_flowers_own_grid_the_others_would_be_lost():
    superlink = SuperLink()
    superlink.put(reply_of("east"))
    superlink.put(reply_of("north", array_reply(b"x")), BROKEN["an array without a description"])
    grid, questions = grid_over(superlink, HttpGrid), ["question to east", "question to north"]
    with pytest.raises(KeyError):
        grid.pull_messages(questions)
    assert grid.pull_messages(questions) == [], "otherwise this grid is no longer needed"


def test_the_exchange_settles_a_broken_reply_at_once():
    superlink = SuperLink()
    grid = grid_over(superlink)
    grid.push_messages = lambda messages: [message.metadata.message_type for message in messages]
    questions = {site: SimpleNamespace(metadata=SimpleNamespace(message_type=f"question to {site}")) for site in SITES}
    for site in SITES:
        change = BROKEN["objects that are nothing at all"] if site == "east" else None
        superlink.put(reply_of(site, array_reply(site.encode())), change)
    outcomes = exchange(grid, questions, lambda _site, _reply: TAKEN, timeout_s=30, pace=Pace())
    assert {site: outcome.what for site, outcome in outcomes.items()} == {
        "east": f"failed:{ErrorCode.MESSAGE_UNAVAILABLE}", "north": TAKEN, "west": TAKEN,
    }  # fmt: skip


def test_a_reply_beyond_the_budget_is_left_where_it_is():
    superlink = SuperLink()
    superlink.put(reply_of("north", array_reply(np.random.default_rng(0).bytes(100 * MB))))
    superlink.put(reply_of("west", array_reply(np.random.default_rng(1).bytes(2 * MB))))
    grid = grid_over(superlink)
    north, west = grid.pull_messages(["question to north", "question to west"])
    assert north.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert len(west.content["vector"]["x"].data) == 2 * MB
    assert superlink.pulled_bytes < 3 * SMALL_REPLY_BYTES + 3 * (5 << 20)


def test_with_a_vector_announced_the_budget_is_larger():
    superlink = SuperLink()
    superlink.put(reply_of("north", array_reply(bytes(20 * MB))))
    grid = grid_over(superlink)
    grid.largest_reply_bytes = SMALL_REPLY_BYTES + 20 * MB
    (north,) = grid.pull_messages(["question to north"])
    assert len(north.content["vector"]["x"].data) == 20 * MB


def test_which_question_a_reply_answers_is_not_the_senders_word():
    superlink = SuperLink()
    superlink.put(reply_of("north"))
    superlink.listed[0][0].metadata.reply_to_message_id = "question to west"
    (reply,) = grid_over(superlink).pull_messages(["question to west"])
    assert reply.metadata.reply_to_message_id == "question to west"


def test_a_tree_without_end_is_no_trouble():
    superlink = SuperLink()
    superlink.put(reply_of("north"))
    tree = ObjectTree(object_id=get_object_id(b"deep"))
    for _ in range(90):
        tree = ObjectTree(object_id=get_object_id(b"deep"), children=[tree])
    superlink.listed = [(superlink.listed[0][0], tree)]
    (reply,) = grid_over(superlink).pull_messages(["question to north"])
    assert reply.has_error()


def test_who_uploads_slowly_holds_nobody_up():
    superlink = SuperLink()
    for site in SITES:
        superlink.put(reply_of(site))
    slow = superlink.listed[1][1]
    superlink.under_way = {slow.object_id}
    grid, questions = grid_over(superlink), [f"question to {site}" for site in SITES]
    began_s = time.monotonic()
    first = grid.pull_messages(questions)
    assert time.monotonic() - began_s < 4, "Flower's own waits for the slow one"
    assert [reply.content["said"]["by"] for reply in first] == ["east", "west"]
    assert grid.pull_messages(questions[1:2]) == []
    superlink.under_way = set()
    (last,) = grid.pull_messages(questions[1:2])
    assert last.content["said"]["by"] == "north"
    assert superlink.asked.count(questions[1]) == 1, "asked again, the SuperLink says that there is no such question"
    assert grid.pull_messages(questions) == [], "each reply comes once"


def test_who_never_uploads_a_part_is_given_up(monkeypatch):
    monkeypatch.setattr(study_grid, "LAST_OBJECTS_S", 0.2)
    superlink = SuperLink()
    superlink.put(reply_of("north"))
    superlink.under_way = {superlink.listed[0][1].children[0].object_id}
    (reply,) = grid_over(superlink).pull_messages(["question to north"])
    assert reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE


def test_a_part_that_comes_late_over_a_slow_line_is_waited_for(monkeypatch):
    superlink = SuperLink()
    for site in SITES:
        superlink.put(reply_of(site, array_reply(site.encode() * 100_000)))
    slow = superlink.listed[1][1].children[0]
    superlink.under_way = {slow.object_id}
    grid, questions = grid_over(superlink), [f"question to {site}" for site in SITES]
    began_s = time.monotonic()
    assert len(grid.pull_messages(questions)) == 2, "the part of 5 MB before the last takes a slow line minutes"
    assert time.monotonic() - began_s < 2
    clock_s = time.monotonic() + 100
    monkeypatch.setattr(study_grid.time, "monotonic", lambda: clock_s)
    superlink.under_way = set()
    (late,) = grid.pull_messages(questions[1:2])
    assert len(late.content["vector"]["x"].data) == len("north") * 100_000


def test_who_never_uploads_a_part_costs_few_looks(monkeypatch):
    superlink, clock = SuperLink(), [1000.0]
    superlink.put(reply_of("north", array_reply(np.random.default_rng(0).bytes(2 * MB))))
    superlink.under_way = {superlink.listed[0][1].children[0].children[0].children[0].object_id}
    grid = grid_over(superlink)
    monkeypatch.setattr(study_grid.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(study_grid.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    asked, fetch = [], superlink.PullObject
    superlink.PullObject = lambda request: asked.append(clock[0]) or fetch(request)
    replies = []
    while not replies:
        replies = grid.pull_messages(["question to north"])
        clock[0] += 0.2
    assert replies[0].error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert 300 <= clock[0] - 1000 < 600
    assert len(asked) < 300


def test_one_chunk_in_many_arrays_is_within_the_budget_too(monkeypatch):
    monkeypatch.setattr(Array, "inflate", classmethod(flower_objects._inflate))  # as ``spare_memory`` does
    superlink = SuperLink()
    arrays = {f"x{number}": Array(dtype="uint8", shape=(number,), stype="n", data=bytes(9 * MB)) for number in range(5)}
    superlink.put(reply_of("north", RecordDict({"vector": ArrayRecord(arrays)})))
    grid = grid_over(superlink)
    grid.largest_reply_bytes = 20 * MB
    (north,) = grid.pull_messages(["question to north"])
    assert superlink.pulled_bytes < 20 * MB, "what is fetched is small: only what is made of it is not"
    assert north.error.code == ErrorCode.MESSAGE_UNAVAILABLE


def test_a_confirmation_that_is_lost_loses_no_reply():
    superlink = SuperLink()
    superlink.put(reply_of("north"))

    def lost(_request):
        superlink.objects.clear()
        raise httpx.ReadError("away")

    superlink.ConfirmMessageReceived = lost
    (reply,) = grid_over(superlink).pull_messages(["question to north"])
    assert reply.content["said"]["by"] == "north"


def test_replies_that_nobody_asks_for_any_more_are_forgotten(monkeypatch):
    superlink = SuperLink()
    superlink.put(reply_of("north"))
    superlink.under_way = {superlink.listed[0][1].object_id}
    grid, now_s = grid_over(superlink), time.monotonic()
    assert grid.pull_messages(["question to north"]) == []
    assert len(grid._listed) == 1
    monkeypatch.setattr(study_grid.time, "monotonic", lambda: now_s + 2 * study_grid.FORGOTTEN_S)
    assert grid.pull_messages(["question to west"]) == []
    assert not grid._listed


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers a request with what it sent."""

    def do_POST(self):
        content = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def test_requests_and_responses_are_gone_without_a_search_for_cycles():
    seen = []

    class Noting:
        def intercept(self, context, call_next):
            response = call_next(context)
            seen.extend((weakref.ref(response), weakref.ref(context.request)))
            return response

    with http.server.HTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        grid = StudyGrid(f"127.0.0.1:{server.server_port}", authority=None, token="token")
        client = grid._runtime_client
        client._interceptors = (*client._interceptors, Noting())
        gc.collect()
        gc.disable()
        try:
            answer = client.PullObject(PullObjectRequest(object_id="x" * 100))
        finally:
            gc.enable()
            server.shutdown()
    assert answer.ByteSize() > 0
    assert len(seen) == 2
    assert not any(each() for each in seen), "httpx has changed; otherwise `ReleasedResponses` is needed"

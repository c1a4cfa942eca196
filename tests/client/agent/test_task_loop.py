"""What an agent does with tasks of a real SuperNode: work for the installed app, a fixed code for everything else."""

import fcntl
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.constant import TaskType

from client.agent.claim import read_claim, write_claim
from client.agent.flower_runtime import Runtime
from client.agent.pace import Pace
from client.agent.progress import ProgressFeed
from client.agent.task_checks import KNOWN_TYPES, Rejection, check_task
from client.agent.task_loop import TaskLoop
from client.app import FAULT_CODE, app
from client.installation.outbox import Outbox
from common.control.site_control_pb2 import Connection
from common.flower.messages import HELLO_TYPE, MESSAGE_TYPES, from_content, hello_question, read_hello, to_content
from common.flower.pointer import pointer_bundle
from common.secagg.messages import Packet, decode
from common.secagg.refusals import Check
from common.secagg.stages import SITE_SENDS, Kind

NONCE = bytes(range(16))
SECRET_TEXT = "Jane Doe 1970-01-01"


def hello(supernode) -> None:
    supernode.ask(HELLO_TYPE, hello_question(NONCE))


def outbox_lines(folder) -> int:
    return Outbox(folder.outbox)._chain.count


def test_the_site_says_who_it_is_whatever_folder_the_coordinator_names(agent, supernode, until):
    hello(supernode)  # its context and run config name another folder
    nonce, answer = read_hello(supernode.reply().content)
    assert (nonce, answer.site_id) == (NONCE, "north")
    until(lambda: supernode.task_status() == "finished:completed", "the task is finished after its reply")


def bundle_with_code() -> bytes:
    """The pointer and one file more."""
    content = BytesIO(pointer_bundle())
    with zipfile.ZipFile(content, "a") as bundle:
        bundle.writestr("client/app.py", "open('/tmp/owned', 'w')")
    return content.getvalue()


REJECTED: dict[str, tuple[dict[str, Any], str, Rejection]] = {
    "a bundle with other code": ({"bundle": bundle_with_code()}, HELLO_TYPE, Rejection.OTHER_BUNDLE),
    "an empty bundle": ({"bundle": b""}, HELLO_TYPE, Rejection.OTHER_BUNDLE),
    "a message type that this app does not have": ({}, "query.shell", Rejection.UNKNOWN_TYPE),
    "the type without an action": ({}, "train", Rejection.UNKNOWN_TYPE),
    "a message whose time is over": ({"ttl_s": 1e-6}, HELLO_TYPE, Rejection.EXPIRED),
}


@pytest.mark.parametrize("case", REJECTED)
def test_rejected_with_its_fixed_code_before_any_work(agent, supernode, folder, case):
    settings, message_type, rejection = REJECTED[case]
    before = outbox_lines(folder)
    supernode.ask(message_type, hello_question(NONCE), **settings)
    reply = supernode.reply()
    assert (reply.error.code, reply.error.reason) == (rejection, "rejected")
    assert outbox_lines(folder) == before
    assert f"rejected before any work: {rejection.name}" in agent.log.read_text()


@pytest.mark.parametrize("model", [b"", b"any model"])
def test_an_order_of_a_plan_that_nobody_approved_gets_a_signed_refusal_that_says_so(agent, supernode, model):
    supernode.ask(MESSAGE_TYPES[Kind.ORDER], to_content(Packet(b"any order", memoryview(model)), NONCE))
    received = from_content(supernode.reply().content, max_payload_bytes=0)
    kind, refusal = decode(received.message, SITE_SENDS)
    assert (received.nonce, kind, refusal.site_id, refusal.check) == (NONCE, Kind.REFUSAL, "north", Check.R0_PLAN)


def test_no_text_of_a_fault_travels_or_is_logged(agent, supernode, until):
    supernode.ask(HELLO_TYPE, RecordDict({SECRET_TEXT: ConfigRecord({"name": SECRET_TEXT})}))
    reply = supernode.reply()
    assert (reply.error.code, reply.error.reason) == (FAULT_CODE, "fault")
    assert SECRET_TEXT not in agent.log.read_text()
    until(lambda: supernode.task_status() == "finished:failed", "the task is finished after its reply")


def lying(record, name, deflated):
    """Make one object say something else than what it is; its identifier, and those of all around it, fit."""
    vars(record[name] if name else record)["deflate"] = lambda: deflated
    return record


def arrays():
    return ArrayRecord({"y": Array(dtype="uint8", shape=(3,), stype="numpy.ndarray", data=b"abc")})


WITHOUT_CHUNK = b'{"dtype": "uint8", "shape": [3], "stype": "numpy.ndarray", "arraychunk_ids": [4]}'
BROKEN = {
    "an array without a description": lambda: lying(arrays(), "y", b"Array  2\0{}"),
    "a chunk that is not there": lambda: lying(arrays(), "y", b"Array  %d\0" % len(WITHOUT_CHUNK) + WITHOUT_CHUNK),
    "settings that are no protobuf": lambda: lying(ConfigRecord({"a": 1}), "", b"ConfigRecord  3\0\xff\xff\xff"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_message_that_cannot_be_unpacked_costs_its_task_and_not_the_agent(agent, supernode, until, case):
    before = agent.log.read_text().count("the task is dropped")
    supernode.ask(HELLO_TYPE, RecordDict({"x": BROKEN[case]()}))
    until(lambda: agent.log.read_text().count("the task is dropped") > before, "the task is dropped")
    supernode.ask(HELLO_TYPE, hello_question(NONCE))
    assert not supernode.reply().has_error()
    assert agent.process.poll() is None


def test_tasks_of_other_kinds_are_never_taken(agent, supernode):
    supernode.ask(HELLO_TYPE, hello_question(NONCE), task_type=TaskType.AGENT_APP)
    time.sleep(1.0)  # it looks ten times in a second
    assert supernode.task_status() == "pending:"
    supernode.state.task_store.clear()
    supernode.state.delete_messages()


def test_the_known_types_are_exactly_those_of_the_app():
    assert set(app._registered_funcs) == KNOWN_TYPES


TIMES = {
    "in time": (100.0, 99.9, None),
    "at the very end": (100.0, 100.0, Rejection.EXPIRED),
    "no number": (float("nan"), 0.0, Rejection.EXPIRED),
}


@pytest.mark.parametrize("case", TIMES)
def test_time_to_live(case):
    expires, now, expected = TIMES[case]
    assert check_task(pointer_bundle(), HELLO_TYPE, expires_at_s=expires, now_s=now) is expected


def test_a_supernode_that_restarts_is_found_again(agent, supernode):
    supernode.stop()
    time.sleep(0.5)
    supernode.start()
    hello(supernode)
    assert read_hello(supernode.reply().content)[1].site_id == "north"


def test_an_agent_killed_while_idle_works_again_after_its_restart(agent, supernode, folder):
    hello(supernode)
    supernode.reply()
    agent.kill()
    agent.start()
    hello(supernode)
    assert read_hello(supernode.reply().content)[1].site_id == "north"
    assert not (folder.state / "task.json").exists()


@contextmanager
def busy_outbox(folder) -> Iterator[None]:
    """Nothing can leave inside this block: a task is held up in the middle of its work."""
    with folder.outbox.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def taken(folder) -> bool:
    return (folder.state / "task.json").exists() and HELLO_TYPE in (folder.state / "task.json").read_text()


def test_an_agent_killed_in_a_task_answers_for_it_at_once_and_never_does_it_again(agent, supernode, folder, until):
    before = outbox_lines(folder)
    with busy_outbox(folder):
        hello(supernode)
        until(lambda: taken(folder), "the agent works")
        agent.kill()
    agent.start()
    reply = supernode.reply(20)  # a SuperNode itself would give up after a minute
    assert (reply.error.code, reply.error.reason) == (Rejection.INTERRUPTED, "rejected")
    assert outbox_lines(folder) == before
    hello(supernode)
    assert read_hello(supernode.reply().content)[1].site_id == "north"


def test_an_agent_told_to_end_in_a_task_answers_for_it_first(agent, supernode, folder, until):
    with busy_outbox(folder):
        hello(supernode)
        until(lambda: taken(folder), "the agent works")
        assert agent.stop() == 0
    try:
        assert supernode.reply(20).error.code == Rejection.INTERRUPTED
        assert not folder.control_socket.exists()
    finally:  # the other tests need it
        agent.start()
        until(folder.control_socket.exists, "the agent listens")


def loop_with(secret: bytes, port: int, folder: Path) -> TaskLoop:
    runtime = Runtime(f"127.0.0.1:{port}", secret)
    feed = ProgressFeed()
    return TaskLoop(runtime, folder=folder, claim_file=folder / "task.json", feed=feed, pace=Pace(1.0))


def test_with_the_wrong_secret_nothing_is_taken(own_supernode, tmp_path):
    supernode = own_supernode
    hello(supernode)
    loop = loop_with(bytes([1] * 32), supernode.port, tmp_path)
    assert not loop.step()
    assert loop.connection == Connection.CONNECTION_REFUSED
    assert supernode.task_status() == "pending:"
    supernode.stop()
    assert not loop.step()
    assert loop.connection == Connection.CONNECTION_AWAY


def test_a_task_that_the_supernode_forgot_is_dropped(own_supernode, tmp_path):
    supernode = own_supernode
    hello(supernode)
    write_claim(tmp_path / "task.json", "a token of another life")
    loop = loop_with(bytes(32), supernode.port, tmp_path)
    loop.answer_for_the_dead()
    assert read_claim(tmp_path / "task.json") is None
    assert supernode.task_status() == "pending:"


DAMAGED = {
    "nothing": b"",
    "half": b'{"token": "x"',
    "no object": b"[]",
    "other fields": b'{"token": "x", "metadata": {"a": 1}}',
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_claim_is_no_claim(tmp_path, case):
    (tmp_path / "task.json").write_bytes(DAMAGED[case])
    assert read_claim(tmp_path / "task.json") is None

"""Arrays through Flower without second copies: the same bytes and identifiers as Flower's own, in less memory."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from common.flower import objects as flower_objects
from common.flower.environment import child_environment
from common.flower.messages import from_content, to_content
from common.flower.objects import spare_memory
from common.secagg.messages import Packet

MB = 1_000_000


@pytest.fixture(autouse=True)
def flowers_own_afterwards(monkeypatch):
    monkeypatch.setattr(Array, "inflate", vars(Array)["inflate"])
    push = inflatable_utils.push_object_contents_from_iterable
    monkeypatch.setattr(inflatable_utils, "push_object_contents_from_iterable", push)
    spare_memory()


def array_of(data: bytes) -> Array:
    return Array(dtype="uint8", shape=(len(data),), stype="numpy.ndarray", data=data)


def sent_and_received(item):
    """Cut an object into parts, hand them over, and put them together again."""
    stored = {}
    inflatable_utils.push_objects(get_all_nested_objects(item), stored.__setitem__)
    return inflatable_utils.inflate_object_from_contents(item.object_id, stored)


CONTENTS = {
    "nothing": b"",
    "one byte": b"x",
    "exactly one chunk": bytes(5 << 20),
    "several equal chunks": bytes(3 * (5 << 20) + 1),
    "different chunks": np.random.default_rng(0).bytes(12 * MB),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_an_array_arrives_as_it_was_sent(name):
    sent = array_of(CONTENTS[name])
    received = sent_and_received(sent)
    assert bytes(received.data) == CONTENTS[name]
    assert (received.dtype, received.shape, received.stype) == (sent.dtype, sent.shape, sent.stype)
    assert received.object_id == sent.object_id


def test_what_is_received_reads_as_numpy_and_as_a_packet_of_ours():
    values = np.arange(2_000_000, dtype=np.float32)
    assert np.array_equal(sent_and_received(Array(values)).numpy(), values)
    packet = Packet(b"message", memoryview(values).cast("B"))
    received = from_content(sent_and_received(to_content(packet, bytes(16))), max_payload_bytes=8 * MB)
    assert received.message == b"message"
    assert np.array_equal(np.frombuffer(received.payload, np.float32), values)


def test_a_content_with_several_records_arrives_whole():
    content = RecordDict({"a": ArrayRecord({"x": array_of(b"1" * 6 * MB)}), "c": ConfigRecord({"n": 1})})
    received = sent_and_received(content)
    assert bytes(received["a"]["x"].data) == b"1" * 6 * MB
    assert received["c"]["n"] == 1


def test_arrays_that_share_chunks_arrive_whole():
    """Chunks have their content's name, so equal ones of two arrays are one object."""
    data = {"x": bytes(6 * MB), "y": bytes(11 * MB), "z": bytes(5 << 20) + b"z"}
    received = sent_and_received(RecordDict({"a": ArrayRecord({name: array_of(data[name]) for name in data})}))
    assert {name: bytes(received["a"][name].data) for name in data} == data


def test_several_arrays_together_stay_within_what_is_allowed():
    content = RecordDict({"a": ArrayRecord({name: array_of(name.encode() + bytes(6 * MB)) for name in "xyz"})})
    with flower_objects.arrays_of_at_most(20 * MB):
        sent_and_received(content)
    with flower_objects.arrays_of_at_most(15 * MB), pytest.raises(ValueError, match="are taken"):
        sent_and_received(content)
    sent_and_received(content)


def test_a_wrong_set_of_chunks_is_refused_as_flower_refuses_it():
    sent = array_of(CONTENTS["different chunks"])
    content = sent.deflate()
    for children in ({}, None, {"0" * 64: ArrayChunk(memoryview(b"x"))}):
        with pytest.raises(ValueError, match="Unexpected set of `children`"):
            Array.inflate(content, children)


def test_a_small_message_cannot_ask_for_an_enormous_array(monkeypatch):
    monkeypatch.setattr(flower_objects, "LARGEST_ARRAY_BYTES", 10 * MB)
    liar = array_of(bytes(5 << 20) * 3)  # one chunk, named three times
    with pytest.raises(ValueError, match="at most 10000000 are taken"):
        sent_and_received(liar)


def test_contents_are_made_only_when_a_sender_is_free():
    made, going, release = [], threading.Semaphore(0), threading.Event()

    def contents():
        for number in range(6):
            made.append(number)
            yield str(number), b""

    def send(_name, _content):
        going.release()
        release.wait(10)

    pushing = threading.Thread(
        target=inflatable_utils.push_object_contents_from_iterable, args=(contents(), send), daemon=True
    )
    pushing.start()
    assert going.acquire(timeout=10)
    assert going.acquire(timeout=10)
    assert len(made) == 2, "two senders are busy, so no third content is made"
    release.set()
    pushing.join(10)
    assert made == list(range(6))


def test_a_failed_push_is_raised_and_ends_the_pushing():
    def send(name, _content):
        if name == "1":
            raise ConnectionError("gone")

    made = iter((str(number), b"") for number in range(1000))
    with pytest.raises(ConnectionError):
        inflatable_utils.push_object_contents_from_iterable(made, send)
    assert int(next(made)[0]) < 10


GROWTH = """
import gc, re, sys
import numpy as np
from flwr.app import Array
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from common.flower.objects import spare_memory
if sys.argv[1] == "ours":
    spare_memory()

def mb(field):
    return int(re.search(field + r":\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1000

data = np.random.default_rng(0).bytes(200_000_000)
sent = Array(dtype="uint8", shape=(len(data),), stype="numpy.ndarray", data=data)
name, stored = sent.object_id, {}
inflatable_utils.push_objects(get_all_nested_objects(sent), stored.__setitem__)
del sent, data
gc.collect()
open("/proc/self/clear_refs", "w").write("5")
before = mb("VmRSS")
received = inflatable_utils.inflate_object_from_contents(name, stored)
print((mb("VmHWM") - before) / 200)
"""


def test_receiving_costs_the_array_once():
    """Growth over what was fetched already, in arrays of 200 MB: Flower's own needs two more, ours next to none."""

    def growth(whose):
        command = [sys.executable, "-c", GROWTH, whose]
        done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=True)
        return float(done.stdout)

    assert growth("ours") < 0.3
    assert growth("flower's") > 0.9, "otherwise the file is no longer needed"

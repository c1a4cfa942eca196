"""What travels inside Flower's messages: the same bytes on the other side, and nothing else is read."""

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.supercore.task_identity import TaskIdentity

from common.flower.errors import ContentRefusedError
from common.flower.messages import (
    MESSAGE_TYPES,
    Hello,
    from_content,
    hello_answer,
    hello_question,
    read_hello,
    read_hello_question,
    to_body,
    to_content,
)
from common.secagg.messages import Packet
from common.secagg.stages import SITE_RECEIVES
from common.secagg.wire import MAX_MESSAGE_BYTES
from common.trust.provenance import code_digest

NONCE = bytes(range(16))
PACKET = Packet(b"a message", memoryview(np.arange(5, dtype=np.uint32)))


def over_the_wire(record):
    return recorddict_from_proto(recorddict_to_proto(record))


@pytest.fixture(autouse=True)
def _task():
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


@pytest.mark.parametrize("payload", [b"", b"\0", bytes(range(256)) * 300])
def test_a_packet_comes_back_as_it_was(payload):
    content = over_the_wire(to_content(Packet(b"message", memoryview(payload)), NONCE))
    received = from_content(content, max_payload_bytes=len(payload))
    assert (received.nonce, received.message, bytes(received.payload)) == (NONCE, b"message", payload)


def test_flower_and_numpy_read_the_arrays_as_plain_bytes():
    content = to_content(PACKET, NONCE)
    assert content["fedward"]["payload"].numpy().tobytes() == bytes(PACKET.payload.cast("B"))
    assert content["fedward"]["message"].numpy().dtype == np.uint8


def test_an_array_that_numpy_wrote_is_read():
    content = to_content(PACKET, NONCE)
    content["fedward"]["message"] = Array(np.frombuffer(b"written by numpy", np.uint8))
    assert from_content(content, max_payload_bytes=20).message == b"written by numpy"


def test_the_payload_is_a_view_and_one_body_serves_many_recipients():
    body = to_body(PACKET)
    first, second = to_content(body, NONCE), to_content(body, bytes(16))
    assert first["fedward"]["payload"].data is second["fedward"]["payload"].data
    received = from_content(first, max_payload_bytes=20)
    assert received.payload.obj is first["fedward"]["payload"].data


def test_every_kind_that_a_site_takes_has_an_action_of_its_own():
    assert set(MESSAGE_TYPES) == SITE_RECEIVES
    assert len(set(MESSAGE_TYPES.values())) == len(MESSAGE_TYPES)


def changed(change):
    def build():
        content = to_content(PACKET, NONCE)
        change(content)
        return content

    return build


def _set(record, name, value):
    return changed(lambda content: content[record].__setitem__(name, value))


def _array(**changes):
    good = to_body(PACKET)["payload"]
    fields = {"dtype": good.dtype, "shape": good.shape, "stype": good.stype, "data": good.data} | changes
    return _set("fedward", "payload", Array(**fields))


def _wider_header(content):
    """Numpy's header of the same vector in 192 bytes: another spelling of the same content."""
    plain = to_body(PACKET)["payload"].data
    content["fedward"]["payload"] = Array("uint8", (20,), "numpy.ndarray", plain[:127] + b" " * 64 + plain[127:])


def _without(name):
    def build():
        full = to_content(PACKET, NONCE)
        return RecordDict({key: value for key, value in full.items() if key != name})

    return build


BAD = {
    "nothing in it": RecordDict,
    "no envelope": _without("envelope"),
    "no arrays": _without("fedward"),
    "a metric beside the message": changed(lambda content: content.__setitem__("m", MetricRecord({"loss": 0.1}))),
    "a payload without a message": changed(lambda content: content["fedward"].pop("message")),
    "a payload of no bytes": _set("fedward", "payload", Array(np.zeros(0, np.uint8))),
    "a third array": _set("fedward", "weights", Array(np.zeros(3, np.uint8))),
    "arrays where the envelope should be": changed(lambda c: c.__setitem__("envelope", c["fedward"])),
    "settings where the arrays should be": changed(lambda c: c.__setitem__("fedward", ConfigRecord({"a": 1}))),
    "a short nonce": _set("envelope", "nonce", bytes(15)),
    "a nonce of text": _set("envelope", "nonce", "0123456789abcdef"),
    "another format": _set("envelope", "format", 2),
    "a format that is true": _set("envelope", "format", True),
    "one more setting in the envelope": _set("envelope", "epsilon", 100.0),
    "another type of number": _set("fedward", "payload", Array(np.zeros(4, np.float32))),
    "a matrix": _set("fedward", "payload", Array(np.zeros((2, 2), np.uint8))),
    "a payload one byte too long": _set("fedward", "payload", Array(np.zeros(21, np.uint8))),
    "a message beyond its limit": _set("fedward", "message", Array(np.zeros(MAX_MESSAGE_BYTES + 1, np.uint8))),
    "a shape that promises more than there is": _array(shape=(2**31 - 1,)),
    "a shape that promises less than there is": _array(shape=(19,)),
    "a negative shape": _array(shape=(-1,)),
    "another serialisation": _array(stype="pickle"),
    "another dtype in the label": _array(dtype="object"),
    "a header of another array": _array(data=Array(np.zeros(20, np.int8)).data),
    "a header spelt differently": changed(_wider_header),
    "no header": _array(data=bytes(20)),
}


@pytest.mark.parametrize("build", BAD.values(), ids=BAD)
def test_anything_else_is_refused(build):
    with pytest.raises(ContentRefusedError):
        from_content(over_the_wire(build()), max_payload_bytes=20)


def test_a_hello_is_asked_and_answered():
    hello = Hello("north", code_digest())
    assert read_hello_question(over_the_wire(hello_question(NONCE))) == NONCE
    assert read_hello(over_the_wire(hello_answer(hello, NONCE))) == (NONCE, hello)


@pytest.mark.parametrize("said", [Hello("North Hospital", "0" * 64), Hello("north", "0" * 63), Hello("", "")])
def test_a_hello_with_another_form_is_refused(said):
    with pytest.raises(ContentRefusedError):
        read_hello(hello_answer(said, NONCE))


def test_the_code_digest_sees_names_and_contents(tmp_path):
    digests = set()
    for name, text in {"a.py": "1", "b.py": "1", "c.py": "2"}.items():
        folder = tmp_path / name.replace(".", "")
        folder.mkdir()
        (folder / name).write_text(text)
        (folder / "ignored.txt").write_text(name)
        digests.add(code_digest(folder))
    assert len(digests) == 3


def small_without(name: str):
    content = to_content(Packet(b"a message alone"), NONCE)
    del content["envelope"][name]
    return content


def small_with(name: str, value: object):
    content = to_content(Packet(b"a message alone"), NONCE)
    content["envelope"][name] = value
    return content


BAD_SMALL = {
    "no message": lambda: small_without("message"),
    "no nonce": lambda: small_without("nonce"),
    "a setting too many": lambda: small_with("epsilon", 100.0),
    "text for a message": lambda: small_with("message", "a message alone"),
    "a list for a message": lambda: small_with("message", [b"a message alone"]),
    "a message beyond its limit": lambda: small_with("message", bytes(MAX_MESSAGE_BYTES + 1)),
    "another format": lambda: small_with("format", 2),
}


def test_a_message_without_payload_is_one_record():
    content = to_content(Packet(b"a message alone"), NONCE)
    assert list(content) == ["envelope"]
    received = from_content(content, max_payload_bytes=0)
    assert (received.nonce, received.message, bytes(received.payload)) == (NONCE, b"a message alone", b"")


@pytest.mark.parametrize("case", BAD_SMALL)
def test_a_small_message_of_another_form_is_refused(case):
    with pytest.raises(ContentRefusedError):
        from_content(BAD_SMALL[case](), max_payload_bytes=10**6)

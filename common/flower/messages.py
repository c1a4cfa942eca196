"""How our messages travel inside Flower's: with ``flower_objects`` the only file of ``common`` that knows Flower.

    with a payload       {"fedward":  ArrayRecord {"message": uint8 (k,), "payload": uint8 (m,)}, m > 0,
                          "envelope": ConfigRecord {"format": 1, "nonce": 16 bytes}}
    without one          {"envelope": ConfigRecord {"format": 1, "nonce": 16 bytes, "message": k bytes}}
    hello, answered      {"hello":    ConfigRecord {"site_id": ..., "code_digest": ...}, "envelope": as above}

Each kind that a site takes has an action of its own, so a site registers exactly these names and no default. The nonce
is fresh for each recipient and comes back in the answer: Flower's fleet API lets one site answer for another whose
message identifier it can compute (design/flower.md section 2.2), but nobody can compute the nonce.

Reading is strict and copies nothing before it has checked names, types and sizes. Arrays are in numpy's format with the
one header that a plain vector of bytes has; the header is compared, never parsed.
"""

import io
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from common.flower.errors import ContentRefusedError
from common.secagg.messages import Packet
from common.secagg.stages import Kind
from common.secagg.wire import MAX_MESSAGE_BYTES

FORMAT = 1
NONCE_BYTES = 16
HELLO_TYPE = "query.hello"
MESSAGE_TYPES: dict[Kind, str] = {
    Kind.ORDER: "train.order",
    Kind.KEYLIST: "query.keylist",
    Kind.FORWARD: "query.forward",
    Kind.SURVIVORS: "query.survivors",
    Kind.CERTIFICATE: "query.certificate",
    Kind.RESULT: "query.result",
}

_BODY, _ENVELOPE, _HELLO = "fedward", "envelope", "hello"
_NUMPY = "numpy.ndarray"  # Flower's name for the format
_NAME = re.compile(r"[a-z][a-z0-9-]{1,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Received:
    """What came in: the recipient's nonce, the control message, and a view of the buffer beside it (flat bytes)."""

    nonce: bytes
    message: bytes
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Hello:
    """Who answers at a node: claimed here, proven by the signature under the site's first KEYS.

    ``code_digest``: ``common.trust.provenance.code_digest``, against accidents of installation (not against attackers).
    """

    site_id: str
    code_digest: str


def to_body(packet: Packet) -> ArrayRecord | ConfigRecord:
    """Return the record of a packet; one record may go into the contents of many recipients without being copied.

    Most packets have no payload and travel as a setting in the envelope: each record, and each array in one, is a
    request more for Flower.
    """
    if not packet.payload.nbytes:
        return ConfigRecord({"message": bytes(packet.message)})
    return ArrayRecord({"message": _array(packet.message), "payload": _array(packet.payload)})


def to_content(packet: Packet | ArrayRecord | ConfigRecord, nonce: bytes) -> RecordDict:
    """Return what a Flower message carries for a packet, or for the record that ``to_body`` made of it."""
    body = to_body(packet) if isinstance(packet, Packet) else packet
    if isinstance(body, ConfigRecord):
        return RecordDict({_ENVELOPE: ConfigRecord({**_envelope(nonce), **body})})
    return RecordDict({_BODY: body, _ENVELOPE: _envelope(nonce)})


def from_content(record: RecordDict, *, max_payload_bytes: int) -> Received:
    """Return what is in a content, whoever made it. The payload is a view: it lives as long as ``record`` does.

    Raises: ContentRefusedError for other names, types, shapes or sizes than agreed.
    """
    if set(record) == {_ENVELOPE}:
        return Received(_nonce(record, with_message=True), _small_message(record), memoryview(b""))
    _demand(set(record) == {_BODY, _ENVELOPE}, "records")
    nonce, body = _nonce(record), record[_BODY]
    if not isinstance(body, ArrayRecord) or set(body) != {"message", "payload"}:
        raise _refused("arrays")
    message, payload = _view(body["message"], MAX_MESSAGE_BYTES), _view(body["payload"], max_payload_bytes)
    _demand(payload.nbytes > 0, "size")  # one spelling for each content
    return Received(nonce, bytes(message), payload)


def hello_question(nonce: bytes) -> RecordDict:
    """Return the content of the question that comes before a run: who are you?"""
    return RecordDict({_ENVELOPE: _envelope(nonce)})


def read_hello_question(record: RecordDict) -> bytes:
    """Return the nonce of a hello question. Raises: ContentRefusedError."""
    _demand(set(record) == {_ENVELOPE}, "records")
    return _nonce(record)


def hello_answer(hello: Hello, nonce: bytes) -> RecordDict:
    """Return the content of a site's answer to a hello."""
    said = ConfigRecord({"site_id": hello.site_id, "code_digest": hello.code_digest})
    return RecordDict({_HELLO: said, _ENVELOPE: _envelope(nonce)})


def read_hello(record: RecordDict) -> tuple[bytes, Hello]:
    """Return the nonce and who answered. Raises: ContentRefusedError."""
    _demand(set(record) == {_HELLO, _ENVELOPE}, "records")
    said = record[_HELLO]
    if not isinstance(said, ConfigRecord) or set(said) != {"site_id", "code_digest"}:
        raise _refused("hello")
    return _nonce(record), Hello(_text(said["site_id"], _NAME), _text(said["code_digest"], _DIGEST))


def _small_message(record: RecordDict) -> bytes:
    """Return the message in an envelope whose names were checked."""
    message = record.config_records[_ENVELOPE]["message"]
    if type(message) is not bytes or len(message) > MAX_MESSAGE_BYTES:
        raise _refused("message")
    return message


def _array(content: bytes | memoryview) -> Array:
    view = memoryview(content).cast("B")
    data = b"".join((_header(view.nbytes), view))  # the one copy that Flower's Array needs
    return Array(dtype="uint8", shape=(view.nbytes,), stype=_NUMPY, data=data)


@lru_cache(maxsize=256)
def _header(length: int) -> bytes:
    """Return the header of numpy's format 1.0 for a vector of ``length`` bytes."""
    header = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def _view(array: Array, max_bytes: int) -> memoryview:
    """Return the bytes of a plain vector, without copying them."""
    _demand(array.stype == _NUMPY and array.dtype == "uint8" and len(array.shape) == 1, "array type")
    length = array.shape[0]
    _demand(type(length) is int and 0 <= length <= max_bytes, "size")
    header, data = _header(length), memoryview(array.data)
    _demand(data.nbytes == len(header) + length and data[: len(header)] == header, "array header")
    return data[len(header) :]


def _envelope(nonce: bytes) -> ConfigRecord:
    return ConfigRecord({"format": FORMAT, "nonce": nonce})


def _nonce(record: RecordDict, *, with_message: bool = False) -> bytes:
    envelope = record[_ENVELOPE]
    names = {"format", "nonce", "message"} if with_message else {"format", "nonce"}
    if not isinstance(envelope, ConfigRecord) or set(envelope) != names:
        raise _refused("envelope")
    nonce = envelope["nonce"]
    _demand(type(envelope["format"]) is int and envelope["format"] == FORMAT, "format")
    if type(nonce) is not bytes or len(nonce) != NONCE_BYTES:
        raise _refused("nonce")
    return nonce


def _text(value: object, pattern: re.Pattern[str]) -> str:
    if type(value) is not str or not pattern.fullmatch(value):
        raise _refused("hello")
    return value


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise _refused(what)


def _refused(what: str) -> ContentRefusedError:
    return ContentRefusedError(f"a message has other {what} than agreed; it was dropped unread")

"""Parsers of what comes over a network, a socket or a pipe, each with good inputs for the fuzz run."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn, cast

import httpx
from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from uvicorn.protocols.http.h11_impl import H11Protocol

from client.agent.control import SiteControl
from client.agent.control_client import EXIT_CODE_KEY
from client.agent.progress import ProgressFeed
from client.dicom.pool import WorkerProcess
from client.dicom.reject import Rejected
from client.installation.folder import SiteFolder
from client.installation.setup import set_up
from client.processes.frames import PREFIX, ChannelClosedError, receive
from client.processes.packing import packed
from client.status_page.application import hospital_page
from client.trainer.process import told
from common.control import site_control_pb2 as api
from common.errors import ExitCode
from common.flower.messages import Hello, from_content, hello_answer, read_hello, to_content
from common.secagg.messages import Packet, decode
from common.secagg.order import decode_order
from common.secagg.stages import SITE_RECEIVES, SITE_SENDS
from common.web.door import Door as PageDoor
from common.web.fields import read_form
from common.web.page_token import FILE_NAME, page_token
from common.web.serving import MAX_REQUEST_LINE_BYTES
from server.gateway.connections import MAX_HEAD_BYTES, ConnectionLimits, limited
from server.gateway.door import FLEET, Door, check_sender
from server.gateway.visitors import Visitors
from simulation.hostile.fuzz_http import Listener
from simulation.hostile.fuzz_seeds import Parsers, RoundSeeds, TrustSeeds, facts_of_a_scan

_PUSH: Final = PushMessagesRequest(
    node=Node(node_id=7),
    messages_list=[Message(metadata=Metadata(src_node_id=7, run_id=1))],
    message_object_trees=[ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id="b" * 64)])],
).SerializeToString()
_HOST: Final = "fedward.example"
_PORT: Final = 8700


def message_parsers(trust: TrustSeeds, place: Path) -> Parsers:
    """Return the parsers; ``place``: an empty folder for a hospital's files."""
    stages = RoundSeeds()
    messages = [_record(Packet(b"m" * 40, memoryview(p))) for p in (b"", b"p" * 400)]
    hello = recorddict_to_proto(hello_answer(Hello("north", "0" * 64), bytes(16))).SerializeToString()
    folder = SiteFolder(place / "site")
    set_up(folder, "north")
    control, page = _control(folder), _page(folder)
    approve = api.ApproveRequest(plan=trust.plan, signature=trust.plan_signature, approver="Dr Rao")
    return {
        "gateway: request": (_gateway(trust), _requests(trust)),
        "gateway: pushed message": (lambda content, _: check_sender(content), [_PUSH]),
        "site: message of the server": (lambda c, _: decode(c, SITE_RECEIVES), list(stages.of_server.values())),
        "server: message of a site": (lambda c, _: decode(c, SITE_SENDS), list(stages.of_sites.values())),
        "site: order": (lambda content, _: decode_order(content), [stages.order]),
        "both: content of a Flower message": (
            _flower(lambda record: from_content(record, max_payload_bytes=1 << 20)),
            messages,
        ),
        "server: a site's hello": (_flower(read_hello), [hello]),
        "page: form": (lambda content, _: read_form(content), [b"form=abc&person=Dr+Rao"]),
        "page: request": page,
        "agent: approval over the socket": (
            lambda content, _: _called(control, content),
            [approve.SerializeToString()],
        ),
        "ingest: worker's answer": (lambda content, _: _of_worker(content), _worker_answers()),
        "agent: trainer's answer": (lambda content, _: _of_trainer(content), [_frame({"failed": 51, "sentence": "x"})]),
    }


def _flower(read: Any) -> Any:
    """Return a parser of a Flower content that travelled; what Flower's own code refuses is not ours to judge."""

    def parse(content: bytes, _: Path) -> object:
        try:
            record: RecordDict = recorddict_from_proto(ProtoRecordDict.FromString(content))
        except Exception:  # noqa: BLE001 (Flower's)
            return None
        return read(record)

    return parse


def _record(packet: Packet) -> bytes:
    return bytes(recorddict_to_proto(to_content(packet, bytes(16))).SerializeToString())


def _gateway(trust: TrustSeeds) -> Any:
    """Return the door with a SuperLink behind it that answers anything; every visitor has come in before."""
    upstream = httpx.AsyncClient(
        base_url="https://superlink",
        transport=httpx.MockTransport(_superlink),
    )
    visitors = Visitors(version=lambda: 1, read=lambda: [trust.node])
    door = Door(upstream, visitors, hosts={_HOST})
    listener = Listener(door, limited(ConnectionLimits()), MAX_HEAD_BYTES)
    return lambda content, _: listener.answer(content)


def _superlink(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(b"ok"))


def _requests(trust: TrustSeeds) -> list[bytes]:
    """Return requests of an admitted hospital: two on one connection, one with a chunked body, one without its rest."""
    head = "".join(f"{name}: {value}\r\n" for name, value in trust.visitor_headers().items())
    push, beat = f"POST {FLEET}push-messages HTTP/1.1", f"POST {FLEET}send-node-heartbeat HTTP/1.1"
    whole = f"{push}\r\nHost: {_HOST}\r\n{head}Content-Length: {len(_PUSH)}\r\n\r\n".encode() + _PUSH
    small = f"{beat}\r\nHost: {_HOST}\r\n{head}Content-Length: 4\r\n\r\nbeat".encode()
    chunked = f"{beat}\r\nHost: {_HOST}\r\n{head}Transfer-Encoding: chunked\r\n\r\n4\r\nbeat\r\n0\r\n\r\n".encode()
    return [whole, small, small + whole, chunked, whole[:-5]]


def _page(folder: SiteFolder) -> Any:
    """Return the hospital's page behind its door, and requests with its token."""
    token = page_token(folder.path / FILE_NAME)
    door = PageDoor(hospital_page(folder.path), lambda: token, port=_PORT)
    listener = Listener(door, H11Protocol, MAX_REQUEST_LINE_BYTES)
    head = f"Host: 127.0.0.1:{_PORT}\r\nAuthorization: Bearer {token.text}\r\n"
    body = f"form={token.form}&person="  # nobody: a mutation that keeps the token still pauses nothing
    post = f"POST /pause HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}"
    gets = [f"GET {path} HTTP/1.1\r\n{head}\r\n" for path in ("/sheet/1", "/sheet/1.png", "/healthz")]
    return lambda content, _: listener.answer(content), [request.encode() for request in (post, *gets)]


class _AbortedError(Exception):
    """What gRPC raises to end a call."""


class _Call:
    """A call's context that keeps the exit code a refusal carries."""

    def __init__(self) -> None:
        self.exit_code = -1

    def set_trailing_metadata(self, pairs: Any) -> None:
        """Keep the code."""
        self.exit_code = int(dict(pairs)[EXIT_CODE_KEY])

    def abort(self, code: Any, text: str) -> NoReturn:
        """End the call."""
        raise _AbortedError(f"{code} {text}")


def _control(folder: SiteFolder) -> SiteControl:
    loop = cast("Any", SimpleNamespace(connection=0, tasks=0, rejected=0))
    return SiteControl(folder, "north", ProgressFeed(), loop)


def _called(control: SiteControl, content: bytes) -> object:
    """Ask the agent to approve; a refusal of its own is one, a fault is raised. Raises: _AbortedError."""
    try:
        request = api.ApproveRequest.FromString(content)
    except DecodeError:
        return None  # gRPC refuses it before us
    call = _Call()
    try:
        return control.Approve(request, cast("Any", call))
    except _AbortedError:
        if call.exit_code == ExitCode.INTERNAL:
            raise
        return call.exit_code


def _frame(head: dict[str, Any], body: bytes = b"") -> bytes:
    content = packed(head)
    return PREFIX.pack(len(content), len(body)) + content + body


def _worker_answers() -> list[bytes]:
    record = _frame({"end": False, "facts": facts_of_a_scan()}, bytes(2048))
    return [record + _frame({"end": True, "code": ""}), _frame({"end": True, "code": "parse"})]


def _pipe_of(content: bytes) -> int:
    """Return the end of a pipe from which ``content`` is read, and then nothing more."""
    replies, end = os.pipe2(os.O_CLOEXEC)
    os.write(end, content)
    os.close(end)
    return replies


def _of_worker(content: bytes) -> object:
    worker = WorkerProcess("none", (), {}, 4096)
    worker._replies = _pipe_of(content)  # noqa: SLF001 (no process of ours writes such bytes)
    worker._process = cast("Any", SimpleNamespace(pid=os.getpid()))  # noqa: SLF001
    try:
        return worker._next_outcome()  # noqa: SLF001
    except (ChannelClosedError, Rejected):
        return None
    finally:
        os.close(worker._replies)  # noqa: SLF001


def _of_trainer(content: bytes) -> object:
    replies = _pipe_of(content)
    try:
        head, _ = receive(replies, max_body_bytes=4096, timeout_s=5.0)
        return told(head) if "failed" in head else head
    except ChannelClosedError:
        return None
    finally:
        os.close(replies)

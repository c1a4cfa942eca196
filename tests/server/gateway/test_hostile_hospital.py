"""One admitted hospital does what it can to stall the door for the others."""

import asyncio
import socket
import threading
import time
import tracemalloc

import httpx
import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node

from server.gateway.connections import ConnectionLimits, bound_handshakes
from server.gateway.door import PUSH_MESSAGES, Door, Limits, RefusedError, check_sender
from server.gateway.places import NoPlaceError, Places
from server.gateway.wire_walk import WalkError, WalkLimits, walk

from .conftest import gateway_of, headers_of
from .test_gateway import ALLOWED, connect, head, read_all

KIND = PushMessagesRequest.DESCRIPTOR
EMPTY_MESSAGE = b"\x12\x02\x0a\x00"


def tree(depth):
    """A tree of objects, each within the other."""
    found = ObjectTree(object_id="a" * 64)
    for _ in range(depth):
        found = ObjectTree(object_id="a" * 64, children=[found])
    return found


def reply(**parts):
    message = Message(metadata=Metadata(src_node_id=7, run_id=1))
    return PushMessagesRequest(node=Node(node_id=7), messages_list=[message], **parts).SerializeToString()


def test_an_honest_reply_with_a_hundred_megabytes_of_objects_passes():
    objects = ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id=f"{i:064x}") for i in range(40)])
    check_sender(reply(message_object_trees=[objects], clientapp_runtime_list=[1.5]))


@pytest.mark.parametrize(
    ("case", "body"),
    {
        "four million empty messages": EMPTY_MESSAGE * (1 << 22),
        "two replies of its own": reply() + reply(),
        "its node twice": reply() + PushMessagesRequest(node=Node(node_id=7)).SerializeToString(),
        "half a million empty objects": reply(message_object_trees=[ObjectTree(children=[ObjectTree()] * 500_000)]),
        "a deep tree": reply(message_object_trees=[tree(60)]),
        "a field that no push has": reply() + b"\x7a\x00",
        "a group": reply() + b"\x0b\x0c",
        "a length beyond the end": b"\x12\x7f",
        "a length without end": b"\x12" + b"\xff" * 20,
        "a cut number": b"\x12",
        "a number where a message belongs": b"\x08\x01",
        "an enormous field number": b"\xf8\xff\xff\xff\x7f\x01",
    }.items(),
)
def test_a_push_that_no_supernode_sends_is_refused_in_little_memory(case, body):
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError) as refused:
            check_sender(body)
        assert refused.value.status == 400
        assert tracemalloc.get_traced_memory()[1] < 1 << 20, case
    finally:
        tracemalloc.stop()


def test_a_second_message_is_not_looked_into():
    with pytest.raises(WalkError, match="second one"):
        walk(reply() + b"\x12\x04\xff\xff\xff\xff", KIND, WalkLimits(), once=frozenset({"messages_list"}))


def test_the_walk_and_the_parser_agree_on_what_a_supernode_sends():
    for body in (b"", reply(), reply(message_object_trees=[tree(5)])):
        walk(body, KIND, WalkLimits())
        assert PushMessagesRequest.FromString(body).SerializeToString() == body


def test_while_one_hospital_pushes_bombs_anothers_request_is_answered(federation, superlink):
    """Bodies within the limit of bytes, full of fields."""
    bomb = EMPTY_MESSAGE * (Limits().max_push_bytes // len(EMPTY_MESSAGE))
    statuses = []

    def push(federation):
        with federation.client() as client:
            headers = headers_of(federation.node_keys["east"])
            statuses.extend(client.post(PUSH_MESSAGES, content=bomb, headers=headers).status_code for _ in range(5))

    with gateway_of(federation), federation.client() as client:
        threads = [threading.Thread(target=push, args=(federation,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        answered = [
            client.post(ALLOWED, headers=headers_of(federation.node_keys["west"])).status_code for _ in range(5)
        ]
        for thread in threads:
            thread.join()
    assert answered == [200] * 5
    assert set(statuses) <= {400, 503}
    assert [body for path, _, body in superlink.seen if path == PUSH_MESSAGES] == []


def test_large_bodies_of_one_hospital_wait_outside_while_another_comes_in(federation, superlink):
    limits = Limits(large_places=1, all_large_places=2, patience_s=0.5, body_timeout_s=20)
    large = "/v1/fleet/push-object"
    with gateway_of(federation, limits), connect(federation) as slow, federation.client() as client:
        slow.sendall(head(federation, path=large, length=1000) + b"half")
        time.sleep(0.2)
        east, west = (headers_of(federation.node_keys[name]) for name in ("east", "west"))
        assert client.post(large, content=bytes(1000), headers=east).status_code == 503
        assert client.post(large, content=bytes(1000), headers=west).status_code == 200
        assert client.post(ALLOWED, headers=east).status_code == 200


def test_a_site_that_gives_up_gives_its_places_back():
    async def story():
        places = Places(each=1, large_each=1, large=1, patience_s=5)
        holder = asyncio.create_task(hold(places))
        await asyncio.sleep(0)
        with pytest.raises(NoPlaceError):
            async with places.place("east", is_large=True):
                pass
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)
        async with places.place("east", is_large=True), places.place("west", is_large=False):
            pass

    async def hold(places):
        async with places.place("east", is_large=True):
            await asyncio.sleep(60)

    asyncio.run(story())


@pytest.mark.parametrize(
    "host",
    ["other.example", "localhost.other.example", "localhost:1:2", "x/v1/control/list-nodes?", "localhost@other", "[::"],
)
def test_a_request_for_another_host_is_refused(house, host):
    federation, superlink = house
    with connect(federation) as connection:
        request = head(federation, length=0).replace(f"localhost:{federation.address[1]}".encode(), host.encode(), 1)
        connection.sendall(request)
        assert read_all(connection).startswith((b"HTTP/1.1 421", b"HTTP/1.1 400"))
    assert superlink.seen == []


@pytest.mark.parametrize("host", [b"localhost", b"x/v1/control/list-nodes?", b"x/v1/fleet/push-object?", b"", b"a\nb"])
def test_the_path_that_reaches_the_superlink_is_the_one_that_was_checked(host):
    """Whatever an old web library makes of the Host header (starlette before 1.0 put it into the address)."""
    reached = []

    def superlink(request):
        reached.append(request.url.path)
        raise httpx.ConnectError("seen")

    class AnyVisitor:
        def site_of(self, headers):
            return "east"

    async def ask():
        upstream = httpx.AsyncClient(base_url="https://127.0.0.1:1", transport=httpx.MockTransport(superlink))
        await Door(upstream, AnyVisitor())(scope, receive, send)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        pass

    path = "/v1/fleet/pull-messages"
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", host)], "scheme": "https", "server": ("127.0.0.1", 1), "http_version": "1.1",
    }  # fmt: skip
    asyncio.run(ask())
    assert reached == ([path] if host == b"localhost" else [])


@pytest.mark.parametrize("length", ["9" * 19, "0" * 5000 + "1", "-1", "1e3", "+5"])
def test_a_length_of_any_size_gets_a_code(house, length):
    federation, _ = house
    with connect(federation) as connection:
        connection.sendall(head(federation, f"content-length: {length}"))
        assert read_all(connection).startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))


def test_a_body_without_an_announced_length_is_refused_unread(house):
    federation, _ = house
    with connect(federation) as connection:
        connection.sendall(head(federation, "transfer-encoding: chunked"))
        assert read_all(connection).startswith(b"HTTP/1.1 411")


def test_half_heads_make_room_before_idle_ones_and_work_is_never_cut_off(federation, superlink):
    with gateway_of(federation, connections=ConnectionLimits(connections=3)):
        working, idle, half = connect(federation), connect(federation), connect(federation)
        idle.sendall(head(federation, length=0))
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        superlink.delay_s = 2.0
        working.sendall(head(federation, length=0))
        half.sendall(b"POST /v1/fleet")
        time.sleep(0.2)
        with connect(federation) as newcomer:
            assert read_all(half) == b""
            newcomer.sendall(head(federation, length=0))
            time.sleep(0.2)
            with connect(federation):
                assert read_all(idle) == b"6\r\nanswer\r\n0\r\n\r\n"  # the rest of its answer, and the end
            assert newcomer.recv(65536).startswith(b"HTTP/1.1 200")
        assert working.recv(65536).startswith(b"HTTP/1.1 200")
        for connection in (working, idle, half):
            connection.close()


def test_of_many_unfinished_handshakes_the_oldest_is_dropped():
    """A stranger opens connections and says nothing at all."""

    async def story():
        bound_handshakes(asyncio.get_running_loop(), 2)
        server = await asyncio.start_server(
            lambda _, __: None, "127.0.0.1", 0, ssl=_context(), ssl_handshake_timeout=60
        )
        async with server:
            address = server.sockets[0].getsockname()
            silent = []
            for _ in range(4):
                silent.append(await asyncio.open_connection(*address))
                await asyncio.sleep(0.05)
            ended = [await _has_ended(reader) for reader, _ in silent]
            for _, writer in silent:
                writer.close()
        return ended

    assert asyncio.run(story()) == [True, True, False, False]


async def _has_ended(reader):
    try:
        return await asyncio.wait_for(reader.read(1), 0.2) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def _context():
    import ssl  # noqa: PLC0415 (for this one test)

    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def test_a_hospital_is_answered_while_a_stranger_holds_every_connection(federation, superlink):
    with gateway_of(federation, connections=ConnectionLimits(connections=8, from_address=8)):
        crowd = [socket.create_connection(federation.address, timeout=20) for _ in range(8)]
        crowd += [connect(federation) for _ in range(12)]
        with federation.client() as client:
            assert client.post(ALLOWED, headers=headers_of(federation.node_keys["west"])).status_code == 200
        for connection in crowd:
            connection.close()

"""The gateway on real sockets: twelve paths for admitted sites, bounded in size, time and number."""

import logging
import socket
import ssl
import time

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata
from flwr.proto.node_pb2 import Node

from server.federation.admission import dismiss, sign_next_roster
from server.federation.certificates import issue, new_authority, read_authority
from server.gateway.connections import ConnectionLimits
from server.gateway.door import FLEET_PATHS, PATHS, Limits

from .conftest import gateway_of, headers_of

ALLOWED = "/v1/fleet/pull-messages"


def head(federation, *extra, path=ALLOWED, length=None):
    """The first lines of a request, to be sent by hand."""
    lines = [f"POST {path} HTTP/1.1", f"host: localhost:{federation.address[1]}"]
    lines += [f"{name}: {value}" for name, value in headers_of(federation.node_keys["east"]).items()]
    lines += [f"content-length: {length}"] if length is not None else []
    return "\r\n".join([*lines, *extra, "", ""]).encode()


def connect(federation):
    raw = socket.create_connection(federation.address, timeout=20)
    return federation.trusting().wrap_socket(raw, server_hostname="localhost")


def read_all(connection):
    """Everything until the other side closes."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except (ConnectionError, ssl.SSLError):
        pass
    return received


def test_what_an_admitted_site_sends_reaches_the_superlink_and_the_answer_comes_back(house):
    federation, superlink = house
    with federation.client() as client:
        superlink.answer = bytes(range(256)) * 20_000  # five megabytes, as an object
        answer = client.post(ALLOWED, content=b"question", headers=headers_of(federation.node_keys["east"]))
    assert (answer.status_code, answer.content) == (200, superlink.answer)
    path, headers, body = superlink.seen[0]
    assert (path, body) == (ALLOWED, b"question")
    assert headers[b"flwr-public-key"]


def test_only_headers_that_flower_needs_pass_in_either_direction(house):
    federation, superlink = house
    with federation.client() as client:
        headers = headers_of(federation.node_keys["east"]) | {"x-forwarded-for": "1.2.3.4", "cookie": "a=b"}
        answer = client.post(ALLOWED, headers=headers)
    assert {b"x-forwarded-for", b"cookie"}.isdisjoint(superlink.seen[0][1])
    assert answer.headers["flwr-note"] == "kept"
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/health",
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages?x=1",
        "/v1/fleet/%70ull-messages",
        "//v1/fleet/pull-messages",
        "/v1/fleet/../fleet/pull-messages",
        "/V1/fleet/pull-messages",
    ],
)
def test_every_other_path_is_not_found_even_for_an_admitted_site(house, path):
    federation, superlink = house
    with connect(federation) as connection:
        connection.sendall(head(federation, path=path, length=0))
        assert read_all(connection).startswith(b"HTTP/1.1 404")
    assert superlink.seen == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "CONNECT", "TRACE"])
def test_every_other_method_is_not_found(house, method):
    federation, superlink = house
    with federation.client() as client:
        answer = client.request(method, ALLOWED, headers=headers_of(federation.node_keys["east"]))
    assert answer.status_code == 404
    assert superlink.seen == []


def stranger():
    return headers_of(ec.generate_private_key(ec.SECP384R1()))


def borrowed(federation):
    """The key of a site, signed by another: what a stranger who saw a public key could send."""
    return stranger() | {"flwr-public-key": headers_of(federation.node_keys["east"])["flwr-public-key"]}


@pytest.mark.parametrize(
    ("case", "headers"),
    {
        "no headers": lambda _: {},
        "a stranger's key": lambda _: stranger(),
        "a site's key with a stranger's signature": borrowed,
        "a signature over another time": lambda f: (
            headers_of(f.node_keys["east"]) | {"flwr-timestamp": "2026-01-01T00:00:00+00:00"}
        ),
        "no base64": lambda f: headers_of(f.node_keys["east"]) | {"flwr-signature": "%%%"},
        "an empty key": lambda f: headers_of(f.node_keys["east"]) | {"flwr-public-key": ""},
    }.items(),
)
def test_a_stranger_is_refused_before_the_body_is_read(house, case, headers):
    federation, superlink = house
    with connect(federation) as connection:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers(federation).items())
        start = f"POST {ALLOWED} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n{lines}\r\n"
        connection.sendall(start.encode())  # and none of the million bytes
        assert read_all(connection).startswith(b"HTTP/1.1 401"), case
    assert superlink.seen == []


def test_a_site_that_was_dismissed_is_shut_out_by_the_next_roster_while_the_gateway_runs(federation, superlink):
    with gateway_of(federation), federation.client() as client:
        east = federation.node_keys["east"]
        assert client.post(ALLOWED, headers=headers_of(east)).status_code == 200
        dismiss(federation.folder, "east")
        sign_next_roster(federation.folder, "lungs")
        assert client.post(ALLOWED, headers=headers_of(east)).status_code == 401
        assert client.post(ALLOWED, headers=headers_of(federation.node_keys["west"])).status_code == 200


def test_a_damaged_roster_lets_the_former_list_stand(federation, superlink):
    with gateway_of(federation), federation.client() as client:
        east = federation.node_keys["east"]
        assert client.post(ALLOWED, headers=headers_of(east)).status_code == 200
        federation.folder.roster.write_text("{")
        assert client.post(ALLOWED, headers=headers_of(east)).status_code == 200
        assert client.post(ALLOWED, headers=stranger()).status_code == 401


def test_an_announced_body_over_the_limit_is_refused_before_it_is_sent(house):
    federation, superlink = house
    with connect(federation) as connection:
        connection.sendall(head(federation, length=(16 << 20) + 1))
        assert read_all(connection).startswith(b"HTTP/1.1 413")
    assert superlink.seen == []


def test_an_unannounced_body_over_the_limit_is_cut_off(federation, superlink):
    limits = Limits(max_body_bytes=100_000)
    with gateway_of(federation, limits), connect(federation) as connection:
        connection.sendall(head(federation, "transfer-encoding: chunked"))
        piece = b"8000\r\n" + bytes(0x8000) + b"\r\n"
        try:
            for _ in range(1000):
                connection.sendall(piece)
        except OSError:
            pass  # the gateway closed while we were still sending
        else:
            pytest.fail("the gateway read 32 megabytes")
    assert superlink.seen == []


def test_a_body_of_exactly_the_limit_passes(federation, superlink):
    with gateway_of(federation, Limits(max_body_bytes=100_000)), federation.client() as client:
        headers = headers_of(federation.node_keys["east"])
        assert client.post(ALLOWED, content=bytes(100_000), headers=headers).status_code == 200
        assert client.post(ALLOWED, content=bytes(100_001), headers=headers).status_code == 413


def test_a_body_that_does_not_come_times_out(federation, superlink):
    with gateway_of(federation, Limits(body_timeout_s=0.3)), connect(federation) as connection:
        connection.sendall(head(federation, length=10) + b"half")
        assert read_all(connection).startswith(b"HTTP/1.1 408")
    assert superlink.seen == []


@pytest.mark.parametrize("sent", ["", "POST /v1/fleet/pull-", f"POST {ALLOWED} HTTP/1.1\r\nhost: localhost\r\n"])
def test_headers_that_do_not_come_end_the_connection(federation, sent):
    with gateway_of(federation, connections=ConnectionLimits(head_timeout_s=0.3)), connect(federation) as connection:
        connection.sendall(sent.encode())
        assert read_all(connection) == b""


def test_headers_that_do_not_come_after_a_first_request_end_the_connection(federation, superlink):
    with gateway_of(federation, connections=ConnectionLimits(head_timeout_s=0.5)), connect(federation) as connection:
        connection.sendall(head(federation, length=0))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"POST /v1/fleet/pull-")
        assert b"HTTP/1.1" not in read_all(connection)


def test_headers_that_grow_without_end_are_refused(house):
    federation, superlink = house
    with connect(federation) as connection:
        connection.sendall(head(federation, *["x: " + "a" * 200] * 200, length=0)[:-2])
        assert read_all(connection).startswith(b"HTTP/1.1 400")
    assert superlink.seen == []


def test_one_address_cannot_hold_all_connections(federation, superlink):
    with gateway_of(federation, connections=ConnectionLimits(from_address=2)):
        first, second, third = (connect(federation) for _ in range(3))
        with first, second, third:
            assert read_all(first) == b""  # the oldest of those that do nothing makes room
            for connection in (second, third):
                connection.sendall(head(federation, length=0))
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_one_site_cannot_hold_all_places(federation, superlink):
    limits = Limits(places=2, body_timeout_s=5)
    with gateway_of(federation, limits), connect(federation) as one, connect(federation) as two:
        for connection in (one, two):
            connection.sendall(head(federation, length=10) + b"half")
        time.sleep(0.3)
        with federation.client() as client:
            assert client.post(ALLOWED, headers=headers_of(federation.node_keys["east"])).status_code == 503
            assert client.post(ALLOWED, headers=headers_of(federation.node_keys["west"])).status_code == 200


def test_while_the_superlink_is_away_sites_are_told_to_try_again(federation):
    with gateway_of(federation), federation.client() as client:
        assert client.post(ALLOWED, headers=headers_of(federation.node_keys["east"])).status_code == 503


def test_a_superlink_that_does_not_answer_is_as_good_as_away(federation, superlink):
    superlink.delay_s = 5.0
    with gateway_of(federation, Limits(forward_timeout_s=0.3)), federation.client() as client:
        assert client.post(ALLOWED, headers=headers_of(federation.node_keys["east"])).status_code == 503


def test_a_superlink_with_another_certificate_gets_nothing(federation, superlink):
    """Somebody else may listen on its port while it is away."""
    other = new_authority("somebody else")
    with gateway_of_trusting(federation, other), federation.client() as client:
        assert client.post(ALLOWED, headers=headers_of(federation.node_keys["east"])).status_code == 503
    assert superlink.seen == []


def gateway_of_trusting(federation, authority):
    (federation.folder.superlink / "tls" / "ca.crt").write_bytes(authority.pem)
    return gateway_of(federation)


def push(node, *senders):
    messages = [Message(metadata=Metadata(src_node_id=sender, run_id=1)) for sender in senders]
    return PushMessagesRequest(node=Node(node_id=node), messages_list=messages).SerializeToString()


@pytest.mark.parametrize(
    ("case", "body", "status"),
    [
        ("its own reply", push(7, 7), 200),
        ("no reply", push(7), 200),
        ("another site's reply", push(7, 8), 400),
        ("another site's reply behind its own", push(7, 7, 8), 400),
        ("no protobuf", b"\xff\xff\xff", 400),
    ],
)
def test_replies_must_bear_the_node_that_sends_them(house, case, body, status):
    federation, superlink = house
    with federation.client() as client:
        headers = headers_of(federation.node_keys["east"])
        answer = client.post("/v1/fleet/push-messages", content=body, headers=headers)
    assert answer.status_code == status, case
    assert len(superlink.seen) == (status == 200)


def test_tls_older_than_1_3_is_refused(federation):
    old = federation.trusting()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with gateway_of(federation), federation.client(verify=old) as client, pytest.raises(httpx.ConnectError):
        client.post(ALLOWED)


def test_plain_http_is_refused(federation):
    with gateway_of(federation), socket.create_connection(federation.address, timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert not read_all(connection).startswith(b"HTTP")


def test_with_mutual_tls_only_certificates_of_the_authority_come_in(federation, superlink):
    authority = new_authority("sites")
    place = federation.folder.path
    (place / "clients.crt").write_bytes(authority.pem)
    text = federation.folder.config.read_text()
    federation.folder.config.write_text(text.replace('client_ca = ""', f'client_ca = "{place}/clients.crt"'))
    ours, other = issue(authority, ["east"]), issue(read_authority(*ca_of(federation)), ["east"])
    with gateway_of(federation):
        for certificate, comes_in in ((ours, True), (other, False), (None, False)):
            context = federation.trusting()
            if certificate:
                (place / "client.pem").write_bytes(certificate.pem + certificate.key_pem)
                context.load_cert_chain(place / "client.pem")
            with federation.client(verify=context) as client:
                headers = headers_of(federation.node_keys["east"])
                if comes_in:
                    assert client.post(ALLOWED, headers=headers).status_code == 200
                else:
                    with pytest.raises(httpx.TransportError):
                        client.post(ALLOWED, headers=headers)


def ca_of(federation):
    return federation.folder.ca_certificate, federation.folder.ca_key


def test_the_log_names_sites_and_codes_and_nothing_else(federation, superlink, caplog):
    caplog.set_level(logging.DEBUG, logger="fedward.gateway")
    with gateway_of(federation), federation.client() as client:
        client.post("/v1/control/start-run?secret=1", headers=headers_of(federation.node_keys["east"]))
        client.post(ALLOWED, content=bytes(17 << 20), headers=headers_of(federation.node_keys["east"]))
    said = [record.getMessage() for record in caplog.records if record.name == "fedward.gateway"]
    assert said == ["a stranger: 404", "east: 413"]


def test_there_are_ten_paths_of_flower_and_two_for_encoders():
    assert len(FLEET_PATHS) == 10
    assert len(PATHS) == 12

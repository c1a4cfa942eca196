"""Octets that two readers could understand in two ways: the gateway forwards nothing of them to another path."""

import re

import httpx
import pytest

from server.gateway.connections import MAX_HEAD_BYTES, ConnectionLimits, limited
from server.gateway.door import FLEET, Door
from server.gateway.visitors import Visitors
from simulation.hostile.fuzz_http import Listener

BEAT = f"{FLEET}send-node-heartbeat"
HOST = "Host: fedward.example"
LENGTH = "Content-Length: 4"
SMUGGLED = f"POST {FLEET}push-object HTTP/1.1\r\n{HOST}\r\nContent-Length: 0\r\n\r\n"


class Everybody(Visitors):
    """Every visitor is an admitted hospital: what is left is the form of the request."""

    def __init__(self) -> None:
        super().__init__(version=lambda: 0, read=list)

    def site_of(self, headers) -> str:
        return "north"


@pytest.fixture(scope="module")
def gateway():
    forwarded = []

    def superlink(request):
        forwarded.append(request.url.raw_path.decode())
        return httpx.Response(200, stream=httpx.ByteStream(b"ok"))

    upstream = httpx.AsyncClient(base_url="https://superlink", transport=httpx.MockTransport(superlink))
    door = Door(upstream, Everybody(), hosts={"fedward.example"})
    listener = Listener(door, limited(ConnectionLimits()), MAX_HEAD_BYTES)

    def send(*lines, body="beat"):
        forwarded.clear()
        written = listener.answer("\r\n".join([*lines, "", body]).encode("latin-1"))
        return [int(status) for status in re.findall(rb"HTTP/1.1 (\d{3}) ", written)], list(forwarded)

    return send


def test_a_plain_request_passes_and_a_second_one_on_its_connection(gateway):
    line = f"POST {BEAT} HTTP/1.1"
    assert gateway(line, HOST, LENGTH) == ([200], [BEAT])
    again = f"{line}\r\n{HOST}\r\n{LENGTH}\r\n\r\nbeat"
    assert gateway(line, HOST, LENGTH, body=f"beat{again}") == ([200, 200], [BEAT, BEAT])


REFUSED = {
    "two hosts": ([f"POST {BEAT} HTTP/1.1", HOST, "Host: other.example", LENGTH], 400),
    "the same host twice": ([f"POST {BEAT} HTTP/1.1", HOST, HOST, LENGTH], 400),
    "a host on two lines": ([f"POST {BEAT} HTTP/1.1", "Host: fedward.example", " other.example", LENGTH], 421),
    "a host with somebody's name before it": ([f"POST {BEAT} HTTP/1.1", "Host: x@fedward.example", LENGTH], 421),
    "a host with a path": ([f"POST {BEAT} HTTP/1.1", "Host: fedward.example/v1/control/list-nodes?", LENGTH], 421),
    "another host": ([f"POST {BEAT} HTTP/1.1", "Host: superlink", LENGTH], 421),
    "no host": ([f"POST {BEAT} HTTP/1.1", LENGTH], 400),
    "an absolute address": ([f"POST https://fedward.example{BEAT} HTTP/1.1", HOST, LENGTH], 404),
    "an absolute address of another host": (
        ["POST https://superlink/v1/control/list-nodes HTTP/1.1", HOST, LENGTH],
        404,
    ),
    "a percent-encoded letter": ([f"POST {BEAT.replace('send', '%73end')} HTTP/1.1", HOST, LENGTH], 404),
    "a percent-encoded slash": ([f"POST {FLEET}..%2fcontrol%2flist-nodes HTTP/1.1", HOST, LENGTH], 404),
    "steps upwards": ([f"POST {FLEET}../control/list-nodes HTTP/1.1", HOST, LENGTH], 404),
    "a doubled slash": ([f"POST /{BEAT} HTTP/1.1", HOST, LENGTH], 404),
    "a slash at the end": ([f"POST {BEAT}/ HTTP/1.1", HOST, LENGTH], 404),
    "a query": ([f"POST {BEAT}?x=1 HTTP/1.1", HOST, LENGTH], 404),
    "another method": ([f"GET {BEAT} HTTP/1.1", HOST], 404),
    "a body in chunks": ([f"POST {BEAT} HTTP/1.1", HOST, "Transfer-Encoding: chunked"], 411),
    "a length and chunks": ([f"POST {BEAT} HTTP/1.1", HOST, LENGTH, "Transfer-Encoding: chunked"], 411),
    "chunks of another name": ([f"POST {BEAT} HTTP/1.1", HOST, "Transfer-Encoding: gzip, chunked"], 400),
    "two lengths": ([f"POST {BEAT} HTTP/1.1", HOST, LENGTH, "Content-Length: 5"], 400),
    "a length with a sign": ([f"POST {BEAT} HTTP/1.1", HOST, "Content-Length: +4"], 400),
    "a length of a thousand digits": ([f"POST {BEAT} HTTP/1.1", HOST, "Content-Length: " + "9" * 1000], 400),
    "a negative length": ([f"POST {BEAT} HTTP/1.1", HOST, "Content-Length: -4"], 400),
    "a name with a space before its colon": ([f"POST {BEAT} HTTP/1.1", HOST, "Content-Length : 4"], 400),
    "a line that ends with a line feed alone": ([f"POST {BEAT} HTTP/1.1\nHost: x", HOST, LENGTH], 400),
    "HTTP 1.0 that stays": ([f"POST {BEAT} HTTP/1.0", HOST, LENGTH, "Connection: keep-alive", "Upgrade: h2c"], None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_with_two_meanings_gets_a_code_and_nothing_after_it_is_read(gateway, case):
    lines, status = REFUSED[case]
    statuses, forwarded = gateway(*lines, body=f"4\r\nbeat\r\n0\r\n\r\n{SMUGGLED}")
    if status is not None:
        assert statuses == [status]
        assert forwarded == []
    assert f"{FLEET}push-object" not in forwarded

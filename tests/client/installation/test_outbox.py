"""The outbox: the one door, its list, and its record."""

import hashlib
import json
import sys

import pytest

from client.__main__ import main
from client.installation.outbox import HELLO, KINDS, MAX_HELLO_BYTES, Outbox, OutboxRefusedError
from common.errors import ExitCode
from common.secagg.messages import Packet
from common.secagg.stages import Kind
from common.secagg.wire import MAX_MESSAGE_BYTES
from common.trust.errors import ChainBrokenError

STUDY = "ab" * 32


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path / "outbox.chain", clock=lambda: 1_000_000.5)


def test_what_leaves_is_recorded_with_kind_size_and_digest_but_not_content(outbox, tmp_path):
    packet = Packet(b"header", memoryview(b"masked words"))
    assert outbox.release(Kind.MASKED, packet, study=STUDY, max_payload_bytes=12) is packet
    entry = next(outbox.links()).entry
    assert entry == {
        "time": 1_000_000,
        "kind": "masked",
        "study": STUDY,
        "message_bytes": 6,
        "payload_bytes": 12,
        "sha256": hashlib.sha256(b"headermasked words").hexdigest(),
    }
    assert b"masked words" not in (tmp_path / "outbox.chain").read_bytes()


REFUSED = {
    "a kind that only the server sends": (Kind.ORDER, Packet(b"x"), 0),
    "a kind nobody knows": ("metrics", Packet(b'{"loss": 0.3}'), 0),
    "a payload beside keys": (Kind.KEYS, Packet(b"x", memoryview(b"update")), 100),
    "a payload beside a refusal": (Kind.REFUSAL, Packet(b"x", memoryview(b"update")), 100),
    "a vector longer than the plan's": (Kind.MASKED, Packet(b"x", memoryview(bytes(13))), 12),
    "a message over the limit": (Kind.SHARES, Packet(bytes(MAX_MESSAGE_BYTES + 1)), 0),
    "a hello that tells a story": (HELLO, Packet(bytes(MAX_HELLO_BYTES + 1)), 0),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_on_the_list_does_not_leave_and_is_not_recorded(case, outbox):
    kind, packet, most = REFUSED[case]
    with pytest.raises(OutboxRefusedError):
        outbox.release(kind, packet, study=STUDY, max_payload_bytes=most)
    assert list(outbox.links()) == []


def test_no_kind_of_the_list_is_one_that_the_server_sends():
    assert KINDS.isdisjoint({Kind.ORDER, Kind.KEYLIST, Kind.FORWARD, Kind.SURVIVORS, Kind.CERTIFICATE, Kind.RESULT})


def test_totals_add_up_by_kind(outbox):
    for _ in range(3):
        outbox.release(Kind.KEYS, Packet(b"12345"), study=STUDY)
    outbox.release(Kind.MASKED, Packet(b"1", memoryview(bytes(10))), study=STUDY, max_payload_bytes=10)
    totals = outbox.totals()
    assert totals.messages == {"keys": 3, "masked": 1}
    assert totals.bytes == {"keys": 15, "masked": 11}


def test_a_changed_record_stops_everything(outbox, tmp_path):
    outbox.release(Kind.KEYS, Packet(b"12345"), study=STUDY)
    path = tmp_path / "outbox.chain"
    path.write_bytes(path.read_bytes().replace(b'"message_bytes":5', b'"message_bytes":4'))
    with pytest.raises(ChainBrokenError):
        Outbox(path)


@pytest.fixture
def fedward_site(monkeypatch, capsys):
    """Run the command in this process, through the entry point of the console script."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedward-site", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        written = capsys.readouterr()
        return int(left.value.code or 0), written.out, written.err

    return call


def test_staff_see_what_left_by_kind(outbox, tmp_path, fedward_site):
    outbox.release(Kind.MASKED, Packet(b"1", memoryview(bytes(2000))), study=STUDY, max_payload_bytes=2000)
    code, text, _ = fedward_site("outbox", "--site-folder", tmp_path, "--lines", 1)
    assert code == 0
    for part in ("masked", "2,001", outbox.head, "1970-01-12T13:46:40+00:00", STUDY[:12]):
        assert part in text
    code, text, _ = fedward_site("outbox", "--site-folder", tmp_path, "--json")
    assert json.loads(text)["kinds"] == {"masked": {"messages": 1, "bytes": 2001}}


def test_a_record_that_was_changed_is_told_so(outbox, tmp_path, fedward_site):
    outbox.release(Kind.KEYS, Packet(b"12345"), study=STUDY)
    assert fedward_site("outbox", "--site-folder", tmp_path, "--verify")[0] == 0
    path = tmp_path / "outbox.chain"
    path.write_bytes(path.read_bytes().replace(b'"kind":"keys"', b'"kind":"hello"'))
    code, _, sentence = fedward_site("outbox", "--site-folder", tmp_path, "--verify")
    assert code == ExitCode.CHAIN_BROKEN
    assert "line 1 does not fit" in sentence


def test_a_folder_without_a_record_is_told_so(tmp_path, fedward_site):
    assert fedward_site("outbox", "--site-folder", tmp_path)[0] == ExitCode.NOT_ENROLLED

"""The chain: what is written stays, and whatever is changed afterwards is noticed."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.trust.canonical import canonical_bytes
from common.trust.errors import ChainBrokenError
from common.trust.hash_chain import START, HashChain


@pytest.fixture
def chain(tmp_path):
    chain = HashChain(tmp_path / "outbox", "outbox")
    for number in range(5):
        chain.append({"number": number, "kind": "keys"})
    return chain


def test_lines_read_back_in_order_with_the_head_at_the_end(chain):
    links = list(chain.links())
    assert [link.entry["number"] for link in links] == [0, 1, 2, 3, 4]
    assert links[-1].hash == chain.head


def test_an_empty_chain_has_a_head_of_zeros(tmp_path):
    assert HashChain(tmp_path / "outbox", "outbox").head == START


def test_a_chain_goes_on_where_it_was_when_opened_again(chain):
    again = HashChain(chain.path, "outbox")
    assert (again.head, again.count) == (chain.head, 5)
    again.append({"number": 5})
    assert len(list(again.links())) == 6


def test_two_open_chains_on_one_file_take_turns(chain):
    other = HashChain(chain.path, "outbox")
    for number in range(5, 9):
        (chain if number % 2 else other).append({"number": number})
    assert [link.entry["number"] for link in chain.links()] == list(range(9))


def rewrite(chain, lines):
    chain.path.write_bytes(b"".join(lines))


CHANGES = {
    "a line is removed": lambda lines: lines[:2] + lines[3:],
    "two lines change places": lambda lines: [lines[1], lines[0], *lines[2:]],
    "a line is repeated": lambda lines: [*lines[:3], lines[2], *lines[3:]],
    "the first line is cut off": lambda lines: lines[1:],
    "a value is changed": lambda lines: [lines[0].replace(b"keys", b"kays"), *lines[1:]],
    "an unknown field is added": lambda lines: [lines[0].replace(b"{", b'{"a":1,', 1), *lines[1:]],
    "a line is no JSON": lambda lines: [*lines[:2], b"hello\n", *lines[3:]],
    "a line is deeply nested": lambda lines: [*lines[:2], b"[" * 10_000 + b"\n", *lines[3:]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_record_is_refused_and_left_as_it_is(change, chain):
    rewrite(chain, CHANGES[change](chain.path.read_bytes().splitlines(keepends=True)))
    before = chain.path.read_bytes()
    with pytest.raises(ChainBrokenError, match="does not fit the chain"):
        HashChain(chain.path, "outbox")
    assert chain.path.read_bytes() == before


def test_the_record_of_one_chain_does_not_fit_another(chain):
    with pytest.raises(ChainBrokenError):
        HashChain(chain.path, "audit")


def test_lines_cut_off_the_end_show_in_the_head(chain):
    seen = chain.head
    rewrite(chain, chain.path.read_bytes().splitlines(keepends=True)[:4])
    shorter = HashChain(chain.path, "outbox")
    assert shorter.head != seen
    assert seen not in {link.hash for link in shorter.links()}


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_torn_by_a_crash_is_dropped(cut, chain):
    chain.path.write_bytes(chain.path.read_bytes()[:-cut])
    again = HashChain(chain.path, "outbox")
    assert again.count == 4
    again.append({"number": 4})
    assert [link.entry["number"] for link in again.links()] == [0, 1, 2, 3, 4]


def small_disk(monkeypatch, room):
    """Let the disk take so many bytes more, and a part of a line where there is not enough room for it."""
    real, left = os.pwrite, [room]

    def pwrite(descriptor, content, offset):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(descriptor, content[: left[0]], offset)
        left[0] -= count
        return count

    monkeypatch.setattr(os, "pwrite", pwrite)


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_line_that_the_disk_does_not_take_leaves_nothing_and_the_same_chain_goes_on_afterwards(
    chain, monkeypatch, room
):
    before, other = chain.path.read_bytes(), HashChain(chain.path, "outbox")
    with monkeypatch.context() as patch:
        small_disk(patch, room)
        with pytest.raises(OSError, match="No space"):
            chain.append({"number": "lost"})
    assert chain.path.read_bytes() == before
    other.append({"number": 5})
    chain.append({"number": 6})
    assert [link.entry["number"] for link in chain.links()] == list(range(7))


def test_only_the_owner_can_read_the_record(chain):
    assert chain.path.stat().st_mode & 0o777 == 0o600


def test_a_line_too_long_is_refused_before_it_is_written(chain):
    with pytest.raises(ValueError, match="the limit is"):
        chain.append({"text": "x" * 100_000})
    assert len(list(chain.links())) == 5


@settings(max_examples=100)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_passes(position, bit, tmp_path_factory):
    path = tmp_path_factory.mktemp("chain") / "outbox"
    chain = HashChain(path, "outbox")
    for number in range(3):
        chain.append({"number": number, "kind": "masked"})
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        again = HashChain(path, "outbox")
    except ChainBrokenError:
        return
    # only a lost line end looks like a torn last line; then the record is shorter, and its head tells
    assert again.count < 3
    assert again.head != chain.head


WRITER = """
import sys
from pathlib import Path
from common.trust.hash_chain import HashChain
chain = HashChain(Path(sys.argv[1]), "outbox")
number = chain.count
while True:
    chain.append({"number": number})
    print(number, flush=True)
    number += 1
"""


def test_whatever_was_acknowledged_survives_kill_9(tmp_path, repository):
    path, acknowledged = tmp_path / "outbox", -1
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(repository)},
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().splitlines()
        process.wait()
        acknowledged = int(lines[-1]) if lines else acknowledged
        numbers = [link.entry["number"] for link in HashChain(path, "outbox").links()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged


def test_a_line_is_the_canonical_text_of_its_document(chain):
    for entry in ({"b": 1, "a": 'quote " and ä'}, {}, {"list": [1.5, None, True], "z": {"y": "\n"}}):
        link = chain.append(entry)
        line = chain.path.read_bytes().splitlines()[-1]
        assert line == canonical_bytes({"entry": entry, "hash": link.hash})


def test_the_form_of_a_line_is_plain_json(chain):
    line = json.loads(chain.path.read_bytes().splitlines()[0])
    assert line["entry"] == {"number": 0, "kind": "keys"}

"""The injective encoding: no two lists of fields give the same bytes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.secagg.encoding import digest, encode_injectively, labelled
from common.secagg.sealed_shares import SEALED_BYTES, SharePair, seal, unseal
from common.secagg.thresholds import default_threshold, is_reachable, least_survivors, never_both_kinds

KEY, SID = bytes(range(32)), bytes(32)
PAIR = SharePair(bytes(66), bytes([1]) * 66)


@given(st.lists(st.binary(max_size=6), max_size=5), st.lists(st.binary(max_size=6), max_size=5))
def test_two_lists_of_fields_have_one_encoding_only_if_they_are_equal(one: list[bytes], other: list[bytes]) -> None:
    assert (encode_injectively(*one) == encode_injectively(*other)) == (one == other)


def test_fields_cut_elsewhere_differ() -> None:
    cuts = [("ab", "c"), ("a", "bc"), ("abc",), ("", "abc"), ("abc", ""), (["ab", "c"],), (["a", "bc"],)]
    assert len({encode_injectively(*cut) for cut in cuts}) == len(cuts)


def test_labels_and_the_protocol_are_part_of_every_digest() -> None:
    assert labelled("a", "b").startswith(b"\x00\x00\x00\x10fedward-secagg/2")
    assert len({digest("a", "b"), digest("b", "a"), digest("ab"), digest("a", "b", "")}) == 4


def test_known_bytes() -> None:
    assert encode_injectively("ab", 7, b"\x00", [b"x"]).hex() == (
        "0000000261620000000800000000000000070000000100000000050000000178"
    )


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_that_does_not_fit_is_no_field(number: int) -> None:
    with pytest.raises(OverflowError):
        encode_injectively(number)


def test_sealed_shares_open_for_the_receiver_and_have_one_size() -> None:
    sealed = seal(KEY, PAIR, session_id=SID, dealer="aa", receiver="bb")
    assert len(sealed) == SEALED_BYTES == 148
    opened = unseal(KEY, sealed, session_id=SID, dealer="aa", receiver="bb")
    assert opened == PAIR
    assert "\\x01" not in repr(opened)


OTHERS = {
    "another key": {"key": bytes(32)},
    "another session": {"session_id": bytes([1]) * 32},
    "another dealer": {"dealer": "ab"},
    "another receiver": {"receiver": "cc"},
    "both ends exchanged": {"dealer": "bb", "receiver": "aa"},
}


@pytest.mark.parametrize("sentence", OTHERS)
def test_sealed_shares_do_not_open_under(sentence: str) -> None:
    sealed = seal(KEY, PAIR, session_id=SID, dealer="aa", receiver="bb")
    asked = {"key": KEY, "session_id": SID, "dealer": "aa", "receiver": "bb"} | OTHERS[sentence]
    assert unseal(asked.pop("key"), sealed, **asked) is None


def test_no_single_changed_byte_opens() -> None:
    sealed = bytearray(seal(KEY, PAIR, session_id=SID, dealer="aa", receiver="bb"))
    for position in range(len(sealed)):
        sealed[position] ^= 1
        assert unseal(KEY, bytes(sealed), session_id=SID, dealer="aa", receiver="bb") is None
        sealed[position] ^= 1


@pytest.mark.parametrize(
    ("n", "c", "t", "tolerated"),
    [(3, 0, 2, 1), (3, 1, 3, 0), (4, 1, 3, 1), (5, 0, 3, 2), (5, 1, 4, 1), (7, 1, 5, 2), (10, 1, 6, 4), (10, 3, 7, 3),
     (20, 3, 12, 8), (50, 5, 28, 22), (100, 10, 56, 44), (100, 33, 67, 33)],
)  # fmt: skip
def test_the_threshold_of_the_table(n: int, c: int, t: int, tolerated: int) -> None:
    assert default_threshold(n, c) == t
    assert n - t == tolerated
    assert never_both_kinds(n, t, c)
    assert not never_both_kinds(n, t - 1, c)


def test_no_coalition_gets_both_kinds_of_share_of_one_site() -> None:
    """By counting: each honest site opens one kind, each colluder both; both kinds need t openers each."""
    for n, c in itertools.product(range(3, 12), range(5)):
        for t in range(1, n + 1):
            honest = n - min(c, n)
            possible = any(ones + c >= t and honest - ones + c >= t for ones in range(honest + 1))
            if never_both_kinds(n, t, c):
                assert not possible


def test_two_honest_updates_are_in_every_sum() -> None:
    assert [least_survivors(c) for c in range(5)] == [3, 3, 4, 5, 6]
    assert is_reachable(3, 3)
    assert not is_reachable(3, 4)
    assert not is_reachable(3, 0)

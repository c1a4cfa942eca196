"""The wire format: one encoding for each content, and a code for everything else, within bounded memory."""

import random
import tracemalloc
from dataclasses import fields, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secagg.encoding import PROTOCOL
from common.secagg.messages import MESSAGES, Keys, Result, Unmask, decode, encode
from common.secagg.order import Order, decode_order, encode_order
from common.secagg.refusals import Check, CheckSet, RefusedError
from common.secagg.stages import Kind
from common.secagg.wire import MAX_MESSAGE_BYTES, MAX_SITES, WireError

ALL = frozenset(Kind)
SPECIAL: dict[str, Any] = {
    "site_id": "site-one",
    "about": "",
    "code": 127,
    "last_attempt": 7,
    "divisor": 3.5,
    "dealers": ("aa", "bb"),
    "signature": bytes(64),
    "share": bytes(66),
    "order": b"order",
}


def example_of(record: type[Any], site_id: str = "site-one") -> Any:
    """A message with made-up content of the right form."""
    values: dict[str, Any] = {}
    for each in fields(record):
        if each.name in {"entries", "survivors", "witnesses", "seed_shares", "key_shares"} or (
            each.name == "sealed" and record.__name__ != "SealedShares"
        ):
            member = _members(record, each.name)
            values[each.name] = tuple(example_of(member, name) for name in ("aa", "bb"))
        elif each.name == "sealed":
            values[each.name] = bytes(148)
        elif each.name == "site_id":
            values[each.name] = site_id
        else:
            values[each.name] = SPECIAL.get(each.name, bytes(range(32)))
    return record(**values)


def _members(record: type[Any], name: str) -> type[Any]:
    return record.__annotations__[name].__args__[0]  # type: ignore[no-any-return]


EXAMPLES = {kind: example_of(record) for kind, record in MESSAGES.items()}


def code_of(octets: bytes, checks: CheckSet | None = None) -> Check | None:
    try:
        decode(octets, ALL, checks or CheckSet())
    except RefusedError as refused:
        return refused.check
    return None


@pytest.mark.parametrize("kind", list(Kind))
def test_a_message_comes_back_as_it_was(kind: Kind) -> None:
    assert decode(encode(EXAMPLES[kind]), ALL) == (kind, EXAMPLES[kind])


@pytest.mark.parametrize("kind", list(Kind))
def test_a_message_of_a_kind_not_awaited_is_refused_before_its_fields_are_read(kind: Kind) -> None:
    with pytest.raises(RefusedError) as refused:
        decode(encode(EXAMPLES[kind]), ALL - {kind})
    assert refused.value.check is Check.ANY_KIND


def plain(message: Any) -> list[Any]:
    unpacked: list[Any] = msgpack.unpackb(encode(message))
    return unpacked


def with_field(name: str, value: Any, message: Any = EXAMPLES[Kind.KEYS]) -> bytes:
    version, kind, content = plain(message)
    content[name] = value
    return bytes(msgpack.packb([version, kind, content]))


KEYS = EXAMPLES[Kind.KEYS]
MALFORMED = {
    "an unknown field": with_field("extra", 1),
    "a missing field": msgpack.packb([PROTOCOL, "keys", {"site_id": "aa"}]),
    "fields in another order": msgpack.packb([*plain(KEYS)[:2], dict(reversed(plain(KEYS)[2].items()))]),
    "no map of fields": msgpack.packb([PROTOCOL, "keys", [1, 2]]),
    "four parts": msgpack.packb([*plain(KEYS), 1]),
    "a key of 31 bytes": with_field("mask_key", bytes(31)),
    "a key of 33 bytes": with_field("mask_key", bytes(33)),
    "a key that is text": with_field("mask_key", "a" * 32),
    "a name that is bytes": with_field("site_id", b"site-one"),
    "an empty name": with_field("site_id", ""),
    "a name in capitals": with_field("site_id", "SITE"),
    "a name with a newline": with_field("site_id", "site-one\n"),
    "a name with letters that look alike": with_field("site_id", "sіte-one"),
    "a name of 64 letters": with_field("site_id", "s" * 64),
    "nothing for a key": with_field("mask_key", None),
    "a float for a number": with_field("code", 127.0, EXAMPLES[Kind.REFUSAL]),
    "a truth value for a number": with_field("code", True, EXAMPLES[Kind.REFUSAL]),
    "a number out of bounds": with_field("code", 10_000, EXAMPLES[Kind.REFUSAL]),
    "a negative number": with_field("code", -1, EXAMPLES[Kind.REFUSAL]),
    "NaN": with_field("divisor", float("nan"), EXAMPLES[Kind.RESULT]),
    "infinity": with_field("divisor", float("inf"), EXAMPLES[Kind.RESULT]),
    "a whole number for a float": with_field("divisor", 3, EXAMPLES[Kind.RESULT]),
    "a map for a list": with_field("dealers", {"aa": 1}, EXAMPLES[Kind.FORWARD]),
    "a list of lists": with_field("dealers", [["aa"]], EXAMPLES[Kind.FORWARD]),
    "a member with an unknown field": with_field("witnesses", [{"site_id": "aa", "x": 1}], EXAMPLES[Kind.CERTIFICATE]),
}


@pytest.mark.parametrize("sentence", MALFORMED)
def test_a_message_is_refused_that_has(sentence: str) -> None:
    assert code_of(MALFORMED[sentence]) is Check.WIRE_FIELDS


UNREADABLE = {
    "a truncated text": encode(KEYS)[:-1],
    "a byte after the text": encode(KEYS) + b"\x00",
    "two texts": encode(KEYS) * 2,
    "an extension type": msgpack.packb([PROTOCOL, "keys", msgpack.ExtType(5, b"x")]),
    "a time": msgpack.packb([PROTOCOL, "keys", msgpack.Timestamp(1)]),
    "a list of 2^32 - 1 members": b"\xdd\xff\xff\xff\xff",
    "a map of 2^32 - 1 members": b"\xdf\xff\xff\xff\xff",
    "4 GiB of bytes": b"\xc6\xff\xff\xff\xff",
    "a list one longer than a cohort": msgpack.packb([PROTOCOL, "forward", ["aa"] * (MAX_SITES + 1)]),
    "two thousand nested lists": b"\x91" * 2000,
    "text that is not UTF-8": b"\x93\xa1\xff\xa1a\x80",
    "a map with a number for a key": b"\x93\xa1a\xa1a\x81\x01\x01",
    "a map with one key twice": b"\x82\xa1a\x01\xa1a\x01",
}


@pytest.mark.parametrize("sentence", UNREADABLE)
def test_bytes_are_refused_that_hold(sentence: str) -> None:
    assert code_of(UNREADABLE[sentence]) in {Check.WIRE_CANONICAL, Check.WIRE_FIELDS}


OTHER_ENCODINGS = {
    "a long form for the list of three": b"\xdc\x00\x03" + encode(KEYS)[1:],
    "a long form for the version": b"\x93\xd9\x10" + encode(KEYS)[2:],
    "a field twice": encode(KEYS).replace(b"\x89\xac", b"\x8a\xa7site_id\xa8site-one\xac", 1),
    "a single-precision float": encode(EXAMPLES[Kind.RESULT]).replace(
        b"\xcb\x40\x0c\x00\x00\x00\x00\x00\x00", b"\xca\x40\x60\x00\x00"
    ),
    "a wide form for a small number": encode(EXAMPLES[Kind.REFUSAL]).replace(b"\xa4code\x7f", b"\xa4code\xcd\x00\x7f"),
}


@pytest.mark.parametrize("sentence", OTHER_ENCODINGS)
def test_another_encoding_of_a_good_message_is_refused(sentence: str) -> None:
    octets = OTHER_ENCODINGS[sentence]
    assert octets not in {encode(example) for example in EXAMPLES.values()}
    assert code_of(octets) in {Check.WIRE_CANONICAL, Check.WIRE_FIELDS}
    if sentence != "a field twice":
        assert code_of(octets, CheckSet(without={Check.WIRE_CANONICAL})) is None


def test_a_message_is_at_most_a_mebibyte() -> None:
    assert code_of(bytes(MAX_MESSAGE_BYTES + 1)) is Check.WIRE_SIZE
    assert code_of(bytes(MAX_MESSAGE_BYTES)) is not Check.WIRE_SIZE


@pytest.mark.parametrize(
    "kind", [Kind.KEYLIST, Kind.SHARES, Kind.FORWARD, Kind.SURVIVORS, Kind.CERTIFICATE, Kind.UNMASK]
)
def test_the_largest_cohort_fits_into_a_message(kind: Kind) -> None:
    message = EXAMPLES[kind]
    lists = {
        each.name: tuple(
            replace(value[0], site_id=_long_name(i)) if hasattr(value[0], "site_id") else _long_name(i)
            for i in range(MAX_SITES)
        )
        for each in fields(message)
        if isinstance(value := getattr(message, each.name), tuple)
    }
    full = replace(message, **lists)
    assert decode(encode(full), ALL) == (kind, full)


def _long_name(number: int) -> str:
    return f"s{number:062}"


# Fuzzing: any bytes give a message or a code, nothing else ----------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_message_or_a_code(octets: bytes) -> None:
    assert code_of(octets) is not Check.ANY_INTERNAL


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text(max_size=8)
        | st.binary(max_size=40),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
        max_leaves=12,
    ),
    st.sampled_from(list(Kind)),
)
def test_any_values_in_place_of_the_fields_give_a_code(content: Any, kind: Kind) -> None:
    assert code_of(msgpack.packb([PROTOCOL, kind, content])) is Check.WIRE_FIELDS


def mutated(octets: bytes, generator: random.Random) -> bytes:
    changed = bytearray(octets)
    for _ in range(generator.randint(1, 3)):
        position = generator.randrange(len(changed) + 1)
        match generator.randrange(4):
            case 0 if position < len(changed):
                changed[position] ^= 1 << generator.randrange(8)
            case 1 if position < len(changed):
                del changed[position : position + generator.randint(1, 8)]
            case 2:
                changed[position:position] = generator.randbytes(generator.randint(1, 8))
            case _:
                changed[position:position] = bytes(changed[position : position + generator.randint(1, 64)])
    return bytes(changed)


@pytest.mark.parametrize("kind", list(Kind))
def test_mutated_bytes_give_a_code_or_another_message_in_bounded_memory(kind: Kind) -> None:
    generator, octets = random.Random(f"mutations of {kind}"), encode(EXAMPLES[kind])
    tracemalloc.start()
    try:
        for _ in range(150):
            changed = mutated(octets, generator)
            try:
                _, message = decode(changed, ALL)
            except RefusedError:
                continue
            assert encode(message) == changed
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


BOMBS = {
    "nested lists of the longest allowed length": b"\xdc\x03\xe8" * 20_000,
    "lists in lists of lists": b"\xdc\x03\xe8" + (b"\xdc\x03\xe8" * 510 + b"\xc0") * 20,
    "nested maps": b"\x81\xa1a" * 20_000,
    "a mebibyte of empty lists": b"\xdc\x03\xe8" + b"\x90" * ((1 << 20) - 3),
    "a mebibyte of maps": b"\xdc\x03\xe8" + b"\x80" * 1000 + b"\x80" * 1_000_000,
}


@pytest.mark.parametrize("sentence", BOMBS)
def test_little_text_cannot_make_the_reader_take_much_memory(sentence: str) -> None:
    octets = BOMBS[sentence][:MAX_MESSAGE_BYTES]
    tracemalloc.start()
    try:
        assert code_of(octets) is not None
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


# Orders --------------------------------------------------------------------------------------------------------------

ORDER = Order(
    **{each.name: bytes(32) for each in fields(Order) if each.type is bytes or each.type == "bytes"},
    federation="lungs", epoch=1, phase=0, round_number=1, attempt=1, cohort=("aa", "bb", "cc"), threshold=3,
    minimum_survivors=3, colluders=1, meta_words=0, body_length=4, word_bits=32, guard_bits=4, coordinate_range=4.0,
    cohort_maximum=3, model_bytes=8, deadline_unix_s=1,
)  # fmt: skip


def test_an_order_comes_back_as_it_was_and_has_one_encoding() -> None:
    octets = encode_order(ORDER)
    assert decode_order(octets) == ORDER
    with pytest.raises(WireError):
        decode_order(octets.replace(b"\xa5epoch\x01", b"\xa5epoch\xcc\x01"))
    with pytest.raises(WireError):
        decode_order(octets + b"\x00")


def test_every_field_of_an_order_changes_what_is_signed() -> None:
    seen = {encode_order(ORDER)}
    for each in fields(Order):
        value = getattr(ORDER, each.name)
        other = {bytes: b"\x01" * 32, int: 9, float: 2.0, str: "hearts", tuple: ("aa",)}[type(value)]
        seen.add(encode_order(replace(ORDER, **{each.name: other})))
    assert len(seen) == 1 + len(fields(Order))


def test_examples_are_typed() -> None:
    assert isinstance(EXAMPLES[Kind.KEYS], Keys)
    assert isinstance(EXAMPLES[Kind.UNMASK], Unmask)
    assert isinstance(EXAMPLES[Kind.RESULT], Result)

"""Enrolment files: the sender holds the site key, and no byte can be changed after signing."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from common.errors import FileTooLargeError
from common.trust.canonical import canonical_bytes
from common.trust.enrolment import MAX_ENROLMENT_BYTES, Enrolment, read_enrolment, signed_enrolment
from common.trust.errors import EnrolmentInvalidError
from common.trust.identity import fingerprint
from common.trust.signed_document import signed_document


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def enrolment(key, node_key_line) -> Enrolment:
    return Enrolment("north", key.public_key(), node_key_line)


@pytest.fixture
def file(enrolment, key, tmp_path):
    path = tmp_path / "north.json"
    path.write_bytes(signed_enrolment(enrolment, key))
    return path


def test_an_enrolment_reads_back_the_same(enrolment, file):
    again = read_enrolment(file)
    assert again.document() == enrolment.document()
    assert again.fingerprint() == enrolment.fingerprint() == fingerprint(enrolment.site_key)


def test_a_line_end_of_another_system_does_no_harm(enrolment, file):
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_enrolment(file).document() == enrolment.document()


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_an_enrolment_is_accepted(position, bit, enrolment, key, tmp_path_factory):
    content = bytearray(signed_enrolment(enrolment, key))
    content[position % len(content)] ^= 1 << bit
    path = tmp_path_factory.mktemp("enrolment") / "north.json"
    path.write_bytes(content)
    with pytest.raises(EnrolmentInvalidError):
        read_enrolment(path)


def test_an_enrolment_signed_with_another_key_is_refused(enrolment, file):
    file.write_bytes(signed_enrolment(enrolment, Ed25519PrivateKey.generate()))
    with pytest.raises(EnrolmentInvalidError, match="changed after it was signed"):
        read_enrolment(file)


def test_another_node_key_put_into_a_signed_enrolment_is_refused(file):
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    document = json.loads(file.read_bytes())
    document["node_key"] = other.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    file.write_bytes(canonical_bytes(document))
    with pytest.raises(EnrolmentInvalidError, match="changed after it was signed"):
        read_enrolment(file)


def compressed_point() -> str:
    parts = (b"ecdsa-sha2-nistp384", b"nistp384", b"\x02" + bytes(48))
    content = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return f"ecdsa-sha2-nistp384 {base64.b64encode(content).decode()}"


def other_curve() -> str:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


BAD_FIELDS = {
    "a name with a path in it": {"site": "../north"},
    "a name with a line break": {"site": "north\n"},
    "a name that is a number": {"site": 7},
    "a node key with a comment": {"node_key": "{} it@hospital"},
    "two node keys": {"node_key": "{}\n{}"},
    "a node key with options before it": {"node_key": 'command="/bin/sh" {}'},
    "a node key on another curve": {"node_key": other_curve()},
    "a node key of the right name over nonsense": {"node_key": "ecdsa-sha2-nistp384 AAAA"},
    "a node key whose point is compressed": {"node_key": compressed_point()},
    "no node key": {"node_key": None},
    "a site key that is too short": {"site_key": "AAAA"},
    "another format": {"format": "fedward-enrolment/2"},
    "a field too many": {"comment": "hello"},
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_an_enrolment_with_a_bad_field_is_refused_even_when_signed(case, enrolment, key, file, node_key_line):
    changes = {
        name: value.replace("{}", node_key_line) if isinstance(value, str) else value
        for name, value in BAD_FIELDS[case].items()
    }
    file.write_bytes(signed_document({**enrolment.document(), **changes}, key))
    with pytest.raises(EnrolmentInvalidError):
        read_enrolment(file)


@pytest.mark.parametrize("name", ["format", "site", "site_key", "node_key", "signature"])
def test_an_enrolment_without_a_field_is_refused(name, file):
    document = json.loads(file.read_bytes())
    del document[name]
    file.write_bytes(canonical_bytes(document))
    with pytest.raises(EnrolmentInvalidError):
        read_enrolment(file)


NO_ENROLMENTS = {
    "nothing": b"",
    "an empty object": b"{}",
    "a list": b"[]",
    "deep nesting": b"[" * 4000,
    "not UTF-8": b'{"format": "\xff"}',
    "a lone surrogate": b'{"format": "\\ud800"}',
    "a number without a canonical form": b'{"format": 1e999}',
}


@pytest.mark.parametrize("case", NO_ENROLMENTS)
def test_a_file_that_is_no_enrolment_is_refused(case, file):
    file.write_bytes(NO_ENROLMENTS[case])
    with pytest.raises(EnrolmentInvalidError):
        read_enrolment(file)


def test_a_large_file_is_refused_unread(file):
    file.write_bytes(b" " * (MAX_ENROLMENT_BYTES + 1))
    with pytest.raises(FileTooLargeError):
        read_enrolment(file)


def test_the_longest_name_fits_into_the_limit(key, node_key_line):
    assert len(signed_enrolment(Enrolment("n" * 63, key.public_key(), node_key_line), key)) < MAX_ENROLMENT_BYTES

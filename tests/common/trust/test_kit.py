"""Kits: signed by the coordinator named in them, with a roster of the same federation, and no byte can be changed."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from common.errors import FileTooLargeError
from common.trust.canonical import encode_base64
from common.trust.errors import KitInvalidError
from common.trust.identity import public_bytes
from common.trust.kit import FORMAT, MAX_KIT_BYTES, Kit, new_kit, read_kit, signed_kit
from common.trust.roster import Roster, read_roster, signed_roster
from common.trust.signed_document import signed_document


@pytest.fixture(scope="module")
def document(roster, coordinator_key, ca_certificate):
    """A good kit as plain values."""
    return {
        "format": FORMAT,
        "federation": "lungs",
        "coordinator": encode_base64(public_bytes(coordinator_key.public_key())),
        "address": "fl.lungs.example:443",
        "ca_certificate": ca_certificate,
        "pointer_digest": "ab" * 32,
        "flwr": "1.41.0",
        "roster": json.loads(signed_roster(roster, coordinator_key)),
    }


@pytest.fixture(scope="module")
def kit(document) -> Kit:
    return new_kit(document, Path("kit.json"))


@pytest.fixture
def file(kit, coordinator_key, tmp_path):
    path = tmp_path / "kit.json"
    path.write_bytes(signed_kit(kit, coordinator_key))
    return path


def test_a_kit_reads_back_the_same(kit, file):
    again = read_kit(file)
    assert again.document() == kit.document()
    assert again.fingerprint() == kit.fingerprint()
    assert (again.host, again.port) == ("fl.lungs.example", 443)


def test_the_roster_of_a_kit_is_a_roster_file(kit, roster, tmp_path):
    (tmp_path / "roster.json").write_bytes(kit.roster_file())
    assert read_roster(tmp_path / "roster.json").digest() == roster.digest() == kit.roster.digest()


def test_a_kit_made_before_the_first_roster_says_so(document, coordinator_key, file):
    file.write_bytes(signed_document({**document, "roster": None}, coordinator_key))
    assert read_kit(file).roster is None
    with pytest.raises(KitInvalidError, match="has no roster yet"):
        read_kit(file).roster_file()


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_kit_is_accepted(position, bit, kit, coordinator_key, tmp_path_factory):
    content = bytearray(signed_kit(kit, coordinator_key))
    content[position % len(content)] ^= 1 << bit
    path = tmp_path_factory.mktemp("kit") / "kit.json"
    path.write_bytes(content)
    with pytest.raises(KitInvalidError):
        read_kit(path)


def test_a_kit_signed_with_another_key_is_refused(kit, file):
    file.write_bytes(signed_kit(kit, Ed25519PrivateKey.generate()))
    with pytest.raises(KitInvalidError, match="changed after it was signed"):
        read_kit(file)


BAD_FIELDS = {
    "a federation with a path in it": {"federation": "../lungs"},
    "an address without a port": {"address": "fl.lungs.example"},
    "an address with a scheme": {"address": "http://fl.lungs.example:443"},
    "an address with a user": {"address": "me@fl.lungs.example:443"},
    "an address with an option in it": {"address": "--insecure:443"},
    "port zero": {"address": "fl.lungs.example:0"},
    "a port that does not exist": {"address": "fl.lungs.example:65536"},
    "an address with a line break": {"address": "fl.lungs.example:443\n"},
    "no certificate": {"ca_certificate": ""},
    "a certificate that is none": {"ca_certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
    "a very long certificate": {"ca_certificate": "x" * 65_537},
    "a digest in capitals": {"pointer_digest": "AB" * 32},
    "a short digest": {"pointer_digest": "ab" * 31},
    "a version with an option in it": {"flwr": "1.41.0 --pre"},
    "a version that is a number": {"flwr": 1.41},
    "a roster that is text": {"roster": "later"},
    "another format": {"format": "fedward-kit/2"},
    "a field too many": {"comment": "hello"},
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_a_kit_with_a_bad_field_is_refused_even_when_signed(case, document, coordinator_key, file):
    file.write_bytes(signed_document({**document, **BAD_FIELDS[case]}, coordinator_key))
    with pytest.raises(KitInvalidError):
        read_kit(file)


def test_a_kit_with_the_roster_of_another_coordinator_is_refused(document, roster, coordinator_key, file):
    other = Ed25519PrivateKey.generate()
    foreign = Roster(federation="lungs", epoch=1, coordinator=other.public_key(), sites=roster.sites)
    changed = {**document, "roster": json.loads(signed_roster(foreign, other))}
    file.write_bytes(signed_document(changed, coordinator_key))
    with pytest.raises(KitInvalidError, match="another federation or coordinator"):
        read_kit(file)


def test_a_kit_with_the_roster_of_another_federation_is_refused(document, roster, coordinator_key, file):
    foreign = Roster(federation="hearts", epoch=1, coordinator=roster.coordinator, sites=roster.sites)
    changed = {**document, "roster": json.loads(signed_roster(foreign, coordinator_key))}
    file.write_bytes(signed_document(changed, coordinator_key))
    with pytest.raises(KitInvalidError, match="another federation or coordinator"):
        read_kit(file)


def test_a_kit_with_a_changed_roster_is_refused_even_when_signed(document, coordinator_key, file):
    changed = json.loads(json.dumps(document))
    changed["roster"]["roster"]["epoch"] = 7
    file.write_bytes(signed_document(changed, coordinator_key))
    with pytest.raises(KitInvalidError, match="does not fit"):
        read_kit(file)


def test_a_large_file_is_refused_unread(file):
    file.write_bytes(b" " * (MAX_KIT_BYTES + 1))
    with pytest.raises(FileTooLargeError):
        read_kit(file)

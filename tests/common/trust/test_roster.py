"""The roster: one key for one party, and no byte can be changed after signing."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from common.errors import NotUtf8Error
from common.trust.canonical import canonical_bytes
from common.trust.errors import RosterBadSignatureError, RosterInvalidError
from common.trust.roster import Roster, read_roster, signed_roster


@pytest.fixture
def roster_file(roster, coordinator_key, tmp_path):
    file = tmp_path / "roster.json"
    file.write_bytes(signed_roster(roster, coordinator_key))
    return file


def test_a_signed_roster_reads_back_the_same(roster, roster_file):
    again = read_roster(roster_file)
    assert again.digest() == roster.digest()
    assert again.fingerprints() == roster.fingerprints()


def test_the_order_of_sites_does_not_change_the_digest(roster):
    turned = Roster(
        federation=roster.federation,
        epoch=roster.epoch,
        coordinator=roster.coordinator,
        sites=dict(reversed(roster.sites.items())),
    )
    assert turned.digest() == roster.digest()


def test_a_new_epoch_is_a_new_digest(roster):
    newer = Roster(federation=roster.federation, epoch=2, coordinator=roster.coordinator, sites=roster.sites)
    assert newer.digest() != roster.digest()


def test_one_key_under_two_names_is_refused(roster):
    key = next(iter(roster.sites.values()))
    with pytest.raises(RosterInvalidError, match="one key stands for two parties"):
        Roster(federation="lungs", epoch=1, coordinator=roster.coordinator, sites={"a1": key, "b1": key})


def test_the_coordinator_cannot_be_a_site(roster):
    with pytest.raises(RosterInvalidError, match="two parties"):
        Roster(federation="lungs", epoch=1, coordinator=roster.coordinator, sites={"a1": roster.coordinator})


BAD_FIELDS = {
    "a name with a path in it": ("federation", "../lungs"),
    "epoch zero": ("epoch", 0),
    "epoch as a truth value": ("epoch", True),
    "epoch as text": ("epoch", "1"),
    "sites as a list": ("sites", []),
    "no sites": ("sites", {}),
    "a key that is too short": ("sites", {"north": "AAAA"}),
    "a key that is not text": ("sites", {"north": 7}),
    "a site's name with a line break": ("sites", {"north\n": "AAAA"}),
    "another format": ("format", "fedward-roster/9"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_a_roster_with_a_bad_field_is_refused_even_when_signed_again(case, roster, roster_file):
    field, value = BAD_FIELDS[case]
    file = json.loads(roster_file.read_bytes())
    file["roster"][field] = value
    roster_file.write_bytes(canonical_bytes(file))
    with pytest.raises(RosterInvalidError):
        read_roster(roster_file)


def test_a_roster_signed_by_somebody_else_is_refused(roster, roster_file):
    roster_file.write_bytes(signed_roster(roster, Ed25519PrivateKey.generate()))
    with pytest.raises(RosterBadSignatureError, match="changed after it was signed"):
        read_roster(roster_file)


@given(position=st.integers(0, 100_000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_roster_is_accepted(position, bit, roster, coordinator_key, tmp_path_factory):
    content = bytearray(signed_roster(roster, coordinator_key))
    content[position % (len(content) - 1)] ^= 1 << bit
    file = tmp_path_factory.mktemp("roster") / "roster.json"
    file.write_bytes(content)
    with pytest.raises((RosterInvalidError, RosterBadSignatureError, NotUtf8Error)):
        read_roster(file)


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"roster": 1, "signature": "AAAA"}', b"null"])
def test_a_file_that_is_no_roster_is_refused(content, tmp_path):
    (tmp_path / "roster.json").write_bytes(content)
    with pytest.raises(RosterInvalidError):
        read_roster(tmp_path / "roster.json")

"""Digest and signature: what is signed is the meaning of the plan, not its spelling."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from common.errors import NotUtf8Error
from common.plan.errors import PlanBadSignatureError, PlanUnsignedError
from common.plan.reading import parse_plan, read_plan
from common.plan.signing import sign_plan, signature_path, verify_plan


@pytest.fixture
def plan_file(plan_text, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(plan_text, encoding="utf-8")
    return file


def test_a_signed_plan_verifies_and_names_its_signer(plan_file, coordinator_key):
    plan = read_plan(plan_file)
    sign_plan(plan, plan_file, coordinator_key)
    signature = verify_plan(plan, plan_file, coordinator_key.public_key())
    assert signature.plan_digest == plan.digest()


def test_an_unsigned_plan_is_refused(plan_file):
    with pytest.raises(PlanUnsignedError, match=r"no study\.toml\.sig"):
        verify_plan(read_plan(plan_file), plan_file)


def test_one_changed_number_breaks_the_signature(plan_file, coordinator_key):
    sign_plan(read_plan(plan_file), plan_file, coordinator_key)
    plan_file.write_text(plan_file.read_text().replace("every_rounds = 10", "every_rounds = 11"))
    with pytest.raises(PlanBadSignatureError, match="changed after it was signed"):
        verify_plan(read_plan(plan_file), plan_file)


def test_a_signature_of_somebody_else_is_refused(plan_file, coordinator_key):
    plan = read_plan(plan_file)
    sign_plan(plan, plan_file, Ed25519PrivateKey.generate())
    with pytest.raises(PlanBadSignatureError, match="do not use this plan"):
        verify_plan(plan, plan_file, coordinator_key.public_key())


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_no_changed_byte_of_a_signature_file_is_accepted(position, value, plan_text, coordinator_key, tmp_path_factory):
    folder = tmp_path_factory.mktemp("signed")
    file = folder / "study.toml"
    file.write_text(plan_text)
    plan = read_plan(file)
    content = bytearray(sign_plan(plan, file, coordinator_key).read_bytes())
    position %= len(content) - 1  # the last byte is the line's end
    if content[position] == value:
        value ^= 1
    content[position] = value
    signature_path(file).write_bytes(content)
    with pytest.raises((PlanBadSignatureError, NotUtf8Error)):
        verify_plan(plan, file, coordinator_key.public_key())


def test_comments_spacing_and_order_of_keys_do_not_change_the_digest(plan_document):
    shuffled = {name: plan_document[name] for name in reversed(plan_document)}
    shuffled["privacy"] = dict(reversed(plan_document["privacy"].items()))
    assert parse_plan(shuffled, "a").digest() == parse_plan(plan_document, "b").digest()


def test_a_whole_number_and_the_same_number_with_a_point_are_one_plan(plan_document):
    before = parse_plan(plan_document, "a").digest()
    plan_document["privacy"]["epsilon"] = 8
    assert parse_plan(plan_document, "a").digest() == before


def test_canonical_bytes_are_the_same_on_every_machine(plan_document):
    # A known answer: a change here means that no signature of an earlier version verifies any more.
    plan_document["study"] |= {"roster_digest": "0" * 64, "order_key": "A" * 43 + "="}
    plan_document["phases"][0]["layout_hash"] = "1" * 64
    plan_document["phases"][0]["noise_multiplier"] = 1.5
    # As ``plan new`` of the earlier version wrote it: later ones derive the range and name a reply slot.
    plan_document["secure_aggregation"]["coordinate_range"] = 64.0
    plan_document.pop("timing", None)
    plan = parse_plan(plan_document, "a")
    assert plan.canonical().startswith(b'{"aggregation":{"adaptivity":0.001,"average_decay":0.9,')
    assert plan.digest() == KNOWN_DIGEST


KNOWN_DIGEST = "0b83ca28947ba8498ac7bfd7e0c1c2e514d8d8dfd3e0c3e579d05238c5d3967b"

"""A released model's card: whoever trusts the coordinator's key notices every change."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.trust.errors import ReleaseInvalidError
from common.trust.identity import sign
from common.trust.release import FORMAT, MAX_CARD_BYTES, sign_card, verify_card, verify_file
from common.trust.signed_document import signed_document

CARD = json.dumps({"study": "lungs", "files": {"model.safetensors": "9" * 64}}).encode()


def test_the_card_that_was_signed_is_returned(coordinator_key):
    card = verify_card(CARD, sign_card(CARD, coordinator_key), coordinator_key.public_key())
    assert card["study"] == "lungs"


def wrong_purpose(key):
    document = {"format": "fedward-kit/1", "coordinator": "", "card_sha256": ""}
    return signed_document(document | {"signature_of": sign(key, FORMAT, CARD).hex()}, key)


@pytest.mark.parametrize(
    ("case", "card", "signature", "complaint"),
    [
        ("another byte in the card", CARD + b" ", lambda key: sign_card(CARD, key), "changed after it was signed"),
        ("another coordinator", CARD, lambda _: sign_card(CARD, Ed25519PrivateKey.generate()), "another coordinator"),
        ("another kind of document", CARD, wrong_purpose, "not a file of format"),
        ("a renamed field", CARD, lambda key: sign_card(CARD, key).replace(b"card_", b"cart_"), "fields"),
        ("no signature", CARD, lambda _: b"", "not JSON"),
        ("a card that is too long", bytes(MAX_CARD_BYTES + 1), lambda key: sign_card(CARD, key), "longer"),
        ("a signature that is too long", CARD, lambda key: sign_card(CARD, key) * 100, "longer"),
        ("no JSON", b"[", lambda key: sign_card(b"[", key), "not JSON"),
        ("no files", b"{}", lambda key: sign_card(b"{}", key), "names no files"),
        ("no object", b"[]", lambda key: sign_card(b"[]", key), "names no files"),
    ],
)
def test_a_release_is_refused_with(coordinator_key, case, card, signature, complaint):
    with pytest.raises(ReleaseInvalidError, match=complaint):
        verify_card(card, signature(coordinator_key), coordinator_key.public_key())


def test_a_file_must_be_the_one_that_the_card_names():
    card = {"files": {"model.safetensors": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}
    verify_file(card, "model.safetensors", b"")
    for name, content in (("model.safetensors", b"x"), ("model.onnx", b"")):
        with pytest.raises(ReleaseInvalidError, match=name):
            verify_file(card, name, content)

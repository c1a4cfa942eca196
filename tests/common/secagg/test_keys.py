"""The primitives against their standards, and the rule that no key serves two purposes."""

import itertools
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from common.secagg import keys

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "vectors/primitives.json").read_text())
SID, OTHER_SID = bytes(32), bytes([1]) * 32


def cases(name: str) -> list[dict[str, bytes]]:
    return [{field: bytes.fromhex(text) for field, text in case.items()} for case in VECTORS[name]["cases"]]


@pytest.mark.parametrize("case", cases("x25519"))
def test_agreement_gives_the_known_answers_of_rfc_7748(case: dict[str, bytes]) -> None:
    assert keys.agree(keys.open_secret(case["secret"]), case["peer"]) == case["shared"]


def test_agreement_iterated_a_thousand_times_gives_the_known_answers_of_rfc_7748() -> None:
    scalar = point = bytes([9]) + bytes(31)
    known = {int(count): bytes.fromhex(answer) for count, answer in VECTORS["x25519"]["iterated"].items()}
    for count in range(1, 1001):
        scalar, point = keys.agree(keys.open_secret(scalar), point), scalar
        assert scalar == known.get(count, scalar)


@pytest.mark.parametrize("point", VECTORS["x25519_low_order"]["cases"])
def test_a_key_of_low_order_gives_no_shared_secret(point: str) -> None:
    assert keys.agree(keys.open_secret(bytes(range(32))), bytes.fromhex(point)) is None


@pytest.mark.parametrize("case", cases("hkdf_sha256"))
def test_derivation_gives_the_known_answers_of_rfc_5869(case: dict[str, bytes]) -> None:
    # A shorter output of HKDF is the beginning of a longer one (RFC 5869, section 2.3).
    assert keys._derive(case["secret"], case["salt"], case["info"]) == case["output"][:32]


@pytest.mark.parametrize("case", cases("ed25519"))
def test_signatures_give_the_known_answers_of_rfc_8032(case: dict[str, bytes]) -> None:
    secret = Ed25519PrivateKey.from_private_bytes(case["secret"])
    assert secret.public_key().public_bytes_raw() == case["public"]
    assert secret.sign(case["message"]) == case["signature"]


@pytest.mark.parametrize("case", cases("chacha20_poly1305"))
def test_sealing_gives_the_known_answer_of_rfc_8439(case: dict[str, bytes]) -> None:
    assert ChaCha20Poly1305(case["key"]).encrypt(case["nonce"], case["plain"], case["bound"]) == case["sealed"]


@pytest.mark.parametrize("case", cases("aes_256_ctr"))
def test_the_stream_cipher_gives_the_known_answer_of_sp_800_38a(case: dict[str, bytes]) -> None:
    cipher = Cipher(algorithms.AES(case["key"]), modes.CTR(case["counter"]))
    assert cipher.encryptor().update(case["plain"]) == case["sealed"]


def test_every_purpose_direction_and_session_has_a_key_of_its_own() -> None:
    shared = bytes(range(32))
    made = [
        keys.sealing_key(shared, SID, "aa", "bb"),
        keys.sealing_key(shared, SID, "bb", "aa"),
        keys.sealing_key(shared, OTHER_SID, "aa", "bb"),
        keys.sealing_key(shared, SID, "aab", "b"),
        keys.pairwise_mask_key(shared, SID, "aa", "bb"),
        keys.pairwise_mask_key(shared, OTHER_SID, "aa", "bb"),
        keys.pairwise_mask_key(shared, SID, "aa", "cc"),
        keys.self_mask_key(shared, SID, "aa"),
        keys.self_mask_key(shared, SID, "bb"),
        keys.self_mask_key(shared, OTHER_SID, "aa"),
    ]
    assert len(set(made)) == len(made)


def test_both_ends_derive_one_pairwise_mask_and_add_it_with_opposite_signs() -> None:
    shared = bytes(range(32))
    assert keys.pairwise_mask_key(shared, SID, "aa", "bb") == keys.pairwise_mask_key(shared, SID, "bb", "aa")
    for one, other in itertools.combinations(["aa", "ab", "b0", "zz"], 2):
        assert keys.mask_sign(one, other) == 1
        assert keys.mask_sign(other, one) == -1


WRONG_SIGNATURES = {
    "with another label": ("shares", ["aa", 7], None),
    "over another number": ("keys", ["aa", 8], None),
    "over fields cut elsewhere": ("keys", ["a", "a", 7], None),
    "by another key": ("keys", ["aa", 7], Ed25519PrivateKey.generate()),
}


@pytest.mark.parametrize("sentence", WRONG_SIGNATURES)
def test_a_signature_does_not_fit(sentence: str) -> None:
    identity = Ed25519PrivateKey.generate()
    public = identity.public_key().public_bytes_raw()
    assert keys.is_signed(keys.sign(identity, "keys", "aa", 7), public, "keys", "aa", 7)
    label, fields, other = WRONG_SIGNATURES[sentence]
    assert not keys.is_signed(keys.sign(other or identity, label, *fields), public, "keys", "aa", 7)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_bytes_that_are_no_signature_are_refused_without_an_exception(signature: bytes) -> None:
    assert not keys.is_signed(signature, bytes(32), "keys")
    assert not keys.is_signed(signature, b"short", "keys")

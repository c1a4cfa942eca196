"""Keys: files that others can read are refused, and signatures of one purpose never fit another."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from common.errors import OutputExistsError
from common.trust import identity
from common.trust.errors import KeyExposedError, KeyInvalidError


def test_a_new_key_file_is_readable_by_its_owner_alone(tmp_path):
    identity.create_signing_key(tmp_path / "site.key")
    assert stat.S_IMODE((tmp_path / "site.key").stat().st_mode) == 0o600


def test_a_key_survives_writing_and_reading(tmp_path):
    key = identity.create_signing_key(tmp_path / "site.key")
    again = identity.read_signing_key(tmp_path / "site.key")
    assert identity.fingerprint(again.public_key()) == identity.fingerprint(key.public_key())


def test_an_existing_key_is_never_overwritten(tmp_path):
    identity.create_signing_key(tmp_path / "site.key")
    before = (tmp_path / "site.key").read_bytes()
    with pytest.raises(OutputExistsError, match="left alone"):
        identity.create_signing_key(tmp_path / "site.key")
    assert (tmp_path / "site.key").read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o777])
def test_a_key_that_others_can_reach_is_refused(mode, tmp_path):
    identity.create_signing_key(tmp_path / "site.key")
    (tmp_path / "site.key").chmod(mode)
    with pytest.raises(KeyExposedError, match=f"mode {mode:04o}"):
        identity.read_signing_key(tmp_path / "site.key")


def test_a_link_to_a_key_is_refused(tmp_path):
    identity.create_signing_key(tmp_path / "site.key")
    (tmp_path / "link.key").symlink_to(tmp_path / "site.key")
    with pytest.raises(KeyExposedError, match="symbolic link"):
        identity.read_signing_key(tmp_path / "link.key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_key_of_another_user_is_refused(tmp_path):
    identity.create_signing_key(tmp_path / "site.key")
    os.chown(tmp_path / "site.key", 12345, -1)
    with pytest.raises(KeyExposedError, match="belongs to user 12345"):
        identity.read_signing_key(tmp_path / "site.key")


def rsa_pem() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def x25519_pem() -> bytes:
    return x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


BAD_KEYS = {
    "nothing": b"",
    "text": b"my key is under the mat",
    "a PEM header alone": b"-----BEGIN PRIVATE KEY-----\n",
    "an RSA key": rsa_pem(),
    "an X25519 key": x25519_pem(),
    "a very long file": b"A" * 100_000,
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_a_file_that_holds_no_signing_key_is_refused(case, tmp_path):
    (tmp_path / "site.key").write_bytes(BAD_KEYS[case])
    (tmp_path / "site.key").chmod(0o600)
    with pytest.raises(KeyInvalidError):
        identity.read_signing_key(tmp_path / "site.key")


def test_a_folder_is_not_a_key(tmp_path):
    with pytest.raises(KeyInvalidError, match="not a regular file"):
        identity.read_private_file(tmp_path, 100)


def test_a_secret_file_has_exactly_its_size(tmp_path):
    secret = identity.create_secret_file(tmp_path / "site.secret")
    assert identity.read_secret_file(tmp_path / "site.secret") == secret
    (tmp_path / "short").write_bytes(secret[:-1])
    (tmp_path / "short").chmod(0o600)
    with pytest.raises(KeyInvalidError, match="31 bytes, a site secret has 32"):
        identity.read_secret_file(tmp_path / "short")


def test_public_keys_survive_writing_and_reading(tmp_path):
    key = Ed25519PrivateKey.generate().public_key()
    identity.write_public_key(tmp_path / "site.pub", key)
    assert identity.public_bytes(identity.read_public_key(tmp_path / "site.pub")) == identity.public_bytes(key)


def test_a_fingerprint_is_six_groups_without_letters_that_sound_alike():
    text = identity.fingerprint(Ed25519PrivateKey.generate().public_key())
    assert [len(group) for group in text.split("-")] == [4] * 6
    assert not set(text) & set("ILOU")


HEARD = ["0A1B-2C3D", "0a1b2c3d", "0A1B 2C3D", " 0a1b - 2c3d\n", "OA1B-2C3D", "0AlB-2C3D", "oaib\u20132c3d"]
NOT_HEARD = ["", "0A1B", "0A1B-2C3", "0A1B-2C3E", "8A1B-2C3D", "0A1B-2C3D0", "QA1B-2C3D"]


def test_a_fingerprint_is_taken_as_it_was_heard_and_no_other_is():
    assert all(identity.same_fingerprint(heard, "0A1B-2C3D") for heard in HEARD)
    assert not any(identity.same_fingerprint(heard, "0A1B-2C3D") for heard in NOT_HEARD)


def test_the_fingerprint_of_a_known_key_never_changes():
    # RFC 8032 section 7.1, test 1: public key. A change would make every printed fingerprint useless.
    key = Ed25519PublicKey.from_public_bytes(
        bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    )
    assert identity.fingerprint(key) == KNOWN_FINGERPRINT


KNOWN_FINGERPRINT = "EJ3K-S75Z-TMRH-663M-22GS-N6BC"


def test_a_signature_fits_one_purpose_and_one_message():
    key = Ed25519PrivateKey.generate()
    signature = identity.sign(key, "plan", b"text")
    assert identity.verify(key.public_key(), "plan", b"text", signature)
    assert not identity.verify(key.public_key(), "roster", b"text", signature)
    assert not identity.verify(key.public_key(), "plan", b"texts", signature)
    assert not identity.verify(Ed25519PrivateKey.generate().public_key(), "plan", b"text", signature)


@given(purpose=st.text(max_size=5), message=st.binary(max_size=8), moved=st.integers(1, 4))
def test_moving_bytes_between_purpose_and_message_breaks_a_signature(purpose, message, moved):
    key = Ed25519PrivateKey.generate()
    signature = identity.sign(key, purpose + "a" * moved, message)
    assert not identity.verify(key.public_key(), purpose, b"a" * moved + message, signature)


def test_no_error_sentence_holds_key_material(tmp_path: Path):
    pem = rsa_pem()
    (tmp_path / "site.key").write_bytes(pem)
    (tmp_path / "site.key").chmod(0o600)
    with pytest.raises(KeyInvalidError) as caught:
        identity.read_signing_key(tmp_path / "site.key")
    assert pem.decode().splitlines()[3] not in str(caught.value)

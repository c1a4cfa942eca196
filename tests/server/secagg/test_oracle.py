"""An independent oracle: pycryptodome and plain Python integers recompute a whole round from the sites' secrets.

Nothing of ``common.secagg`` makes a key, a digest or a mask here; only messages are parsed with it.
"""

import hashlib
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.DH import import_x25519_private_key, import_x25519_public_key, key_agreement
from Crypto.Protocol.KDF import HKDF
from Crypto.Signature import eddsa

from common.secagg.messages import Packet, decode
from common.secagg.stages import SITE_SENDS, Kind
from simulation.runtime.secagg_federation import Federation, new_federation

META_SEGMENT = 2**96 - 1


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for journals in memory where there is one: each journal is fsynced several times a round."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def encoded(*fields: Any) -> bytes:
    plain = [f.encode() if isinstance(f, str) else encoded(*f) if isinstance(f, list) else f for f in fields]
    return b"".join(struct.pack(">I", len(field)) + field for field in plain)


def labelled(label: str, *fields: Any) -> bytes:
    return encoded("fedward-secagg/2", label, *fields)


def derived(secret: bytes, salt: bytes, purpose: bytes) -> bytes:
    return bytes(HKDF(secret, 32, salt, SHA256, context=purpose))


def agreed(secret: bytes, public: bytes) -> bytes:
    ours, theirs = import_x25519_private_key(secret), import_x25519_public_key(public)
    return bytes(key_agreement(static_priv=ours, static_pub=theirs, kdf=lambda shared: shared))


def keystream(key: bytes, segment: int, length: int) -> bytes:
    counter = (segment << 32 | 2).to_bytes(16, "big")
    return AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=counter).encrypt(bytes(length))


def words(octets: bytes, width: int) -> list[int]:
    return [int.from_bytes(octets[i : i + width], "little") for i in range(0, len(octets), width)]


class Tap:
    """Keeps each site's secrets and answers of one round."""

    def __init__(self, federation: Federation) -> None:
        self.secrets: dict[str, tuple[bytes, bytes]] = {}
        self.answers: dict[str, dict[Kind, tuple[Any, bytes]]] = {name: {} for name in federation.names}
        for name in federation.names:
            federation.sites[name].receive = self._tapped(federation, name)  # type: ignore[method-assign]

    def _tapped(self, federation: Federation, name: str) -> Any:
        site, honest = federation.sites[name], federation.sites[name].receive

        def receive(message: bytes, payload: bytes | memoryview = b"") -> Packet:
            answer = honest(message, payload)
            kind, parsed = decode(answer.message, SITE_SENDS)
            self.answers[name][kind] = (parsed, bytes(answer.payload))
            if kind is Kind.KEYS:
                secrets = site._state.secrets  # type: ignore[union-attr]
                self.secrets[name] = (bytes(secrets.mask_secret), bytes(secrets.seed))
            return answer

        return receive


def masked_by_hand(tap: Tap, federation: Federation, name: str, *, sid: bytes, dealers: list[str]) -> bytes:
    """y_u = (1, checksum, meta, body) + PRG(b_u) + sum of +-PRG(k_uv), word by word."""
    vector = federation.work[name].draw(1)
    body = [int(value) for value in vector.body]
    meta = [1, sum(body) % 2**32, *map(int, vector.meta)]
    mask_secret, seed = tap.secrets[name]
    streams = [(derived(seed, sid, labelled("self", name)), 1)]
    for peer in dealers:
        if peer != name:
            shared = agreed(mask_secret, tap.answers[peer][Kind.KEYS][0].mask_key)
            purpose = labelled("mask", min(name, peer), max(name, peer))
            streams.append((derived(shared, sid, purpose), 1 if name < peer else -1))
    for key, sign in streams:
        of_meta, of_body = keystream(key, META_SEGMENT, 8 * len(meta)), keystream(key, 0, 4 * len(body))
        meta = [(value + sign * mask) % 2**64 for value, mask in zip(meta, words(of_meta, 8), strict=True)]
        body = [(value + sign * mask) % 2**32 for value, mask in zip(body, words(of_body, 4), strict=True)]
    return b"".join(value.to_bytes(8, "little") for value in meta) + b"".join(
        value.to_bytes(4, "little") for value in body
    )


def verified(federation: Federation, name: str, signature: bytes, text: bytes) -> None:
    public = eddsa.import_public_key(federation.identities[name].public_key().public_bytes_raw())
    eddsa.new(public, "rfc8032").verify(text, signature)


def test_an_independent_implementation_finds_every_vector_digest_and_signature(folder: Path) -> None:
    federation = new_federation(5, folder, body_length=777)
    tap = Tap(federation)
    order = federation.new_order()
    server = federation.run_until(Kind.CERTIFICATE, order)[0]
    names = list(federation.names)
    ph = hashlib.sha256(labelled("order", decode(server.transcript.entries[0].message, {Kind.ORDER})[1].order)).digest()
    keys = {name: tap.answers[name][Kind.KEYS][0] for name in names}
    members = [encoded(n, keys[n].sealing_key, keys[n].mask_key, keys[n].seed_commitment) for n in names]
    sid = hashlib.sha256(labelled("session", ph, members)).digest()
    u2h = hashlib.sha256(labelled("u2", sid, names)).digest()
    survivors = []
    for name in names:
        said, vector = tap.answers[name][Kind.MASKED]
        assert vector == masked_by_hand(tap, federation, name, sid=sid, dealers=names)
        assert said.vector_digest == hashlib.sha256(vector).digest()
        verified(federation, name, said.signature, labelled("masked", sid, u2h, name, said.vector_digest))
        commitment = hashlib.sha256(labelled("b", ph, name, tap.secrets[name][1])).digest()
        assert keys[name].seed_commitment == commitment
        fields = (ph, name, keys[name].sealing_key, keys[name].mask_key, commitment, keys[name].ledger_head)
        told = (struct.pack(">Q", keys[name].last_attempt), keys[name].last_result)
        verified(federation, name, keys[name].signature, labelled("keys", *fields, *told))
        survivors.append(encoded(name, said.vector_digest))
    u3h = hashlib.sha256(labelled("u3", sid, u2h, survivors)).digest()
    for name in names:
        verified(federation, name, tap.answers[name][Kind.CONSISTENT][0].signature, labelled("u3", sid, u3h, name))


def test_the_sum_of_all_vectors_minus_the_self_masks_is_the_plain_sum(folder: Path) -> None:
    """Pairwise masks cancel: with the oracle's self masks alone the sum of a full set comes out."""
    federation = new_federation(4, folder, body_length=64)
    tap = Tap(federation)
    server = federation.run_until(Kind.SURVIVORS, federation.new_order())[0]
    sid, total = server._facts.session_id, [0] * 64
    for name in federation.names:
        vector = tap.answers[name][Kind.MASKED][1]
        key = derived(tap.secrets[name][1], sid, labelled("self", name))
        masks = words(keystream(key, 0, 4 * 64), 4)
        total = [(a + b - m) % 2**32 for a, b, m in zip(total, words(vector[40:], 4), masks, strict=True)]
    expected = federation.expected_sum(federation.names, 1)[1]
    assert total == [value % 2**32 for value in expected]


def test_a_late_vector_stays_hidden_although_all_its_pairwise_masks_are_known(folder: Path) -> None:
    """The double mask: the server declares a live site dead, rebuilds s_sk, and holds its late vector (χ² on bytes)."""
    federation = new_federation(4, folder, body_length=16_384)
    tap = Tap(federation)
    server = federation.run_until(Kind.SURVIVORS, federation.new_order())[0]
    name, sid = "site-002", server._facts.session_id
    late = words(tap.answers[name][Kind.MASKED][1][40:], 4)
    for peer in set(federation.names) - {name}:
        shared = agreed(tap.secrets[name][0], tap.answers[peer][Kind.KEYS][0].mask_key)
        key = derived(shared, sid, labelled("mask", min(name, peer), max(name, peer)))
        sign = 1 if name < peer else -1
        masks = words(keystream(key, 0, 4 * len(late)), 4)
        late = [(value - sign * mask) % 2**32 for value, mask in zip(late, masks, strict=True)]
    octets = b"".join(value.to_bytes(4, "little") for value in late)
    expected = len(octets) / 256
    chi_squared = sum((octets.count(value) - expected) ** 2 / expected for value in range(256))
    assert 140 < chi_squared < 400  # 255 degrees of freedom: mean 255, deviation 23; outside by chance: < 1e-6

"""A released model: its files, and the coordinator's signature under the card that names their digests.

```
model.safetensors      weights by parameter name
model.onnx             the same network for any runtime
model-card.json        what the model is, how private, how good; the SHA-256 of every other file
model-card.json.sig    signature over the card (this module)
MODEL-CARD.md          the card for people
```

Whoever trusts the coordinator's key needs nothing else to know that the weights are those of the study.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.files import parsed_json
from common.trust.canonical import encode_base64
from common.trust.errors import ReleaseInvalidError
from common.trust.identity import public_bytes
from common.trust.signed_document import SignedDocumentError, decoded_key, read_signed, signed_document

WEIGHTS: Final = "model.safetensors"
NETWORK: Final = "model.onnx"
CARD: Final = "model-card.json"
SIGNATURE: Final = "model-card.json.sig"
READABLE: Final = "MODEL-CARD.md"
FORMAT: Final = "fedward model card/1"
FIELDS: Final = {"format", "coordinator", "card_sha256"}
MAX_CARD_BYTES: Final = 4 << 20
MAX_SIGNATURE_BYTES: Final = 4096
MAX_FILE_BYTES: Final = 2 << 30


def sign_card(card: bytes, coordinator_key: Ed25519PrivateKey) -> bytes:
    """Return the signature file of a card's bytes (Ed25519, RFC 8032, for this purpose only)."""
    document = {
        "format": FORMAT,
        "coordinator": encode_base64(public_bytes(coordinator_key.public_key())),
        "card_sha256": hashlib.sha256(card).hexdigest(),
    }
    return signed_document(document, coordinator_key)


def verify_card(card: bytes, signature: bytes, coordinator: Ed25519PublicKey) -> dict[str, Any]:
    """Check that ``coordinator`` signed exactly these bytes, and return the card.

    Raises: ReleaseInvalidError.
    """
    if len(card) > MAX_CARD_BYTES or len(signature) > MAX_SIGNATURE_BYTES:
        raise ReleaseInvalidError(f"the model card or its signature is longer than {MAX_CARD_BYTES} bytes")
    try:
        signed = read_signed(signature, form=FORMAT, fields=FIELDS, signer="coordinator")
        signer = decoded_key(signed["coordinator"])
    except SignedDocumentError as error:
        raise ReleaseInvalidError(f"{SIGNATURE}: {error}; ask the coordinator for the release again") from None
    if public_bytes(signer) != public_bytes(coordinator):
        raise ReleaseInvalidError(f"{SIGNATURE}: another coordinator than this site's signed the model card")
    if signed["card_sha256"] != hashlib.sha256(card).hexdigest():
        raise ReleaseInvalidError(f"{CARD}: was changed after it was signed")
    try:
        document = parsed_json(card)
    except ValueError:
        raise ReleaseInvalidError(f"{CARD}: is not JSON text") from None
    if not isinstance(document, dict) or not isinstance(document.get("files"), dict):
        raise ReleaseInvalidError(f"{CARD}: names no files")
    return document


def verify_file(card: Mapping[str, Any], name: str, content: bytes) -> None:
    """Check that ``content`` is the file ``name`` of a verified card. Raises: ReleaseInvalidError."""
    if card["files"].get(name) != hashlib.sha256(content).hexdigest():
        raise ReleaseInvalidError(f"{name}: is not the file that the model card names; ask for the release again")

"""Small JSON documents whose signer is named in them: exact fields, one spelling, one signature over everything.

    file = canonical({fields..., "signature": base64(sign(key, format, SHA-256(format 0 canonical({fields...}))))})

Two files with the same meaning are the same bytes (RFC 8785), so a changed bit anywhere is noticed: either the text is
not canonical any more, or the signature does not fit.
"""

from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.files import parsed_json
from common.trust.canonical import canonical_bytes, decode_base64, digest, encode_base64
from common.trust.identity import sign, verify


class SignedDocumentError(ValueError):
    """What is wrong with a signed document, as half a sentence; callers turn it into an error of their own."""


def signed_document(document: dict[str, Any], key: Ed25519PrivateKey) -> bytes:
    """Return the file of ``document`` (which has a ``format``), signed by ``key``, with a line end."""
    signature = sign(key, document["format"], _digest(document["format"], document))
    return canonical_bytes({**document, "signature": encode_base64(signature)}) + b"\n"


def read_signed(content: bytes, *, form: str, fields: set[str], signer: str) -> dict[str, Any]:
    """Return the document in ``content``: of format ``form``, with exactly ``fields``, signed by the key in ``signer``.

    The caller bounds the size before. ``fields`` includes ``format`` and ``signer``, not ``signature``.
    Raises: SignedDocumentError.
    """
    document = _parsed(content)
    if document.get("format") != form:
        raise SignedDocumentError(f"not a file of format {form}")
    if set(document) != fields | {"signature"}:
        raise SignedDocumentError("has other fields than it must have")
    if canonical_bytes(document) != content.removesuffix(b"\n").removesuffix(b"\r"):
        raise SignedDocumentError("was written by another program, or was changed")
    encoded = document.pop("signature")
    key = decoded_key(document[signer])
    try:
        genuine = verify(key, form, _digest(form, document), decode_base64(encoded))
    except ValueError:
        genuine = False
    if not genuine:
        raise SignedDocumentError("the signature does not fit, so it was changed after it was signed")
    return document


def decoded_key(text: Any) -> Ed25519PublicKey:
    """Return the Ed25519 public key in base64 ``text``. Raises: SignedDocumentError."""
    try:
        return Ed25519PublicKey.from_public_bytes(decode_base64(text))
    except (ValueError, UnsupportedAlgorithm):
        raise SignedDocumentError("a key is not base64 of 32 bytes (Ed25519)") from None


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        document = parsed_json(content.decode())
        canonical_bytes(document)
    except ValueError:
        raise SignedDocumentError("is not JSON text") from None
    if not isinstance(document, dict):
        raise SignedDocumentError("is not a JSON object")
    return document


def _digest(form: str, document: dict[str, Any]) -> bytes:
    return bytes.fromhex(digest(form, canonical_bytes(document)))

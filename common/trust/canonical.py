"""One byte string for one document: canonical JSON (RFC 8785), and digests over it.

Two people who hold the same document hold the same bytes, whatever machine, key order or spacing: only such bytes are
hashed and signed. Numbers are written as RFC 8785 section 3.2.2.3 says (shortest form that reads back the same).
"""

import base64
import hashlib
from typing import Any

import rfc8785


def canonical_bytes(document: Any) -> bytes:
    """Return the canonical JSON (UTF-8) of a document of dict, list, str, bool, int (below 2^53) and finite float.

    Raises: ValueError for anything else (NaN, infinity, large integers, other types, values that nest too deeply).
    Source: RFC 8785.
    """
    try:
        return rfc8785.dumps(document)
    except rfc8785.CanonicalizationError as error:
        raise ValueError(f"document has no canonical form: {error}") from None
    except RecursionError:
        raise ValueError("document has no canonical form: it nests too deeply") from None


def digest(purpose: str, content: bytes) -> str:
    """Return SHA-256 (64 hexadecimal digits) over a purpose and ``content``: digests of different kinds never meet."""
    return hashlib.sha256(purpose.encode() + b"\0" + content).hexdigest()


def encode_base64(content: bytes) -> str:
    """Return standard base64 text (RFC 4648 section 4)."""
    return base64.b64encode(content).decode()


def decode_base64(text: Any) -> bytes:
    """Decode standard base64, and only the one spelling that ``encode_base64`` writes.

    The last character of padded base64 has unused bits (RFC 4648 section 3.5): a decoder that ignores them accepts
    several texts for the same bytes, so that a signed file could be changed without notice.
    Raises: ValueError.
    """
    if not isinstance(text, str):
        raise ValueError("not base64 text")  # noqa: TRY004 (callers turn every bad value into one error)
    content = base64.b64decode(text, validate=True)
    if encode_base64(content) != text:
        raise ValueError("not the canonical base64 of its bytes")
    return content

"""The token of a status page: random, in a file of its owner (0600), never a password somebody chose or left as it was.

Whoever has the token sees the page; it stands in the page's address once, then in a cookie of that browser. Deleting
the file and starting the page again makes a new token, which ends every session.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import FileUnreadableError, OutputExistsError
from common.files import write_new
from common.trust.errors import KeyInvalidError
from common.trust.identity import read_private_file

FILE_NAME: Final = "page.token"
TOKEN_BYTES: Final = 32
_MAX_FILE_BYTES: Final = 256


@dataclass(frozen=True)
class PageToken:
    """One page's token, and what is derived from it."""

    text: str

    @property
    def cookie(self) -> str:
        """Return the cookie's value: proves the token without being it."""
        return self._derived("cookie")

    @property
    def form(self) -> str:
        """Return what every form of the page carries, and no other site knows (against cross-site requests)."""
        return self._derived("form")

    def _derived(self, use: str) -> str:
        return hmac.new(self.text.encode(), b"fedward page/1\0" + use.encode(), hashlib.sha256).hexdigest()


def read_page_token(path: Path) -> PageToken:
    """Read a token. Raises: KeyExposedError, KeyInvalidError, FileUnreadableError."""
    text = read_private_file(path, _MAX_FILE_BYTES).decode("ascii", "replace").strip()
    if len(text) < TOKEN_BYTES or not text.isascii() or not text.replace("-", "").replace("_", "").isalnum():
        raise KeyInvalidError(f"{path}: not the token of a status page; delete the file, a new one is made")
    return PageToken(text)


def page_token(path: Path) -> PageToken:
    """Read the token, or make one where there is none. Raises: as ``read_page_token``; FileUnreadableError."""
    if not path.exists():
        try:
            write_new(path, secrets.token_urlsafe(TOKEN_BYTES).encode() + b"\n", 0o600)
        except OutputExistsError:
            pass  # another process made it in this moment
        except FileUnreadableError:
            if not path.exists():
                raise
    return read_page_token(path)


def same(one: str, other: str) -> bool:
    """Compare two secrets in a time that says nothing about where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())

"""Where commands keep the accountant's figures, so that reading the same plan again takes no accountant.

Two files in a folder that only its owner can enter: ``figures.key``, a secret of this machine, and ``figures.json``,
each answer under the digest of its question with a MAC under that secret. What lies beside a plan, or comes with one,
is never read: an answer counts only if this installation computed it. A file that is damaged, foreign, readable by
others or too large answers nothing, and is written anew.
"""

import hashlib
import hmac
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from common.errors import FedwardError
from common.files import parsed_json, replace_atomically
from common.privacy.kept_figures import figures_kept
from common.trust.identity import create_secret_file, read_private_file, read_secret_file

MAX_BYTES: Final = 256 * 1024
MOST_FIGURES: Final = 1000  # the oldest make room
DOMAIN: Final = b"fedward kept figure/1\0"


class FigureFile:
    """The figures kept in a folder (``common.privacy.kept_figures.Figures``). Nothing here ever fails a command."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "figures.json"
        self._secret = _secret(folder)
        self._known: dict[str, Any] = self._read() if self._secret else {}

    def known(self, question: bytes) -> float | None:
        """Return the answer that this installation computed, or None."""
        entry = self._known.get(hashlib.sha256(question).hexdigest())
        if not isinstance(entry, list) or len(entry) != 2:
            return None
        figure, tag = entry
        if type(figure) is not float or not math.isfinite(figure) or not isinstance(tag, str):
            return None
        return figure if hmac.compare_digest(tag.encode(), self._tag(question, figure).encode()) else None

    def keep(self, question: bytes, figure: float) -> None:
        """Keep an answer, where the folder can be written."""
        if self._secret is None or not math.isfinite(figure):
            return
        known = self._read()  # another command may have kept something meanwhile
        known[hashlib.sha256(question).hexdigest()] = [float(figure), self._tag(question, float(figure))]
        self._known = dict(list(known.items())[-MOST_FIGURES:])
        try:
            replace_atomically(self._file, json.dumps(self._known).encode(), 0o600)
        except FedwardError:
            self._secret = None

    def _tag(self, question: bytes, figure: float) -> str:
        message = DOMAIN + hashlib.sha256(question).digest() + figure.hex().encode()
        return hmac.new(self._secret or b"", message, hashlib.sha256).hexdigest()

    def _read(self) -> dict[str, Any]:
        try:
            found = parsed_json(read_private_file(self._file, MAX_BYTES))
        except (FedwardError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


@contextmanager
def figures_in(folder: Path | None) -> Iterator[None]:
    """Keep the accountant's figures in ``folder`` while a command runs; None: keep nothing."""
    if folder is None:
        yield
        return
    with figures_kept(FigureFile(folder)):
        yield


def own_folder() -> Path | None:
    """Return where a command without a folder of its own keeps figures: the user's cache; None where there is none."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    try:
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "fedward"
    except RuntimeError:  # no home
        return None


def _secret(folder: Path) -> bytes | None:
    """Return the folder's secret, made at first use; None where folder or secret are not the caller's alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = folder / "figures.key"
        return read_secret_file(key) if key.exists() else create_secret_file(key)
    except (FedwardError, OSError):
        return None

"""Figures of the accountant that were computed before, by this very code: a question, and who may know its answer.

An epsilon is a function of public numbers, so the same question has the same answer for ever. Who keeps answers
(``common.plan.figure_file``) is told to this module for as long as a command runs; without one everything is computed.
"""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, Protocol

CODE: Final = ("accounting.py", "gaussian.py", "google_accounting.py", "kept_figures.py")


class Figures(Protocol):
    """Somebody who keeps answers, by question (canonical bytes)."""

    def known(self, question: bytes) -> float | None:
        """Return the answer, or None."""

    def keep(self, question: bytes, figure: float) -> None:
        """Keep an answer that was just computed."""


_figures: ContextVar[Figures | None] = ContextVar("figures", default=None)


@contextmanager
def figures_kept(figures: Figures) -> Iterator[None]:
    """Let ``figures`` keep what is computed inside this block, in this thread."""
    token = _figures.set(figures)
    try:
        yield
    finally:
        _figures.reset(token)


def kept_or(question: Mapping[str, Any], compute: Callable[[], float]) -> float:
    """Return the answer to ``question`` (plain values) from whoever keeps answers, else compute it and have it kept."""
    figures = _figures.get()
    if figures is None:
        return compute()
    asked = json.dumps({**question, "by": _accountant()}, sort_keys=True, separators=(",", ":")).encode()
    figure = figures.known(asked)
    if figure is None:
        figure = compute()
        figures.keep(asked, figure)
    return figure


@functools.cache
def _accountant() -> str:
    """Return what computes: this code and the library's version, so that a figure of another one answers nothing."""
    code = hashlib.sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in CODE))
    return f"{code.hexdigest()} dp-accounting {importlib.metadata.version('dp-accounting')}"

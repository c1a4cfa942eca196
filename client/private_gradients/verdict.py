"""What a trial of engines found (``choice``), and the question that it answers: public words.

A verdict depends on no patient. It holds for one network, part of it, shape, loss, machine and installation; anything
else is another question. On disk: ``verdict_folder``. Needs nothing but Python, as ``make gpu-check`` does.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

MOST_SIZES: Final = 12
LARGEST_SIZE: Final = 4096
NAMES: Final = ("loop", "vmap", "book_keeping", "compiled")
Question = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An engine by name and the sizes of its parts (``way.Way``); sizes in ``smaller`` are below ``patients``.

    Raises: ValueError for another name, or sizes that do not fall or are out of bounds.
    """

    engine: str
    patients: int
    autocast: bool
    smaller: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sizes = (self.patients, *self.smaller)
        if self.engine not in NAMES:
            raise ValueError(f"engine must be one of {', '.join(NAMES)}")
        if len(self.smaller) > MOST_SIZES or not all(1 <= size <= LARGEST_SIZE for size in sizes):
            raise ValueError(f"sizes of parts must be at most {MOST_SIZES} numbers from 1 to {LARGEST_SIZE}")
        if any(size <= after for size, after in pairwise(sizes)):
            raise ValueError("sizes of parts must fall")


class Verdicts(Protocol):
    """Where verdicts are kept."""

    def find(self, question: Question) -> Verdict | None:
        """Return the answer to a question that was asked before."""

    def keep(self, question: Question, verdict: Verdict) -> None:
        """Keep an answer."""


class RememberedVerdicts:
    """In memory, for as long as the process lives."""

    def __init__(self) -> None:
        self._known: dict[Question, Verdict] = {}

    def find(self, question: Question) -> Verdict | None:
        """Return the answer to a question that was asked before."""
        return self._known.get(question)

    def keep(self, question: Question, verdict: Verdict) -> None:
        """Keep an answer."""
        self._known[question] = verdict


# Choices of this process: many trainings share one network, and a choice depends on no patient.
KNOWN_HERE: Final = RememberedVerdicts()

"""What is refused, by whom, and the fixed code that says so: one row of ``check_table`` for each check of the protocol.

A check has an *id* ("R1.signatures": stage R1, what is looked at) for people and tests, and a *code* (a number, the
only thing that travels). Exception text never leaves a site. ``CheckSet`` runs the checks by id; tests and attackers
hand a session a set with one check switched off, to show that this very check is what stops a case. No configuration
reaches that argument.
"""

from collections.abc import Callable, Collection
from typing import ClassVar

from common.errors import ExitCode, FedwardError
from common.secagg.check_table import CHECK_OF_CODE, TABLE, Check, Row

__all__ = [
    "ALL_CHECKS",
    "CHECK_OF_CODE",
    "TABLE",
    "BlamedError",
    "Check",
    "CheckSet",
    "RefusedError",
    "RoundAbortedError",
    "Row",
]


class RefusedError(FedwardError):
    """A message of the other side was refused; the code says by which check.

    Attributes:
        about: the site at fault, where one can be named.
        delay_s: seconds to hold the refusal back, where its time would tell how long training took.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.PROTOCOL_REFUSED

    def __init__(self, check: Check, about: str = "") -> None:
        """Keep the check and, where one site is at fault, its name."""
        super().__init__(f"refused by check {check} (code {TABLE[check].code}): stops {TABLE[check].stops}")
        self.check = check
        self.about = about
        self.delay_s = 0.0


class RoundAbortedError(FedwardError):
    """The server gave a round up: nothing was opened, and a new attempt is needed."""

    exit_code: ClassVar[ExitCode] = ExitCode.PROTOCOL_ABORTED

    def __init__(self, check: Check, sentence: str, suspects: tuple[str, ...] = ()) -> None:
        """Keep the check, a sentence with the numbers, and the sites whose messages caused it, if known."""
        super().__init__(f"round aborted by check {check} (code {TABLE[check].code}): {sentence}")
        self.check = check
        self.suspects = suspects


class BlamedError(Exception):
    """Raised inside a check to name the site at fault; ``CheckSet`` turns it into a refusal with that name."""

    def __init__(self, site_id: str) -> None:
        """Keep the name."""
        super().__init__(site_id)
        self.site_id = site_id


class CheckSet:
    """The checks in force: all of them, unless a test switches some off by id."""

    def __init__(self, *, without: Collection[str] = ()) -> None:
        """Switch off the checks of these ids. Only tests and ``simulation.attackers`` pass any.

        Raises: ValueError for an unknown id or one that is not switchable.
        """
        self._off = frozenset(Check(check_id) for check_id in without)
        if not all(TABLE[check].is_switchable for check in self._off):
            raise ValueError("reading, and a fault of one's own, cannot be switched off")

    def demand(self, check: Check, holds: Callable[[], bool]) -> None:
        """Refuse unless ``holds()``; a check that is switched off is not even evaluated.

        Raises: RefusedError, with the site that a BlamedError inside ``holds`` names.
        """
        try:
            if self.passes(check, holds):
                return
        except BlamedError as blamed:
            raise RefusedError(check, blamed.site_id) from None
        raise RefusedError(check)

    def passes(self, check: Check, holds: Callable[[], bool]) -> bool:
        """Tell whether ``holds()``, or True unseen where the check is switched off."""
        return check in self._off or holds()


ALL_CHECKS = CheckSet()

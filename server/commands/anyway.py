"""A plan that cannot work is not signed by accident: red lights ask for ``--anyway`` with a reason."""

from typing import Annotated, Any, Final

import typer

from common.plan.errors import PlanInvalidError
from common.plan.lights import red

LONGEST_REASON: Final = 300

AnywayOption = Annotated[
    bool, typer.Option("--anyway", help="Sign although a light of the plan is red; needs --reason.")
]
ReasonOption = Annotated[str, typer.Option(help="Why a plan with a red light is signed; kept in the audit log.")]


def require_no_red(summary: dict[str, Any], source: str, *, anyway: bool, reason: str) -> None:
    """Refuse a plan with a red light, unless somebody says why. Raises: PlanInvalidError."""
    found = red(summary["lights"])
    if not found:
        if anyway or reason:
            raise PlanInvalidError(f"{source}: no light of this plan is red, so leave --anyway and --reason out")
        return
    if not anyway:
        raise PlanInvalidError(
            f"{source}: {' Also: '.join(found)}. Not signed; `--anyway --reason TEXT` signs it nevertheless, and the "
            "hospitals read the same"
        )
    if not 1 <= len(reason.strip()) <= LONGEST_REASON or not reason.isprintable():
        raise PlanInvalidError(f"{source}: --anyway needs --reason of 1 to {LONGEST_REASON} printable characters")

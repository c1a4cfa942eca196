"""fedward-site approve: a named person reads a plan and says yes, or takes a yes back."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from client.commands.computing import compute_shown
from client.commands.site_folder import SiteFolderHere
from client.consent.approval import approve, check_for_approval, require_name, withdraw_approval
from client.consent.confirmation import require_confirmed
from client.consent.continuity.ended import require_not_ended
from client.consent.continuity.losses import require_whole
from client.consent.errors import NotConfirmedError
from client.consent.plan_page import plan_facts, print_plan
from client.installation.audit_log import standing_approvals
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from common.plan.figure_file import figures_in
from common.terminal import JsonOption, errors, output, print_json

SHORTEST_DIGEST = 8


def approve_plan(
    plan: Annotated[Path | None, typer.Argument(help="The plan (TOML), with its signature beside it.")] = None,
    *,
    site_folder: SiteFolderHere = Path(),
    approver: Annotated[str | None, typer.Option(help="Name of the person who decides; asked for otherwise.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Decide without being asked.")] = False,
    withdraw: Annotated[
        str | None, typer.Option("--withdraw", metavar="DIGEST", help="Take back the approval of this plan.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a plan asks, what leaves and what it costs; then a named person approves it, or not.

    Nothing starts before that. `--json` prints the facts; it approves only with `--approver NAME --yes`. Enough of the
    other hospitals must be confirmed before (`fedward-site confirm`). A running agent notices at once. Where the plan
    trains on features of a public encoder, they are computed now; that may be stopped, and goes on the next time.

    Example: `fedward-site approve study.toml --site-folder /srv/fedward`
    """
    folder = SiteFolder(site_folder)
    if (plan is None) == (withdraw is None):
        raise typer.BadParameter("give a plan to approve, or --withdraw with the digest of one that is approved")
    if withdraw is not None:
        _withdraw(folder, withdraw, approver, yes=yes, as_json=as_json)
        return
    assert plan is not None  # noqa: S101 (for the types)
    with figures_in(folder.figures):
        _decide(folder, plan, approver, yes=yes, as_json=as_json)


def _decide(folder: SiteFolder, plan: Path, approver: str | None, *, yes: bool, as_json: bool) -> None:
    """Show the plan; then a named person approves it, or nothing happens."""
    require_whole(folder)
    facts = _facts(folder, plan)
    require_not_ended(folder, facts["digest"])
    if as_json and not yes:
        print_json({**facts, "approved": False})
        return
    if not as_json:
        print_plan(facts, output)
    known = facts["confirmed"]
    listed = {site["name"] for site in facts["sites"]}
    require_confirmed(known["needed"], frozenset(listed.difference(known["not_confirmed"])), listed)
    name = _name(approver)
    _confirm(f"Type the study's name, {facts['study']}, to approve", facts["study"], yes=yes)
    checked = approve(folder, plan, approver=name)
    if not as_json:
        output.print(f"approved by {name}; take it back with --withdraw {facts['digest'][:12]}", markup=False)
    computed = compute_shown(folder, checked.plan, quiet=as_json)
    if as_json:
        more = {} if computed is None else {"features_computed": computed}
        print_json({**facts, "approved": True, "approver": name, **more})
    elif computed is not None:
        output.print(f"features of {computed} scans were computed; all are here", markup=False)


def _facts(folder: SiteFolder, plan: Path) -> dict[str, Any]:
    with errors.status("checking the plan") if errors.is_terminal else nullcontext():
        return plan_facts(folder, check_for_approval(folder, plan), source=str(plan))


def _withdraw(folder: SiteFolder, digest: str, approver: str | None, *, yes: bool, as_json: bool) -> None:
    found = [known for known in standing_approvals(folder) if known.startswith(digest)]
    if len(digest) < SHORTEST_DIGEST or len(found) != 1:
        raise NotEnrolledError(
            f"{len(found)} approved plans begin with these digits; give {SHORTEST_DIGEST} digits or more of one digest"
        )
    name = _name(approver)
    short = found[0][:SHORTEST_DIGEST]
    _confirm(f"Type {short} to withdraw the approval of plan {found[0]}", short, yes=yes)
    withdraw_approval(folder, found[0], approver=name)
    if as_json:
        print_json({"withdrawn": found[0], "approver": name})
    else:
        output.print(f"withdrawn: this site takes no further order of plan {found[0]}; what was spent stays spent")


def _name(approver: str | None) -> str:
    name = approver if approver is not None else _ask("Your name, as it goes into the audit log")
    require_name(name)
    return name.strip()


def _confirm(question: str, wanted: str, *, yes: bool) -> None:
    if not yes and _ask(question).strip() != wanted:
        raise NotConfirmedError("nothing was changed: the word typed was another one")


def _ask(question: str) -> str:
    if not sys.stdin.isatty():
        raise NotConfirmedError("nobody to ask: nothing was changed. In a script give --approver NAME and --yes")
    return str(typer.prompt(question, err=True))

"""fedward-site begin-again: a named person decides that a lost file begins again, at its price."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from client.commands.site_folder import SiteFolderHere
from client.consent.continuity.beginning_again import begin_again
from client.consent.continuity.files import PRICES, Lost
from client.consent.errors import NotConfirmedError
from client.installation.folder import SiteFolder
from common.terminal import JsonOption, output, print_json


def begin_file_again(
    file: Annotated[Lost, typer.Argument(help="The file that is lost.")],
    *,
    by: Annotated[str, typer.Option("--by", help="Name of the person who decides, for the audit log.")],
    reason: Annotated[str, typer.Option("--reason", help="Why no copy can be put back, for the audit log.")],
    plan: Annotated[
        list[Path] | None, typer.Option("--plan", help="Plan of a study whose file is gone here (ledger only).")
    ] = None,
    shown_elsewhere: Annotated[
        bool,
        typer.Option(
            "--shown-elsewhere", help="Nothing here shows it, but the coordinator's heads do (ledger and journal only)."
        ),
    ] = False,
    site_folder: SiteFolderHere = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Decide without being asked.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Go on without a file whose loss loosens a promise: only where no copy of it can be found.

    The price is paid at once, and the decision is shown for ever after, on the site's page and by `fedward-site check`.
    For the ledger every study ever approved here is charged all that it promised; docs/lost-files.md has the others.
    What is replaced is kept in the folder `replaced`. Stop the site first.

    Example: `fedward-site begin-again ledger --by "Dr North" --reason "disk died, no backup" --site-folder site/`
    """
    if not yes:
        _confirm(file)
    paid = begin_again(
        SiteFolder(site_folder),
        file,
        person=by,
        reason=reason,
        plan_files=plan or (),
        shown_elsewhere=shown_elsewhere,
    )
    if as_json:
        print_json({"file": file.value, "price": PRICES[file], "studies": paid})
        return
    output.print(f"{file} begins again, by decision of {by}: {PRICES[file]}", markup=False)
    for study in paid:
        output.print(f"  study {study}", markup=False)
    if paid:
        output.print("`fedward-site ledger` shows what remains of the ceiling", markup=False)


def _confirm(file: Lost) -> None:
    if not sys.stdin.isatty():
        raise NotConfirmedError("nobody to ask: nothing was changed. In a script give --yes")
    answer = typer.prompt(f"The price: {PRICES[file]}. Type {file} to decide so", err=True)
    if str(answer).strip() != file:
        raise NotConfirmedError("nothing was changed: the word typed was another one")

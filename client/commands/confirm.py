"""fedward-site confirm: this hospital is real, I spoke with it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from client.commands.site_folder import SiteFolderHere
from client.consent.confirmation import confirm, take_back
from client.consent.continuity.files import Lost
from client.consent.continuity.losses import require_whole
from client.consent.errors import NotConfirmedError
from client.installation.folder import SiteFolder
from common.terminal import JsonOption, errors, output, print_json


def confirm_hospital(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The other hospital, as the roster names it.")],
    *,
    by: Annotated[str, typer.Option("--by", help="Who spoke with that hospital, for the audit log.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="That hospital's fingerprint, as it read it out itself; asked for otherwise.")
    ] = None,
    site_folder: SiteFolderHere = Path(),
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the confirmation back.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write down that a hospital of the roster is real, after it read its fingerprint out to you itself.

    One hospital at a time, over a number that does not come from the coordinator. Only confirmed hospitals count when
    this site looks whether a round is large enough (`minimum_confirmed` in policy.toml). A running agent notices.

    Example: `fedward-site confirm south --fingerprint "ABCD EFGH …" --by "Dr Mina Rao" --site-folder /srv/fedward`
    """
    folder = SiteFolder(site_folder)
    require_whole(folder, only=Lost.AUDIT)  # a confirmation must not begin an audit log that is lost
    if withdraw:
        if fingerprint is not None:
            raise typer.BadParameter("--withdraw takes no --fingerprint")
        take_back(folder, name, person=by)
        document: dict[str, object] = {"site": name, "confirmed": False, "person": by.strip()}
        sentence = f"{name} counts as unconfirmed from the next order on"
    else:
        made = confirm(folder, name, fingerprint if fingerprint is not None else _asked(name), person=by)
        document = {"site": name, "confirmed": True, "fingerprint": made.fingerprint, "person": made.person}
        sentence = f"{name} is confirmed by {made.person}; take it back with --withdraw"
    print_json(document) if as_json else output.print(sentence, markup=False)


def _asked(name: str) -> str:
    if not sys.stdin.isatty():
        raise NotConfirmedError(f"nobody to ask: give --fingerprint, as {name} read it out over the phone")
    errors.print(f"Call {name} over a number you know, and ask for its fingerprint.", markup=False)
    return str(typer.prompt(f"Fingerprint of {name}, as heard", err=True))

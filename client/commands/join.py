"""fedward-site join: the coordinator's kit."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from client.commands.site_folder import SiteFolderHere
from client.consent.errors import NotConfirmedError
from client.installation.folder import SiteFolder
from client.installation.joining import Joined, join
from common.terminal import JsonOption, errors, output, print_json


def join_federation(
    kit_file: Annotated[Path, typer.Argument(metavar="KIT", help="The kit (JSON) from the coordinator.")],
    *,
    site_folder: SiteFolderHere = Path(),
    fingerprint: Annotated[
        str | None, typer.Option(help="The coordinator's fingerprint as heard over the phone; asked for otherwise.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the coordinator's kit and its roster, after comparing the coordinator's fingerprint.

    Do it again with every newer kit: when hospitals come or go, the coordinator signs a new roster.

    Example: `fedward-site join kit.json --site-folder /srv/fedward`
    """
    joined = join(SiteFolder(site_folder), kit_file, spoken=lambda: fingerprint or _asked())
    print_json(_document(joined)) if as_json else _print(joined, site_folder)


def _asked() -> str:
    if not sys.stdin.isatty():
        raise NotConfirmedError("nobody to ask: give --fingerprint, as the coordinator read it out over the phone")
    errors.print("Call the coordinator over a number you know, and ask for the fingerprint.")
    return str(typer.prompt("Fingerprint of the coordinator, as heard", err=True))


def _document(joined: Joined) -> dict[str, object]:
    kit = joined.kit
    return {
        "federation": kit.federation,
        "coordinator": kit.fingerprint(),
        "address": kit.address,
        "site": joined.site or None,
        "epoch": joined.epoch,
        "roster_changed": joined.roster_changed,
        "others": joined.others,
    }


def _print(joined: Joined, site_folder: Path) -> None:
    kit = joined.kit
    output.print(f"joined {kit.federation} at {kit.address}, coordinator {kit.fingerprint()}", markup=False)
    if joined.epoch is None:
        output.print("the kit has no roster yet: the coordinator will send another one")
        return
    output.print(f"roster of epoch {joined.epoch}, where this site is {joined.site}. The other hospitals:")
    for name, theirs in joined.others.items():
        output.print(f"  {theirs}  {name}")
    output.print("Confirm each fingerprint with that hospital itself, not with the coordinator, before you approve.")
    if joined.roster_changed:
        output.print("The roster is new: plans made for the former one need a new plan and a new approval.")
    output.print(f"Next: `fedward-site check --site-folder {site_folder}`", markup=False)

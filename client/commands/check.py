"""fedward-site check: everything that can go wrong, one line each, with what to do."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client.commands.errors import CheckFailedError
from client.commands.site_folder import SiteFolderHere
from client.doctor.examination import examine, stopping
from client.doctor.findings import Finding, Level
from client.installation.folder import SiteFolder
from common.terminal import JsonOption, errors, output, print_json, printable

MARKS = {Level.OK: "[green]ok  [/]", Level.ADVICE: "[yellow]look[/]", Level.STOP: "[bold red]STOP[/]"}


def check(
    *,
    site_folder: SiteFolderHere = Path(),
    offline: Annotated[bool, typer.Option("--offline", help="Leave the coordinator out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at folder, keys, policy, kit, roster, plans, data, labels, device, disk, ports, proxy, TLS and clock.

    Nothing is changed, and the coordinator learns only that somebody connected. Ends with code 88 when something would
    keep the site from taking part.

    Example: `fedward-site check --site-folder /srv/fedward`
    """
    found: list[Finding] = []
    with errors.status("looking") if errors.is_terminal and not as_json else nullcontext():
        for finding in examine(SiteFolder(site_folder), with_network=not offline):
            found.append(finding)
            if not as_json:
                _print(finding)
    stops = stopping(found)
    if as_json:
        print_json({"ok": not stops, "findings": [asdict(finding) for finding in found]})
    if stops:
        names = ", ".join(dict.fromkeys(finding.name for finding in stops))
        raise CheckFailedError(f"{len(stops)} of {len(found)} findings would stop this site: {names}; see above")


def _print(finding: Finding) -> None:
    name, text, remedy = (printable(part) for part in (finding.name, finding.text, finding.remedy))
    output.print(f"{MARKS[finding.level]}  {name:<12} {text}")
    if remedy:
        output.print(f"                   -> {remedy}")

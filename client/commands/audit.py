"""fedward-site audit: who approved, withdrew, paused and resumed, and when; the record can be verified offline."""

import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from client.commands.site_folder import SiteFolderHere
from client.installation.audit_log import audit_links
from client.installation.folder import SiteFolder
from common.terminal import JsonOption, output, print_json, printable
from common.trust.hash_chain import START, ChainLink

SHORT_DIGEST = 12


def show_audit(
    *,
    site_folder: SiteFolderHere = Path(),
    verify: Annotated[bool, typer.Option("--verify", help="Only check the record from its first line.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show who decided what at this site. Every line holds the hash of the one before it.

    Keep a copy of the printed head: it proves later that no line was removed.

    Example: `fedward-site audit --site-folder /srv/fedward --verify`
    """
    links = list(audit_links(SiteFolder(site_folder)))  # verified from the first line
    head = links[-1].hash if links else START
    if as_json:
        print_json({"head": head, "lines": len(links), "entries": [_document(link) for link in links]})
    elif verify:
        output.print(f"{len(links)} lines, each fits the one before it; head {head}")
    else:
        _print(links)
        output.print(f"head {head}")


def _document(link: ChainLink) -> dict[str, Any]:
    return {"number": link.number, "hash": link.hash, **link.entry}


def _print(links: list[ChainLink]) -> None:
    table = Table("when", "what", "who", "about", title="What was decided at this site", title_justify="left")
    for link in links:
        entry = link.entry
        moment = dt.datetime.fromtimestamp(entry.get("time", 0), tz=dt.UTC).isoformat(timespec="seconds")
        person = str(entry.get("approver") or entry.get("person") or "")
        table.add_row(moment, *(printable(text) for text in (str(entry["what"]), person, _about(entry))))
    output.print(table)


def _about(entry: dict[str, Any]) -> str:
    """Return what a line is about: a plan, a roster, a coordinator, a model, an encoder."""
    shown = {
        "plan": SHORT_DIGEST,
        "weights": SHORT_DIGEST,
        "encoder": SHORT_DIGEST,
        "coordinator": 64,
        "roster": SHORT_DIGEST,
        "site": 64,
        "fingerprint": 64,
    }
    about = [f"{name} {str(entry[name])[:length]}" for name, length in shown.items() if entry.get(name)]
    if entry["what"] == "begun again":
        about += [f"{entry['file']}: {entry['reason']}"]
    return ", ".join(about)

"""fedward-site outbox: what left this hospital, by kind, study and day; the record can be verified offline."""

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from client.commands.site_folder import SiteFolderHere
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from client.installation.outbox import NAME
from common.terminal import JsonOption, output, print_json
from common.trust.hash_chain import HashChain

SHORT_DIGEST = 12


def show_outbox(
    *,
    site_folder: SiteFolderHere = Path(),
    verify: Annotated[bool, typer.Option("--verify", help="Only check the record from its first line.")] = False,
    lines: Annotated[int, typer.Option(min=0, help="Also show the last so many messages.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show what left this hospital: kinds, numbers and bytes. The record holds no content.

    Keep a copy of the printed head: it proves later that no line was removed.

    Example: `fedward-site outbox --site-folder /etc/fedward --lines 20`
    """
    path = SiteFolder(site_folder).outbox
    if not path.exists():
        raise NotEnrolledError(f"{path}: nothing has left this site yet, or this is not its folder")
    entries = [link.entry for link in HashChain(path, NAME).links()]  # verified from the first line
    head = HashChain(path, NAME).head
    if as_json:
        print_json(
            {
                "head": head,
                "messages": len(entries),
                "kinds": totals(entries),
                "last": entries[-lines:] if lines else [],
            }
        )
    elif verify:
        output.print(f"{len(entries)} messages, each fits the one before it; head {head}")
    else:
        _show(entries, lines)
        output.print(f"head {head}")


def totals(entries: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return messages and bytes of each kind, largest first."""
    counted: Counter[str] = Counter(entry["kind"] for entry in entries)
    sizes: Counter[str] = Counter()
    for entry in entries:
        sizes[entry["kind"]] += entry["message_bytes"] + entry["payload_bytes"]
    return {kind: {"messages": counted[kind], "bytes": size} for kind, size in sizes.most_common()}


def _show(entries: list[dict[str, Any]], lines: int) -> None:
    table = Table(title="What left this hospital", title_justify="left")
    for title in ("kind", "messages", "bytes"):
        table.add_column(title, justify="left" if title == "kind" else "right")
    for kind, row in totals(entries).items():
        table.add_row(kind, str(row["messages"]), f"{row['bytes']:,}")
    output.print(table)
    for entry in entries[-lines:] if lines else []:
        moment = dt.datetime.fromtimestamp(entry["time"], tz=dt.UTC).isoformat(timespec="seconds")
        study = entry["study"][:SHORT_DIGEST] or "no study"
        output.print(
            f"{moment}  {entry['kind']:<10}  {study:<12}  {entry['message_bytes'] + entry['payload_bytes']:>12,}"
        )

"""fedward-site ledger: what the patients here have spent, and what is left."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from client.commands.site_folder import SiteFolderHere
from client.consent.continuity.files import signs_of_use
from client.consent.policy import read_policy
from client.installation.folder import SiteFolder
from client.ledger.budget import Spending
from client.ledger.errors import LedgerInvalidError
from client.ledger.ledger import Ledger
from client.ledger.report import LedgerReport, report, verify
from common.errors import OutputExistsError
from common.files import write_new
from common.privacy.errors import AccountingError
from common.terminal import JsonOption, errors, output, print_json


def ledger(
    *,
    site_folder: SiteFolderHere = Path(),
    check: Annotated[bool, typer.Option("--verify", help="Recompute epsilon with a second accountant.")] = False,
    chart: Annotated[Path | None, typer.Option("--chart", help="Write a small picture (PNG).")] = None,
    anchor: Annotated[
        str | None, typer.Option("--anchor", help="STUDY:HEAD from a signed message; is this copy as new?")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Begin the ledger of a new site, once.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what every study has spent of the patients' privacy, and what remains under this site's ceiling.

    Opening the ledger verifies its hash chain; a missing, damaged or older copy is refused with exit code 51.

    Example: `fedward-site ledger --site-folder site/ --verify`
    """
    folder = SiteFolder(site_folder)
    ceiling = read_policy(folder.policy).epsilon_ceiling
    if not folder.ledger.exists():
        _begin(folder, create=create)
    elif create:
        raise OutputExistsError(f"{folder.ledger}: exists already; a ledger is never begun twice")
    with Ledger.open(folder.ledger, ceiling=ceiling) as opened:
        if anchor is not None:
            opened.check_anchor(*_anchor(anchor))
        spending = opened.spending()
    with errors.status("accounting") if errors.is_terminal and not as_json else _Quiet():
        shown = report(spending, ceiling=ceiling)
        checks = _checks(spending) if check else None
    if chart is not None:
        _write_chart(chart, spending, ceiling)
    if as_json:
        print_json(_document(shown, checks))
    else:
        _print(shown, checks)
    if checks is not None and not all(row["agrees"] for row in checks):
        raise AccountingError("the two accountants disagree about at least one stratum: stop, and report this")


def _begin(folder: SiteFolder, *, create: bool) -> None:
    """Begin the ledger of a new site, when told to; a lost one is a named person's decision.

    Raises: LedgerInvalidError where there is no ledger and none may begin.
    """
    used = signs_of_use(folder)
    if used:
        raise LedgerInvalidError(
            f"{folder.ledger}: there is no privacy ledger, but this site was used ({', '.join(used[:6])}): a lost one "
            "never begins again at zero. Put the newest copy back, with its anchor; where none can be found, a named "
            "person decides: `fedward-site begin-again ledger --by NAME --reason TEXT` charges every study ever "
            "approved here all that it promised (docs/lost-files.md)"
        )
    if not create:
        raise LedgerInvalidError(
            f"{folder.ledger}: there is no privacy ledger. For a new site only, run: fedward-site ledger --create"
        )
    Ledger.create(folder.ledger).close()


class _Quiet:
    """No progress to show."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _anchor(text: str) -> tuple[str, bytes]:
    """Split STUDY:HEAD (64 hexadecimal digits each)."""
    study, _, head = text.partition(":")
    try:
        return study, bytes.fromhex(head)
    except ValueError:
        raise LedgerInvalidError("--anchor needs STUDY:HEAD, both in hexadecimal digits") from None


def _checks(spending: list[Spending]) -> list[dict[str, Any]]:
    return [
        {
            "study": study,
            "stratum": stratum.value,
            "pld": result.pld,
            "prv": result.prv,
            "rdp": result.rdp,
            "agrees": result.agrees,
        }
        for study, stratum, result in verify(spending)
    ]


def _write_chart(path: Path, spending: list[Spending], ceiling: float) -> None:
    from client.ledger.chart import chart  # noqa: PLC0415 (matplotlib takes a second; most calls draw nothing)

    write_new(path, chart(spending, ceiling=ceiling))


def _document(shown: LedgerReport, checks: list[dict[str, Any]] | None) -> dict[str, Any]:
    document = {**asdict(shown), "remaining": shown.remaining, "neighbouring_relation": "zero-out", "unit": "patient"}
    return document if checks is None else {**document, "verify": checks}


def _print(shown: LedgerReport, checks: list[dict[str, Any]] | None) -> None:
    table = Table("study", "stratum", "attempts", "steps", "epsilon", "remaining", "delta")
    for row in shown.strata:
        figures = (str(row.attempts), str(row.steps), f"{row.epsilon:.3f}", f"{row.remaining:.3f}", f"{row.delta:g}")
        table.add_row(row.study[:12], row.stratum.value, *figures)
    output.print(table)
    at = "" if shown.delta is None else f" at delta {shown.delta:g}"
    output.print(f"worst patient over all studies: epsilon {shown.epsilon:.3f} of {shown.ceiling:g}{at} (zero-out)")
    if shown.attempts_left is not None:
        words = "attempts like the last one that would still fit under the ceiling, of whatever study"
        output.print(f"{words}: {shown.attempts_left}")
    counted = ", ".join(f"{count} {kind}" for kind, count in shown.outcomes.items())
    output.print(f"attempts: {counted} (reserved ones count as spent)")
    if checks is not None:
        second = Table("study", "stratum", "PLD", "PRV", "RDP", "agrees")
        for check in checks:
            opinions = [f"{check[name]:.3f}" for name in ("pld", "prv", "rdp")]
            second.add_row(check["study"][:12], check["stratum"], *opinions, "yes" if check["agrees"] else "NO")
        output.print(second)

"""fedward-server status: where a study stands."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from common.terminal import JsonOption, output, print_json
from server.study_folder import open_study
from server.study_status import read_journal, study_status


def status(
    folder: Annotated[Path, typer.Argument(help="The study folder (plan, roster, journal).")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show rounds, attempts, scores and sites of a study, also while it runs.

    Example: `fedward-server status study/ --json`
    """
    study = open_study(folder)
    journal = read_journal(study)
    facts = study_status(study, journal)
    if journal:
        journal.close()
    print_json(facts) if as_json else _print(facts)


def _print(facts: dict[str, Any]) -> None:
    output.print(
        f"{facts['study']}: {facts['state']}, {facts['rounds_applied']} of {facts['rounds_planned']} rounds, "
        f"{facts['attempts']} of {facts['attempts_allowed']} attempts",
        markup=False,
    )
    for why, count in facts["aborted"].items():
        output.print(f"[yellow]{count} attempts given up[/]: {escape(why)}")
    for version, score in list(facts["scores"].items())[-3:]:
        low, high = score["interval"]
        shown = "no score" if score["score"] is None else f"{score['score']:.3f} ({low:.3f} to {high:.3f})"
        output.print(f"model after {version} rounds: {shown}, noise included", markup=False)
    table = Table("site", "in cohort", "in sum", "dropped out", "timeouts", "refused", "bytes from site")
    for name, site in facts["sites"].items():
        refused = ", ".join(f"{why} {count}" for why, count in site["refused"].items())
        numbers = [str(site[key]) for key in ("in_cohort", "in_sum", "dropped_out", "timeouts")]
        table.add_row(escape(name), *numbers, escape(refused), f"{site['bytes_from_site']:,}")
    output.print(table)

"""fedward-server status: where a study stands."""

import time
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from common.terminal import JsonOption, output, print_json
from server.commands.federation_options import HERE, FolderOption, federation_at, study_at
from server.deployment.federation_status import federation_status, keeping
from server.study.folder import open_study
from server.study.status import read_journal, study_status


def status(
    study: Annotated[
        str | None, typer.Argument(help="A study: its name, or its folder. Without one: the whole federation.")
    ] = None,
    *,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show a federation's processes, sites and studies; or a study's rounds, attempts, scores and sites.

    Example: `fedward-server status` · `fedward-server status lungs-2026 --json`
    """
    if study is None:
        facts = federation_status(*federation_at(folder))
        print_json(facts) if as_json else _print_federation(facts)
        return
    opened = open_study(study_at(study, folder))
    journal = read_journal(opened)
    facts = study_status(opened, journal) | keeping(opened.folder.path)
    if journal:
        journal.close()
    print_json(facts) if as_json else _print(facts)


def _print_federation(facts: dict[str, Any]) -> None:
    roster = facts["roster"]
    signed = f"roster epoch {roster['epoch']}" if roster else "no roster yet"
    running = ", ".join(name for name, process in facts["processes"].items() if process) or "nothing runs"
    output.print(f"{facts['federation']} at {facts['address']}: {running}; {signed}", markup=False)
    if facts["lacking"]:
        output.print(f"it cannot work: {facts['lacking']}", markup=False)
    if facts["alarm_failure"]:
        output.print(f"the last alarm was not told: {facts['alarm_failure']}", markup=False)
    for name, why in facts["failing"].items():
        output.print(f"{name} does not work: {why}; logs/{name}.log says more", markup=False)
    sites = Table("site", "in the roster", "online")
    for name, site in facts["sites"].items():
        online = {True: "yes", False: "no", None: "unknown"}[site["online"]]
        sites.add_row(escape(name), "yes" if site["in_roster"] else "no", online)
    output.print(sites)
    studies = Table("study", "state", "rounds", "wanted", "running", "last run")
    for name, study in facts["studies"].items():
        rounds = f"{study.get('rounds_applied', '-')} of {study.get('rounds_planned', '-')}"
        marks = ["yes" if study[key] else "no" for key in ("wanted", "running")]
        studies.add_row(escape(name), escape(study["state"]), rounds, *marks, escape(_last(study)))
    output.print(studies)


def _last(study: dict[str, Any]) -> str:
    if study.get("waiting"):
        return "; ".join(each["sentence"] for each in study["waiting"]["for"])
    return str(study["ended"]["why"]) if study["ended"] else str(study.get("why", ""))


def _print_waiting(study: str, waiting: dict[str, Any] | None) -> None:
    """Say for whom a study waits, since when, why, and what to do."""
    if waiting is None:
        return
    known = waiting["since_unix_s"]
    since = "" if known is None else f" since {time.strftime('%Y-%m-%d %H:%M', time.localtime(known))}"
    how = "the next attempt follows by itself"
    if waiting["needed"] is not None:
        how = f"{waiting['hospitals']} of at least {waiting['needed']} hospitals can be asked"
    output.print(f"waiting{since}: {how}; it goes on by itself when the cause is gone", markup=False)
    for each in waiting["for"]:
        output.print(f"  {each['sentence']}", markup=False)
    output.print(f"  when it is mended: `fedward-server study go-on {study}` asks everybody at once", markup=False)


def _print(facts: dict[str, Any]) -> None:
    output.print(
        f"{facts['study']}: {facts['state']}, {facts['rounds_applied']} of {facts['rounds_planned']} rounds, "
        f"{facts['attempts']} of {facts['attempts_allowed']} attempts, {facts['orders']} orders",
        markup=False,
    )
    _print_waiting(facts["study"], facts["waiting"])
    if facts["ended"] and not facts["running"]:
        output.print(f"last run: {facts['ended']['why']}", markup=False)
    for why, count in facts["aborted"].items():
        output.print(f"[yellow]{count} attempts given up[/]: {escape(why)}")
    for suspicion in facts["suspicions"][-3:]:
        state = "in force" if suspicion["holds"] else "past"
        output.print(f"[yellow]{state}[/], since attempt {suspicion['since_attempt']}: {escape(suspicion['why'])}")
    for version, score in list(facts["scores"].items())[-3:]:
        low, high = score["interval"]
        shown = score["void"] or "no score"
        if score["score"] is not None:
            shown = f"{score['score']:.3f} ({low:.3f} to {high:.3f})"
        output.print(f"model after {version} rounds: {shown}, noise included", markup=False)
    table = Table("site", "in cohort", "in sum", "dropped out", "timeouts", "slow", "refused", "bytes from site")
    for name, site in facts["sites"].items():
        refused = ", ".join(f"{why} {count}" for why, count in site["refused"].items())
        numbers = [str(site[key]) for key in ("in_cohort", "in_sum", "dropped_out", "timeouts", "slow")]
        table.add_row(escape(name), *numbers, escape(refused), f"{site['bytes_from_site']:,}")
    output.print(table)

"""fedward-server run, resume and stop: which studies ``up`` keeps running."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from common.terminal import JsonOption, NowAndThen, errors, output, print_json
from server.commands.federation_options import HERE, FolderOption, StudyArgument, federation_at
from server.deployment.federation_status import keeping, process_of
from server.deployment.study_wanting import has_ended, unwant, want
from server.errors import StudyStoppedError
from server.study.folder import Study, open_study
from server.study.live_status import read_live_status
from server.study.status import read_journal, study_status

LOOK_EVERY_S: Final = 0.5

WaitOption = Annotated[bool, typer.Option("--wait", help="Return when the study has ended; Ctrl-C leaves it running.")]


def run(
    study: StudyArgument,
    *,
    wait: WaitOption = False,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Have a study run until it is finished, over restarts and crashes; what is done already is not done again.

    Example: `fedward-server run lungs-2026 --wait`
    """
    federation, _ = federation_at(folder)
    want(federation, study)
    if process_of(federation, "supervisor") is None:
        errors.print("`fedward-server up` does not run here; the study starts when it does", markup=False)
    opened = open_study(federation.existing_study(study))
    if wait:
        _watch(opened, lambda: has_ended(federation, study))
    facts = _facts(opened)
    if as_json:
        print_json(facts)
    elif not wait:
        output.print(f"{study} is to run; `fedward-server status {study}` shows how far it is", markup=False)
    else:
        output.print(f"{study}: {facts['state']}, {facts['rounds_applied']} rounds applied", markup=False)
    if wait and facts["state"] != "finished" and facts["ended"] and facts["ended"]["state"] != "not_scored":
        raise StudyStoppedError(f"{study}: {facts['ended']['why']}")


def stop(
    study: StudyArgument,
    *,
    wait: WaitOption = False,
    folder: FolderOption = HERE,
) -> None:
    """Stop a study after the attempt that is under way; `fedward-server resume` goes on where it stopped.

    Example: `fedward-server stop lungs-2026 --wait`
    """
    federation, _ = federation_at(folder)
    unwant(federation, study)
    if wait:
        _watch(open_study(federation.existing_study(study)), lambda: has_ended(federation, study))
    output.print(f"{study} {'has stopped' if wait else 'stops after the attempt under way'}", markup=False)


def _facts(study: Study) -> dict[str, Any]:
    journal = read_journal(study)
    facts = study_status(study, journal) | keeping(study.folder.path)
    if journal:
        journal.close()
    return facts


def _watch(study: Study, is_over: Callable[[], bool]) -> None:
    """Show progress on standard error until ``is_over()``; without a terminal a line now and then."""
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} rounds")
    shown = Progress(*columns, TimeElapsedColumn(), console=errors, disable=not errors.is_terminal, transient=True)
    lines = NowAndThen()
    with shown as progress:
        bar = progress.add_task("starting", total=None)
        while not is_over():
            facts = _facts(study)
            words = _words(study.folder.path)
            progress.update(bar, completed=facts["rounds_applied"], total=facts["rounds_planned"], description=words)
            lines.tell(f"{facts['rounds_applied']} of {facts['rounds_planned']} rounds; {words}")
            time.sleep(LOOK_EVERY_S)


def _words(place: Path) -> str:
    live = read_live_status(place)
    if live is None:
        return "starting"
    missing = "; ".join(f"{each['site']}: {each['why']}" for each in live.missing)
    if live.doing == "waiting":
        return f"waiting: {live.online} of {live.needed} hospitals; {missing}"
    if live.doing == "pausing" and missing:
        return f"waiting: {missing}"
    return f"attempt {live.attempt}: {live.asked or live.doing}"

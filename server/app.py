"""The ServerApp: which study folder, which grid; the rest is ``server.rounds``.

The study folder comes from the run config key ``study-folder``, or from the environment variable FEDWARD_STUDY.
"""

import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when Flower is imported
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.attempts.channel import Channel
from server.attempts.run_options import RunOptions, options_for
from server.attempts.study_run import StudyRun
from server.errors import StudyFolderInvalidError, StudyStoppedError
from server.strategy import FedwardStrategy
from server.study.events import RunEnd, RunState
from server.study.folder import StudyLock, open_study, read_order_key
from server.study.live_status import LiveFile
from server.study.progress import open_journal

FOLDER_KEY = "study-folder"
FOLDER_VARIABLE = "FEDWARD_STUDY"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study, or what is left of it.

    Raises: StudyStoppedError if it ended before its last round for another reason than being asked to stop.
    """
    folder = str(context.run_config.get(FOLDER_KEY, "")) or os.environ.get(FOLDER_VARIABLE, "")
    if not folder:
        raise StudyFolderInvalidError(f"no study folder; set the run config key {FOLDER_KEY} or {FOLDER_VARIABLE}")
    options = options_for(Path(folder))
    watched = replace(options, events=LiveFile(Path(folder), options.events))
    ended = run_study(grid, Path(folder), watched)
    if ended.state not in {RunState.FINISHED, RunState.NOT_SCORED, RunState.STOPPED}:
        raise StudyStoppedError(ended.sentence)


def run_study(grid: Grid, folder: Path, options: RunOptions) -> RunEnd:
    """Run the study in ``folder`` over ``grid`` to its end, or until ``options.should_stop``; say how it ended.

    Raises: StudyFolderInvalidError (also while another process runs it), and what plan, roster and keys raise.
    """
    study = open_study(folder)
    lock = StudyLock(study.folder)
    try:
        journal = open_journal(study)
        key = read_order_key(study)

        def make_run(on: Grid) -> StudyRun:
            channel = Channel(
                on,
                frozenset(site.name for site in study.plan.sites),
                longest_poll_s=options.longest_poll_s,
                first_poll_s=options.first_poll_s,
                hello_timeout_s=options.hello_timeout_s,
            )
            signals = options.should_stop, options.asked_to_go_on
            return StudyRun(study, key, journal, channel, options.events, options.settings, *signals)

        ended = FedwardStrategy(make_run).run(grid)
        journal.close()
    finally:
        lock.release()
    return ended

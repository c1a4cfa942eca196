"""How long the rounds of a study took, from the coordinator's own journal."""

from itertools import pairwise
from pathlib import Path

from server.study.folder import open_study
from server.study.history import attempt_records
from server.study.status import read_journal, require_started


def seconds_per_round(study_folder: Path) -> list[float]:
    """Return the wall time of each applied round, from its order to the next order (the last one: to its sum).

    Everything is in it: six messages to every site and back, a little training, checks, journal and checkpoint. Where
    training is next to nothing this is the overhead of a round.
    Raises: StudyFolderInvalidError where nothing was run.
    """
    study = open_study(study_folder)
    journal = require_started(read_journal(study), study)
    try:
        records = attempt_records(study, journal)
    finally:
        journal.close()
    applied = [record.applied.unix_s for record in records if record.applied]
    starts = [*(record.ordered.unix_s for record in records), applied[-1] if applied else 0.0]
    periods = [end - start for start, end in pairwise(starts)]
    return [period for record, period in zip(records, periods, strict=True) if record.applied]

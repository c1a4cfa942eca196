"""From journal and files to the model's state: after a crash, in a live round, and for whoever replays a study.

Order of writes in a round, each durable before the next:

```
1  attempts row                 before anything leaves
2  sums/sum-….safetensors       the opened sum
3  opened row
4  checkpoints/after-….safetensors
5  applied row                  the round counts from here on
```

A crash before 3 loses the attempt (its number stays used), one after 3 loses nothing: the sum is applied on the next
start. ``applied.attempt`` is a primary key and each sum leads from one stored state to the next, so none counts twice.

Limit: without noise (public data only) sites never open two sums over one model. A crash in the moment between the
sites' last answer and 3 then leaves a study that cannot go on; with noise the round is done again, and charged.
"""

from common.errors import StudyFolderInvalidError, WeightsInvalidError
from common.plan.protocol import divisor
from common.secagg.refusals import TABLE, Check
from common.secagg.vector import SummedVector
from server.checkpoint import KEPT, prune_checkpoints, read_checkpoint, write_checkpoint
from server.journal import LOST, AbortRow, AppliedRow, AttemptRow, Journal, OpenedRow
from server.model_state import Applied, ModelState, apply_sum, start_state
from server.study_folder import Study
from server.sums import read_sum

LOST_SENTENCE = "the server stopped before the sum was opened"


def open_journal(study: Study) -> Journal:
    """Open the study's journal. Raises: StudyFolderInvalidError, sqlite3.Error."""
    return Journal(study.folder.journal, study.plan_digest)


def resume(study: Study, journal: Journal) -> ModelState:
    """Return the state from which to go on: close what a crash cut off, apply what was opened and not applied.

    Raises: StudyFolderInvalidError for missing or changed files.
    """
    for attempt in journal.undecided():
        journal.record_abort(AbortRow(attempt, LOST, LOST_SENTENCE, ()))
    state = current_state(study, journal)
    given_up = {abort.attempt for abort in journal.aborts()}
    for row in journal.opened():
        if row.attempt > state.attempt and row.attempt not in given_up:
            state = apply_opened(study, journal, state, row, _sum_of(study, journal, row)) or state
    return state


def current_state(study: Study, journal: Journal) -> ModelState:
    """Return the state after the last applied row, from its checkpoint; nothing is written.

    Raises: StudyFolderInvalidError, FileUnreadableError.
    """
    last = journal.last_applied()
    if last is None:
        return start_state(study.network)
    return read_checkpoint(
        study.folder.checkpoints,
        last.attempt,
        last.checkpoint_sha256,
        num_parameters=study.network.everything.num_parameters,
    )


def apply_opened(
    study: Study, journal: Journal, state: ModelState, row: OpenedRow, total: SummedVector
) -> ModelState | None:
    """Move the model by an opened sum, make checkpoint and row durable, and return the next state.

    None where the sum cannot be applied (nobody expected at its sites, weights not finite): the attempt is then noted
    as aborted, and the model stays.
    """
    facts = study.network.phases[state.phase]
    try:
        applied = _applied(study, state, row, total)
    except (ValueError, WeightsInvalidError) as error:
        journal.record_abort(AbortRow(row.attempt, TABLE[Check.ANY_INTERNAL].code, str(error), ()))
        return None
    sha256 = write_checkpoint(study.folder.checkpoints, applied.state)
    digest = facts.model_digest(facts.travelling(applied.state.parameters))
    journal.record_applied(AppliedRow(row.attempt, applied.divisor, sha256, digest, applied.state.finished))
    prune_checkpoints(study.folder.checkpoints, journal.recently_applied(KEPT + 1))
    return applied.state


def replay(study: Study, journal: Journal) -> ModelState:
    """Compute the model again from the public start and the stored sums alone; no checkpoint is read.

    Raises: StudyFolderInvalidError if a sum is not the one that was opened, or a divisor is not that of the plan.
    """
    state, opened = start_state(study.network), {row.attempt: row for row in journal.opened()}
    for step in journal.applied():
        row = opened[step.attempt]
        phase = study.network.phases[state.phase]
        if divisor(study.plan, phase.phase, row.participants) != step.divisor:
            raise StudyFolderInvalidError(f"attempt {step.attempt}: the journal's divisor is not that of the plan")
        state = _applied(study, state, row, _sum_of(study, journal, row)).state
    return state


def _applied(study: Study, state: ModelState, row: OpenedRow, total: SummedVector) -> Applied:
    return apply_sum(study.plan, study.network, state, attempt=row.attempt, participants=row.participants, total=total)


def _sum_of(study: Study, journal: Journal, row: OpenedRow) -> SummedVector:
    order = _attempt(journal, row.attempt)
    spec = study.network.phases[order.phase].vector
    return read_sum(
        study.folder.sums, row.attempt, spec=spec, participants=len(row.participants), digest=row.sum_digest
    )


def _attempt(journal: Journal, number: int) -> AttemptRow:
    return next(row for row in journal.attempts() if row.attempt == number)

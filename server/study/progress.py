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

from common.networks.errors import WeightsInvalidError
from common.plan.protocol import divisor
from common.secagg.accumulator import SummedVector
from common.secagg.messages import Result
from common.secagg.refusals import TABLE, Check
from common.secagg.statements import result_digest
from server.errors import StudyFolderInvalidError
from server.model.blocks import Weights
from server.model.checkpoint import KEPT, open_checkpoint, prune_checkpoints, write_checkpoint
from server.model.state import ModelState, StateOf, apply_sum, computed_sum, in_memory, start_state, state_from
from server.model.sums import read_sum
from server.model.tensor_file import remove_unfinished, set_aside
from server.study.folder import Study
from server.study.journal import Journal
from server.study.journal_rows import LOST, AbortRow, AppliedRow, AttemptRow, OpenedRow

LOST_SENTENCE = "the server stopped before the sum was opened"


def open_journal(study: Study) -> Journal:
    """Open the study's journal. Raises: StudyFolderInvalidError, sqlite3.Error."""
    return Journal(study.folder.journal, study.plan_digest)


def resume(study: Study, journal: Journal) -> StateOf[Weights]:
    """Return the state from which to go on: close what a crash cut off, apply what was opened and not applied.

    Files that a crash left behind are deleted, so whoever calls this holds the study's lock. The state's vectors
    lie on disk, see ``stored_state``. Raises: StudyFolderInvalidError for missing or changed files.
    """
    for folder in (study.folder.checkpoints, study.folder.sums):
        remove_unfinished(folder)
    prune_checkpoints(study.folder.checkpoints, [row.attempt for row in journal.applied()])
    for attempt in journal.undecided():
        journal.record_abort(AbortRow(attempt, LOST, LOST_SENTENCE, ()))
    state = stored_state(study, journal)
    given_up = {abort.attempt for abort in journal.aborts()}
    for row in journal.opened():
        if row.attempt > state.attempt and row.attempt not in given_up:
            state = apply_opened(study, journal, state, row, _sum_of(study, journal, row)) or state
    return state


def current_state(study: Study, journal: Journal) -> ModelState:
    """Return the state after the last applied row in memory; nothing is written.

    Raises: StudyFolderInvalidError, FileUnreadableError.
    """
    return in_memory(stored_state(study, journal)) if journal.last_applied() else start_state(study.network)


def stored_state(study: Study, journal: Journal) -> StateOf[Weights]:
    """Return the state after the last applied row: its vectors stay in its checkpoint, and are read as they are used.

    Before the first row it is the public start, drawn anew into a file without a name.
    Raises: StudyFolderInvalidError, FileUnreadableError.
    """
    last = journal.last_applied()
    if last is not None:
        return _opened_checkpoint(study, last.attempt, last.checkpoint_sha256)
    return state_from(set_aside(study.network.start, study.folder.checkpoints))


def apply_opened(
    study: Study, journal: Journal, state: StateOf[Weights], row: OpenedRow, total: SummedVector
) -> StateOf[Weights] | None:
    """Move the model by an opened sum, make checkpoint and row durable, and return the next state.

    In memory are the sum and the next parameters; all else goes from the old file to the new one block by block. The
    new file is read back before the row is written, and holds the vectors of the state that is returned. None where
    the sum cannot be applied (nobody expected at its sites, weights not finite): the attempt is then noted as
    aborted, and the model stays.
    """
    facts = study.network.phases[state.phase]
    try:
        applied = computed_sum(
            study.plan, study.network, state, attempt=row.attempt, participants=row.participants, total=total
        )
    except (ValueError, WeightsInvalidError) as error:
        journal.record_abort(AbortRow(row.attempt, TABLE[Check.ANY_INTERNAL].code, str(error), ()))
        return None
    sha256, share = write_checkpoint(study.folder.checkpoints, applied.state), applied.divisor
    del applied  # so that the model read back is the only one in memory
    after = _opened_checkpoint(study, row.attempt, sha256)
    digest = facts.digest_of(after.parameters)
    journal.record_applied(AppliedRow(row.attempt, share, sha256, digest, after.finished))
    prune_checkpoints(study.folder.checkpoints, journal.recently_applied(KEPT + 1))
    return after


def _opened_checkpoint(study: Study, attempt: int, digest: str) -> StateOf[Weights]:
    size = study.network.everything.num_parameters
    return open_checkpoint(study.folder.checkpoints, attempt, digest, num_parameters=size)


def announced_results(journal: Journal) -> dict[int, bytes]:
    """Return the digest of the RESULT of each attempt that moved the model: what its sites were, or would be, told."""
    opened = {row.attempt: row for row in journal.opened()}
    return {
        step.attempt: result_digest(
            Result(
                session_id=row.session_id,
                survivors_digest=row.survivors_digest,
                sum_digest=row.sum_digest,
                divisor=float(step.divisor),
                model_digest=step.model_digest,
                signature=bytes(64),
            )
        )
        for step, row in ((step, opened[step.attempt]) for step in journal.applied())
    }


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
        total = _sum_of(study, journal, row)
        state = apply_sum(
            study.plan, study.network, state, attempt=row.attempt, participants=row.participants, total=total
        ).state
    return state


def _sum_of(study: Study, journal: Journal, row: OpenedRow) -> SummedVector:
    order = _attempt(journal, row.attempt)
    spec = study.network.phases[order.phase].vector
    return read_sum(
        study.folder.sums, row.attempt, spec=spec, participants=len(row.participants), digest=row.sum_digest
    )


def _attempt(journal: Journal, number: int) -> AttemptRow:
    return next(row for row in journal.attempts() if row.attempt == number)

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
Where the plan draws groups, 1 to 3 happen for each of them, 4 and 5 once for the round: after a crash the groups that
were opened are the round if they are three, else it is done again.

Limit: without noise (public data only) sites never open two sums over one model. A crash in the moment between the
sites' last answer and 3 then leaves a study that cannot go on; with noise the round is done again, and charged.
"""

from collections.abc import Sequence
from dataclasses import replace

from common.networks.errors import WeightsInvalidError
from common.plan.aggregation import LEAST_GROUPS
from common.plan.protocol import divisor
from common.secagg.accumulator import SummedVector
from common.secagg.messages import Result
from common.secagg.refusals import TABLE, Check
from common.secagg.statements import result_digest
from server.errors import StudyFolderInvalidError
from server.model.blocks import Weights
from server.model.checkpoint import KEPT, open_checkpoint, prune_checkpoints, write_checkpoint
from server.model.group_median import GroupSum
from server.model.state import (
    ModelState,
    StateOf,
    apply_sum,
    computed_median,
    computed_sum,
    in_memory,
    start_state,
    state_from,
)
from server.model.sums import read_sum
from server.model.tensor_file import remove_unfinished, set_aside
from server.study.folder import Study
from server.study.journal import Journal
from server.study.journal_rows import LOST, AbortRow, AppliedRow, AttemptRow, MedianRow, OpenedRow
from server.study.score_limit import asked_attempts, scored_attempts

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
    waiting = [row for row in journal.opened() if row.attempt > state.attempt and row.attempt not in given_up]
    if study.plan.aggregation.takes_median:
        return (apply_groups(study, journal, state, waiting) or state) if waiting else state
    for row in waiting:
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
    is_scored = row.attempt in scored_attempts(study.plan, asked_attempts(journal))
    try:
        applied = computed_sum(
            study.plan,
            study.network,
            state,
            attempt=row.attempt,
            participants=row.participants,
            total=total,
            is_scored=is_scored,
        )
    except (ValueError, WeightsInvalidError) as error:
        journal.record_abort(AbortRow(row.attempt, TABLE[Check.ANY_INTERNAL].code, str(error), ()))
        return None
    sha256, share = write_checkpoint(study.folder.checkpoints, applied.state), applied.divisor
    del applied  # so that the model read back is the only one in memory
    return _noted(study, journal, state, AppliedRow(row.attempt, share, sha256, b"", finished=False))


def apply_groups(
    study: Study, journal: Journal, state: StateOf[Weights], rows: Sequence[OpenedRow]
) -> StateOf[Weights] | None:
    """Move the model by the median of a round's opened groups, as ``apply_opened`` does by one sum.

    In memory are the sums of all groups. None, with every group noted as aborted, where fewer than three were opened
    or the median cannot be applied: the sums were released and are charged, and the round is done again.
    """
    phase = study.network.phases[state.phase].phase
    if len(rows) < LEAST_GROUPS:
        why = f"{len(rows)} groups of this round were opened, a median needs {LEAST_GROUPS}"
        _note_given_up(journal, rows, Check.C_TOO_FEW, why)
        return None
    is_scored = {row.attempt for row in rows} <= scored_attempts(study.plan, asked_attempts(journal))
    try:
        sums = _group_sums(study, journal, rows)
        applied = computed_median(study.plan, study.network, state, sums, is_scored=is_scored)
        del sums
    except (ValueError, WeightsInvalidError) as error:
        _note_given_up(journal, rows, Check.ANY_INTERNAL, str(error))
        return None
    sha256, share = write_checkpoint(study.folder.checkpoints, applied.state), applied.divisor
    del applied
    last = rows[-1].attempt
    medians = [MedianRow(row.attempt, divisor(study.plan, phase, row.participants), last) for row in rows]
    return _noted(study, journal, state, AppliedRow(last, share, sha256, b"", finished=False), medians)


def _note_given_up(journal: Journal, rows: Sequence[OpenedRow], check: Check, why: str) -> None:
    for row in rows:
        journal.record_abort(AbortRow(row.attempt, TABLE[check].code, why, ()))


def _noted(
    study: Study, journal: Journal, state: StateOf[Weights], row: AppliedRow, medians: Sequence[MedianRow] = ()
) -> StateOf[Weights]:
    """Read the new checkpoint back, make the row of the round that ``state`` was at durable, return the next state."""
    after = _opened_checkpoint(study, row.attempt, row.checkpoint_sha256)
    digest = study.network.phases[state.phase].digest_of(after.parameters)
    journal.record_applied(replace(row, model_digest=digest, finished=after.finished), medians)
    prune_checkpoints(study.folder.checkpoints, journal.recently_applied(KEPT + 1))
    return after


def _group_sums(study: Study, journal: Journal, rows: Sequence[OpenedRow]) -> list[GroupSum]:
    return [GroupSum(row.attempt, row.participants, _sum_of(study, journal, row)) for row in rows]


def _opened_checkpoint(study: Study, attempt: int, digest: str) -> StateOf[Weights]:
    size = study.network.everything.num_parameters
    return open_checkpoint(study.folder.checkpoints, attempt, digest, num_parameters=size)


def announced_results(journal: Journal) -> dict[int, bytes]:
    """Return the digest of the RESULT of each attempt that moved the model: what its sites were, or would be, told."""
    opened = {row.attempt: row for row in journal.opened()}
    applied = {row.attempt: row for row in journal.applied()}
    groups = [replace(applied[each.applied], attempt=each.attempt, divisor=each.divisor) for each in journal.medians()]
    steps = applied | {each.attempt: each for each in groups}
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
        for step, row in ((step, opened[step.attempt]) for step in steps.values())
    }


def replay(study: Study, journal: Journal) -> ModelState:
    """Compute the model again from the public start and the stored sums alone; no checkpoint is read.

    Raises: StudyFolderInvalidError if a sum is not the one that was opened, or a divisor is not that of the plan.
    """
    state, opened = start_state(study.network), {row.attempt: row for row in journal.opened()}
    medians, scored = journal.medians(), scored_attempts(study.plan, asked_attempts(journal))
    for step in journal.applied():
        groups = [each for each in medians if each.applied == step.attempt]
        phase = study.network.phases[state.phase].phase
        for attempt, noted in [(each.attempt, each.divisor) for each in groups] or [(step.attempt, step.divisor)]:
            if divisor(study.plan, phase, opened[attempt].participants) != noted:
                raise StudyFolderInvalidError(f"attempt {attempt}: the journal's divisor is not that of the plan")
        if study.plan.aggregation.takes_median:
            sums = _group_sums(study, journal, [opened[each.attempt] for each in groups])
            are_scored = {each.attempt for each in groups} <= scored
            state = in_memory(computed_median(study.plan, study.network, state, sums, is_scored=are_scored).state)
            continue
        row = opened[step.attempt]
        total = _sum_of(study, journal, row)
        state = apply_sum(
            study.plan,
            study.network,
            state,
            attempt=row.attempt,
            participants=row.participants,
            total=total,
            is_scored=row.attempt in scored,
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

"""What a journal tells about a study so far: scores, rounds and dropouts, from the rows alone."""

from dataclasses import dataclass

from common.plan.schedule import version_before
from server.model.evaluation import Evaluation
from server.model.group_median import summed_counts
from server.model.state import evaluation_of
from server.study.folder import Study
from server.study.journal import Journal
from server.study.journal_rows import AbortRow, AppliedRow, AttemptRow, MedianRow, OpenedRow
from server.study.score_limit import asked_attempts, scored_attempts


@dataclass(frozen=True, eq=False)
class AttemptRecord:
    """Everything the journal says about one attempt; ``version``: rounds applied to the model it was ordered with.

    ``median``: where the sum was one of several whose median moved the model; the last of them has ``applied`` too.
    """

    ordered: AttemptRow
    version: int
    opened: OpenedRow | None
    applied: AppliedRow | None
    abort: AbortRow | None
    median: MedianRow | None = None

    @property
    def outcome(self) -> str:
        """``applied``, ``aborted``, ``opened`` (not applied yet) or ``running`` (or cut off by a crash)."""
        if self.applied or self.median:
            return "applied"
        if self.abort:
            return "aborted"
        return "opened" if self.opened else "running"


def attempt_records(study: Study, journal: Journal) -> list[AttemptRecord]:
    """Return the attempts of a study in order, each with what became of it."""
    opened = {row.attempt: row for row in journal.opened()}
    applied = {row.attempt: row for row in journal.applied()}
    aborts = {row.attempt: row for row in journal.aborts()}
    medians = {row.attempt: row for row in journal.medians()}
    return [
        AttemptRecord(
            row,
            version_before(study.plan, row.phase, row.round_number),
            opened.get(row.attempt),
            applied.get(row.attempt),
            aborts.get(row.attempt),
            medians.get(row.attempt),
        )
        for row in journal.attempts()
    ]


def scores_by_version(study: Study, journal: Journal) -> dict[int, Evaluation]:
    """Return the noised scores by version of the model (rounds applied to it), in order.

    A sum in which sites may have sent noise instead of scores has none (``server.study.score_limit``).
    """
    scores, records = {}, attempt_records(study, journal)
    scored = scored_attempts(study.plan, asked_attempts(journal))
    for record in records:
        if record.opened and record.applied:
            ordered, last = record.ordered, record.ordered.attempt
            sums = [each.opened for each in records if each.opened and each.median and each.median.applied == last]
            rows = sums or [record.opened]
            score = evaluation_of(
                study.plan,
                ordered.phase,
                ordered.round_number,
                meta=summed_counts([row.meta for row in rows]),
                participants=sum(len(row.participants) for row in rows),
                is_scored={row.attempt for row in rows} <= scored,
            )
            if score:
                scores[record.version] = score
    return scores

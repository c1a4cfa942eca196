"""The coordinator's journal: what is written stays written, and no attempt comes twice."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from server.errors import StudyFolderInvalidError
from server.study.journal import Journal
from server.study.journal_rows import AbortRow, AnswerRow, AppliedRow, Details, HeadRow, OpenedRow, RefusalRow

PLAN, MODEL = bytes(32), bytes([1]) * 32
COHORT = ("east", "north", "west")


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.sqlite", PLAN, clock=lambda: 1000.0)


def begin(journal, *, phase=0, round_number=1):
    return journal.record_attempt(phase=phase, round_number=round_number, cohort=COHORT, model_digest=MODEL)


def opened(attempt):
    meta = np.array([1, 2**63, 2**64 - 1], np.uint64)
    return OpenedRow(attempt, COHORT, (), *(bytes([n]) * 32 for n in range(4)), meta)


def test_attempts_count_up_over_phases_rounds_and_restarts(journal, tmp_path):
    assert [begin(journal), begin(journal, round_number=2), begin(journal, phase=1)] == [1, 2, 3]
    journal.close()
    again = Journal(tmp_path / "journal.sqlite", PLAN)
    assert begin(again, phase=1) == 4
    assert ([row.phase for row in again.attempts()], again.last_attempt()) == ([0, 0, 1, 1], 4)


def test_everything_comes_back_as_it_was_written(journal):
    attempt = begin(journal)
    answers = [AnswerRow(attempt, "order", "east", "taken", 10, 20, 0.5)]
    refusals = [RefusalRow(attempt, "west", "waiting_for_keys", 128, "")]
    heads = [HeadRow(attempt, "east", bytes(32)), HeadRow(attempt, "west", bytes([1]) * 32)]
    journal.record_opened(opened(attempt), Details(answers, refusals, heads))
    journal.record_applied(AppliedRow(attempt, 12.5, "ab", MODEL, finished=False))
    journal.record_answers([AnswerRow(attempt, "result", "east", "timeout", 5, 0, 9.0)])
    aborted = begin(journal)
    journal.record_abort(AbortRow(aborted, 710, "too few", ("west",)), Details(heads=[HeadRow(aborted, "west", MODEL)]))
    row = journal.opened()[0]
    assert (row.participants, row.dropped, row.sum_digest) == (COHORT, (), bytes(32))
    assert row.meta.tolist() == [1, 2**63, 2**64 - 1]
    assert journal.applied() == [AppliedRow(attempt, 12.5, "ab", MODEL, finished=False, unix_s=1000.0)]
    assert journal.aborts() == [AbortRow(aborted, 710, "too few", ("west",), 1000.0)]
    assert [row.asked for row in journal.answers()] == ["order", "result"]
    assert journal.refusals() == refusals
    assert journal.attempts()[0].cohort == COHORT
    assert journal.last_heads() == {"east": heads[0], "west": HeadRow(aborted, "west", MODEL)}


def test_a_journal_of_before_heads_were_kept_is_read_and_goes_on(journal, tmp_path):
    begin(journal)
    journal.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute("DROP TABLE heads")
    database.close()
    old = Journal(tmp_path / "journal.sqlite", PLAN, only_reads=True)
    assert (old.last_heads(), old.last_attempt()) == ({}, 1)
    old.close()
    journal = Journal(tmp_path / "journal.sqlite", PLAN)
    journal.record_abort(AbortRow(1, 710, "", ()), Details(heads=[HeadRow(1, "west", MODEL)]))
    assert journal.last_heads() == {"west": HeadRow(1, "west", MODEL)}


def test_an_attempt_without_an_end_is_found(journal):
    ended, open_sum, cut_off = begin(journal), begin(journal), begin(journal)
    journal.record_abort(AbortRow(ended, 710, "", ()))
    journal.record_opened(opened(open_sum))
    assert journal.undecided() == [cut_off]


TABLES = ["study", "attempts", "aborts", "opened", "applied", "answers", "refusals", "heads"]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET rowid = rowid + 1"])
def test_no_row_is_ever_changed_or_deleted(journal, tmp_path, table, statement):
    attempt = begin(journal)
    journal.record_abort(
        AbortRow(attempt, 1, "", ()),
        Details(
            [AnswerRow(attempt, "order", "east", "taken", 1, 1, 0.1)],
            [RefusalRow(attempt, "west", "waiting_for_keys", 1, "")],
            [HeadRow(attempt, "west", MODEL)],
        ),
    )
    second = begin(journal)
    journal.record_opened(opened(second))
    journal.record_applied(AppliedRow(second, 1.0, "", MODEL, finished=False))
    with sqlite3.connect(tmp_path / "journal.sqlite") as other, pytest.raises(sqlite3.IntegrityError, match="append"):
        other.execute(statement.format(table))


REPEATED = {
    "applied twice": lambda journal: journal.record_applied(AppliedRow(1, 1.0, "", MODEL, finished=False)),
    "opened twice": lambda journal: journal.record_opened(opened(1)),
    "applied without a sum": lambda journal: journal.record_applied(AppliedRow(7, 1.0, "", MODEL, finished=False)),
    "aborted without an attempt": lambda journal: journal.record_abort(AbortRow(7, 1, "", ())),
}


@pytest.mark.parametrize("repeat", REPEATED.values(), ids=REPEATED)
def test_nothing_is_noted_twice_or_out_of_order(journal, repeat):
    attempt = begin(journal)
    journal.record_opened(opened(attempt))
    journal.record_applied(AppliedRow(attempt, 1.0, "", MODEL, finished=False))
    with pytest.raises(sqlite3.IntegrityError):
        repeat(journal)
    assert (len(journal.opened()), len(journal.applied()), len(journal.aborts())) == (1, 1, 0)


def test_a_transaction_that_fails_half_way_leaves_nothing(journal):
    attempt = begin(journal)
    twice = [AnswerRow(attempt, "order", "east", "taken", 1, 1, 0.1)] * 2
    with pytest.raises(sqlite3.IntegrityError):
        journal.record_opened(opened(attempt), Details(twice))
    assert (journal.opened(), journal.answers(), journal.undecided()) == ([], [], [attempt])


def test_the_journal_of_another_plan_is_refused(journal, tmp_path):
    begin(journal)
    journal.close()
    with pytest.raises(StudyFolderInvalidError, match="another plan"):
        Journal(tmp_path / "journal.sqlite", bytes([9]) * 32)


def test_commits_are_synchronous(journal):
    assert journal._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert journal._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_may_wait_for_the_disk_leaves_the_rest_synchronous(journal):
    late = AnswerRow(7, "result", "north", "taken", 10, 0, 0.1)
    with pytest.raises(sqlite3.IntegrityError):
        journal.record_answers([late])  # of an attempt that there never was
    assert journal._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    attempt = journal.record_attempt(phase=0, round_number=1, cohort=["north"], model_digest=bytes(32))
    journal.record_answers([replace(late, attempt=attempt)])
    assert [row.asked for row in journal.answers()] == ["result"]
    assert journal._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL

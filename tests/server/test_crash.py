"""kill -9 of the server between any two writes: the study goes on and ends with the very same model.

The process that is killed is a fork of this one; the sites are started in it (a journal is used by the process that
opened it), so they lose their sessions too and start again with what is in their journals. With local noise a site's
vector depends on the round only, so whatever was lost and done again must lead to the same bits.
"""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.secagg.refusals import TABLE
from server.model.checkpoint import KEPT, checkpoint_name, same_state
from server.model.sums import sum_name
from server.study.events import RunState
from server.study.folder import open_study
from server.study.journal import Journal
from server.study.journal_rows import LOST
from server.study.progress import current_state, open_journal, replay, resume

KILLED = -signal.SIGKILL


class WritePoints:
    """Counts the moments before each durable step of the server (after one is before the next), and kills at one."""

    def __init__(self, kill_at):
        self.kill_at, self.count = kill_at, 0

    def reached(self):
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function):
        def wrapped(*arguments, **settings):
            self.reached()
            return function(*arguments, **settings)

        return wrapped

    def install(self, patch):
        """Watch commits of the journal, and each fsync and rename of files (sums and checkpoints)."""
        patch.setattr(Journal, "_write", self.around(Journal._write))
        patch.setattr(os, "fsync", self.around(os.fsync))
        patch.setattr(Path, "replace", self.around(Path.replace))


STUCK_S = 90  # far above what such a study takes


def run_and_die(federation, kill_at):
    """Run the study in a fork that dies at a write point; return its exit status, negative for a signal.

    A fork while a thread of an earlier test holds SQLite's lock waits for it for ever (seen in ``start_sites`` and
    behind it): it is ended by the alarm, and another takes its place.
    """
    status = _forked(federation, kill_at)
    return _forked(federation, kill_at) if status == -signal.SIGALRM else status


def _forked(federation, kill_at):
    child = os.fork()
    if child == 0:
        signal.alarm(STUCK_S)
        federation.start_sites()
        with pytest.MonkeyPatch.context() as patch:
            WritePoints(kill_at).install(patch)
            federation.run()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def copies(make_federation, quick_folder):
    """Return a function that gives fresh copies of one federation, and what it comes to undisturbed."""

    def make(noise="local", **sections):
        original = make_federation(noise=noise, **sections)
        for name in original.names:
            shutil.rmtree(original.path / name)

        def copy(label):
            target = quick_folder / label
            shutil.copytree(original.path, target)
            return replace(original, path=target, work={}, sessions={})

        return copy

    return make


def final_state(federation):
    study = open_study(federation.study)
    return current_state(study, open_journal(study))


def survives_all_points(copy, step):
    undisturbed = copy("undisturbed")
    undisturbed.start_sites()
    assert undisturbed.run().state is RunState.FINISHED
    expected, kill_at, reached = final_state(undisturbed), 1, []
    while (status := run_and_die(crashed := copy(f"killed-{kill_at}"), kill_at)) == KILLED:
        reached.append(kill_at)
        crashed.start_sites()
        assert crashed.run().state is RunState.FINISHED, kill_at
        study = open_study(crashed.study)
        journal = open_journal(study)
        files = [*study.folder.checkpoints.iterdir(), *study.folder.sums.iterdir()]
        assert not [file.name for file in files if file.name.startswith(".")], "a killed writer's file may be 500 MB"
        state = current_state(study, journal)
        assert np.array_equal(state.parameters, expected.parameters), kill_at
        assert same_state(replay(study, journal), state), kill_at
        assert len(journal.applied()) == len(open_journal(open_study(undisturbed.study)).applied()), kill_at
        assert [abort.code for abort in journal.aborts()] in ([], [LOST]), kill_at
        assert {row.outcome for row in journal.answers()} == {"taken"}, kill_at  # no site saw a number twice
        shutil.rmtree(crashed.path)
        kill_at += step
    assert status == 0
    return reached


ONE_PHASE = {"rounds": 1, "maximum_attempts": 12}


def test_a_server_killed_at_any_write_of_a_short_study_ends_with_the_same_model(copies):
    copy = copies(evaluation={"every_rounds": 1}, short=ONE_PHASE)
    assert len(survives_all_points(copy, step=1)) > 20


def test_with_fresh_noise_in_each_attempt_every_state_is_that_of_its_own_sums(copies):
    copy = copies("distributed", short=ONE_PHASE)
    kill_at = 1
    while run_and_die(crashed := copy(f"killed-{kill_at}"), kill_at) == KILLED:
        crashed.start_sites()
        assert crashed.run().state is RunState.FINISHED, kill_at
        study = open_study(crashed.study)
        journal = open_journal(study)
        assert same_state(replay(study, journal), current_state(study, journal)), kill_at
        assert [(row.phase, row.round_number) for row in journal.attempts()][-1] == (0, 2), kill_at
        assert len(journal.applied()) == 2, kill_at
        assert len(journal.attempts()) <= 3, kill_at
        kill_at += 3
    assert kill_at > 15


@pytest.mark.slow
def test_a_server_killed_at_any_write_of_two_phases_ends_with_the_same_model(copies):
    assert len(survives_all_points(copies(), step=1)) > 50


def test_a_state_that_a_crash_saved_from_deletion_is_deleted_at_the_next_start(copies):
    federation = copies(short={"rounds": 4, "maximum_attempts": 12})("stale")
    federation.start_sites()
    assert federation.run().state is RunState.FINISHED
    study = open_study(federation.study)
    journal = open_journal(study)
    applied = [row.attempt for row in journal.applied()]
    stale = study.folder.checkpoints / checkpoint_name(applied[0])
    assert not stale.exists()
    stale.write_bytes(b"up to five models")
    resume(study, journal)
    names = sorted(file.name for file in study.folder.checkpoints.iterdir())
    assert names == [checkpoint_name(attempt) for attempt in applied[-KEPT:]]


def test_a_sum_that_was_opened_is_applied_after_the_crash_and_not_ordered_again(copies):
    federation = copies()("opened")
    assert run_and_die_after_opened(federation) == KILLED
    study = open_study(federation.study)
    journal = open_journal(study)
    assert (len(journal.opened()), journal.applied(), journal.undecided()) == (1, [], [])
    state = resume(study, journal)
    assert (state.round_number, len(journal.applied())) == (2, 1)
    federation.start_sites()
    assert federation.run().state is RunState.FINISHED
    assert [(row.phase, row.round_number) for row in journal.attempts()][:2] == [(0, 1), (0, 2)]


def run_and_die_after_opened(federation):
    child = os.fork()
    if child == 0:
        federation.start_sites()
        opened = Journal.record_opened

        def die(journal, *arguments):
            opened(journal, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        Journal.record_opened = die
        federation.run()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_files_that_no_row_names_are_not_taken_for_anything(copies):
    federation = copies()("orphans")
    federation.start_sites()
    federation.run()
    study = open_study(federation.study)
    (study.folder.checkpoints / checkpoint_name(99)).write_bytes(b"half a checkpoint")
    (study.folder.sums / sum_name(99)).write_bytes(b"")
    journal = open_journal(study)
    assert same_state(resume(study, journal), replay(study, journal))


def test_the_code_of_a_lost_attempt_is_no_code_of_the_protocol():
    assert LOST not in {row.code for row in TABLE.values()}

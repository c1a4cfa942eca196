import logging
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

import server.model.checkpoint
import server.model.sums
from client.installation.folder import SiteFolder
from client.ledger.budget import EntryKind
from common.files import replace_atomically
from server.study.events import RunState
from server.study.journal import Journal
from simulation.runtime.faults import Fault, Trouble
from simulation.study.running import log_to, stop_on_interrupt

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")


def test_a_stopped_run_goes_on_where_it_was_and_ends_with_the_same_model(bare_run, bare_template, tmp_path):
    stops = iter([False, False, True])
    assert bare_run.run(should_stop=lambda: next(stops, True)).state is RunState.STOPPED
    assert 0 < len(bare_run.journal().applied()) < 6
    assert bare_run.run().state is RunState.FINISHED
    resumed = bare_run.parameters()
    attempts = [row.attempt for row in bare_run.journal().attempts()]
    assert attempts == sorted(set(attempts))
    again = bare_run.twin(bare_template, tmp_path / "again")
    again.run()
    assert np.array_equal(resumed, again.parameters())


def killed_at_write(run, number):
    """Run in a child process that is killed by SIGKILL just before its write ``number``; tells whether it was."""
    child = os.fork()
    if child == 0:
        count = [0]

        def counting(write):
            def counted(*arguments, **named):
                count[0] += 1
                if count[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(*arguments, **named)

            return counted

        Journal._write = counting(Journal._write)
        server.model.checkpoint.replace_atomically = counting(replace_atomically)
        server.model.sums.replace_atomically = counting(replace_atomically)
        try:
            run.run()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


WRITES_OF_A_ROUND = 6  # attempt, sum, opened, checkpoint, applied, answers
OPENING = 2  # schema and study row, at each opening of the journal
QUICK = (OPENING + 2, OPENING + 3, OPENING + 5)


def check_killed(bare_run, number, bare_template, tmp_path):
    assert killed_at_write(bare_run, number)
    before = {site: spent_attempts(bare_run, site) for site in SITES}
    assert bare_run.run().state is RunState.FINISHED
    journal = bare_run.journal()
    assert len(journal.applied()) == 6
    for row in journal.opened():
        for site in row.participants:
            assert row.attempt in spent_attempts(bare_run, site)
    for site in SITES:
        assert before[site] <= spent_attempts(bare_run, site)
    # Nobody was missing, so the made-up sums, and with them the model, are those of a run that nobody killed.
    undisturbed = bare_run.twin(bare_template, tmp_path / "undisturbed")
    undisturbed.run()
    assert np.array_equal(bare_run.parameters(), undisturbed.parameters())


def spent_attempts(run, site):
    return {
        number for study in run.spending(site) for number, kind in study.attempts.items() if kind is not EntryKind.VOID
    }


@pytest.mark.parametrize("number", QUICK)
def test_a_server_killed_between_two_writes_goes_on_and_no_ledger_forgets(bare_run, number, bare_template, tmp_path):
    check_killed(bare_run, number, bare_template, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, OPENING + 2 * WRITES_OF_A_ROUND + 1))
def test_a_server_killed_before_any_write_of_two_rounds_goes_on(bare_run, number, bare_template, tmp_path):
    check_killed(bare_run, number, bare_template, tmp_path)


def test_a_site_whose_budget_is_used_up_refuses_and_the_others_go_on(bare_run):
    policy = SiteFolder(bare_run.folder.site("hospital-4")).policy
    text = policy.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("epsilon_ceiling")]
    ceiling = 3.0
    policy.write_text(text.replace(line, f"epsilon_ceiling = {ceiling}"))
    assert bare_run.run().state is RunState.FINISHED
    present = [row.attempt for row in bare_run.journal().opened() if "hospital-4" in row.participants]
    absent = [row.attempt for row in bare_run.journal().opened() if "hospital-4" not in row.participants]
    assert present
    assert max(present) < min(absent)
    (study,) = bare_run.spending("hospital-4")
    assert max(study.epsilon(stratum) for stratum in study.events) <= ceiling


def test_too_many_sites_lost_skips_the_round_cleanly_and_the_next_attempt_works(bare_run):
    faults = [Fault(Trouble.DROP, sites=("hospital-1", "hospital-2"), actions=("forward",), attempts=(2,))]
    assert bare_run.run(faults).state is RunState.FINISHED
    journal = bare_run.journal()
    assert [row.attempt for row in journal.aborts()] == [2]
    assert [row.round_number for row in journal.attempts()][:3] == [1, 2, 2]
    # Those that had sent their vectors have paid for the attempt; nobody could open anything.
    assert 2 in spent_attempts(bare_run, "hospital-3")
    assert 2 not in [row.attempt for row in journal.opened()]


@pytest.fixture
def keyboard() -> Iterator[None]:
    """The interrupt as a terminal's process has it; a shell's background job ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("keyboard")
def test_a_first_ctrl_c_asks_to_stop_and_a_second_interrupts():
    with stop_on_interrupt() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_our_parts_log_goes_to_the_runs_file_and_nowhere_else(tmp_path, capsys):
    with log_to(tmp_path / "run.log"):
        logging.getLogger("fedward.rounds").warning("attempt 7 aborted")
    assert "attempt 7 aborted" in (tmp_path / "run.log").read_text()
    assert "attempt 7" not in capsys.readouterr().err

"""What a site remembers on disk, and the policies that could not protect anybody."""

import os
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from client.secagg.journal import SiteJournal
from client.secagg.rules import SitePolicy
from common.plan.errors import PlanWeakThresholdError
from simulation.runtime.secagg_federation import new_federation

PLAN, OTHER_PLAN, MODEL = bytes(32), bytes([1]) * 32, bytes([2]) * 32


@pytest.fixture
def journal(tmp_path: Path) -> SiteJournal:
    return SiteJournal(tmp_path / "journal.sqlite")


def test_attempts_strictly_increase_within_a_plan(journal: SiteJournal) -> None:
    assert journal.last_attempt(PLAN) == 0
    assert [journal.record_attempt(PLAN, 0, attempt) for attempt in (3, 3, 2, 4)] == [True, False, False, True]
    assert journal.last_attempt(PLAN) == 4
    assert journal.record_attempt(OTHER_PLAN, 0, 1)


def test_attempts_are_counted_by_phase(journal: SiteJournal) -> None:
    for attempt, phase in ((1, 0), (2, 0), (7, 1)):
        journal.record_attempt(PLAN, phase, attempt)
    assert [journal.attempts_in(PLAN, phase) for phase in (0, 1, 2)] == [2, 1, 0]


def test_staff_can_skip_attempts_after_restoring_a_backup(journal: SiteJournal) -> None:
    journal.skip_to(PLAN, 40)
    assert not journal.record_attempt(PLAN, 0, 40)
    assert journal.record_attempt(PLAN, 0, 41)
    assert journal.attempts_in(PLAN, 0) == 1


def test_releases_results_and_contributions_are_kept_apart_by_plan(journal: SiteJournal) -> None:
    journal.record_release(PLAN, MODEL, 2)
    journal.record_release(PLAN, MODEL, 5)
    assert journal.released_in(PLAN, MODEL) == 5
    assert journal.released_in(OTHER_PLAN, MODEL) == 0
    assert [journal.record_contribution(plan, MODEL) for plan in (PLAN, PLAN, OTHER_PLAN)] == [True, False, True]
    journal.record_result(PLAN, phase=0, round_number=1, model_digest=MODEL)
    journal.record_result(PLAN, phase=0, round_number=1, model_digest=PLAN)
    assert journal.result_of(PLAN, phase=0, round_number=1) == PLAN
    assert journal.result_of(PLAN, phase=1, round_number=1) is None
    assert journal.result_of(OTHER_PLAN, phase=0, round_number=1) is None


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    SiteJournal(path).record_attempt(PLAN, 0, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_recorded_survives_the_kill_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    program = (
        "import os, signal, sys; from pathlib import Path; from client.secagg.journal import SiteJournal;"
        "journal = SiteJournal(Path(sys.argv[1])); journal.record_attempt(bytes(32), 0, 9);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[3]
    killed = subprocess.run([sys.executable, "-c", program, str(path)], cwd=root, check=False, timeout=60)
    assert killed.returncode == -9
    assert SiteJournal(path).last_attempt(PLAN) == 9


def test_every_commit_waits_for_the_disk(journal: SiteJournal) -> None:
    with journal._open() as database:
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert not database.in_transaction, "each statement is a transaction of its own"


def test_two_agents_on_one_journal_never_both_take_an_attempt(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    agents = [SiteJournal(path), SiteJournal(path)]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(agents[turn % 2].record_attempt, PLAN, 0, 1 + turn // 4) for turn in range(80)]
    taken = sum(future.result() for future in futures)
    assert taken == agents[0].attempts_in(PLAN, 0) == agents[1].attempts_in(PLAN, 0)
    assert agents[0].last_attempt(PLAN) == agents[1].last_attempt(PLAN) == 20
    for agent in agents:
        agent.close()
    assert SiteJournal(path).last_attempt(PLAN) == 20


LOOK = (
    "import contextlib, pathlib, sys; from client.secagg.journal import SiteJournal\n"
    "with contextlib.closing(SiteJournal(pathlib.Path(sys.argv[1]))) as journal: print(journal.last_attempt(bytes(32)))"
)


def test_a_second_look_of_the_agent_never_lets_another_process_take_the_log_away(tmp_path: Path) -> None:
    """Found with a study that died of it: the agent looks for lost files while it works, and staff call `check`.

    Closing any descriptor of a file gives back SQLite's locks on it; the other process then removed the log of the
    journal at its end, and the agent wrote on into a file without a name.
    """
    path = tmp_path / "journal.sqlite"

    def seen_by_another_process() -> int:
        command = [sys.executable, "-c", LOOK, str(path)]
        root = Path(__file__).resolve().parents[3]
        return int(subprocess.run(command, cwd=root, check=True, timeout=60, capture_output=True, text=True).stdout)

    journal = SiteJournal(path)
    for attempt in (1, 2, 3):
        assert journal.record_attempt(PLAN, 0, attempt)
        SiteJournal(path).close()  # as `losses` does at the beginning of every task
        assert seen_by_another_process() == attempt
    assert SiteJournal(path).last_attempt(PLAN) == 3


def test_a_closed_journal_refuses_and_keeps_what_it_had(tmp_path: Path) -> None:
    journal = SiteJournal(tmp_path / "journal.sqlite")
    journal.record_attempt(PLAN, 0, 3)
    journal.close()
    with pytest.raises(sqlite3.Error):
        journal.record_attempt(PLAN, 0, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.sqlite"], "nothing is left beside it"
    assert SiteJournal(tmp_path / "journal.sqlite").last_attempt(PLAN) == 3


def test_a_fork_of_the_process_cannot_write_the_journal(journal: SiteJournal) -> None:
    child = os.fork()
    if child == 0:  # only os._exit from here on: the child must not run the parent's clean-up
        try:
            journal.record_attempt(PLAN, 0, 1)
        except sqlite3.Error:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert journal.record_attempt(PLAN, 0, 1)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"not a database, but as long as a header of one needs to be: " * 4)
    with pytest.raises(sqlite3.DatabaseError):
        SiteJournal(path)


WEAK: dict[str, tuple[dict[str, object], type[Exception]]] = {
    "sums over two updates": ({"minimum_survivors": 2}, PlanWeakThresholdError),
    "one honest update in a sum": ({"minimum_survivors": 4, "colluders": 3}, PlanWeakThresholdError),
    "a cohort of two": ({"minimum_cohort": 2}, PlanWeakThresholdError),
    "a site that is not in the roster": ({"site_id": "elsewhere"}, ValueError),
    "a key of 31 bytes": ({"order_key": bytes(31)}, ValueError),
}


@pytest.mark.parametrize("sentence", WEAK)
def test_no_policy_is_made_for(sentence: str, tmp_path: Path) -> None:
    changes, error = WEAK[sentence]
    policy: SitePolicy = new_federation(3, tmp_path).policies["site-001"]
    assert policy.guaranteed_honest == 2
    with pytest.raises(error):
        replace(policy, **changes)  # type: ignore[arg-type]

"""The ledger when processes die or compete: real SIGKILL, real second processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.ledger.budget import EntryKind, Stratum
from client.ledger.errors import LedgerBusyError
from client.ledger.ledger import Ledger, charge

ROOT = Path(__file__).resolve().parents[3]
PREAMBLE = """
import sys
from pathlib import Path
import client.ledger.store
from client.ledger.ledger import Ledger, charge
from client.ledger.budget import Stratum
from common.errors import FedwardError
cost = [charge(Stratum.LABELLED, sampling_rate=1.0, noise_multiplier=50.0, steps=1)]
ledger = Ledger.open(Path(sys.argv[1]), ceiling=float(sys.argv[2]))
"""
# "touch" stands for reading patients, "release" for the message that leaves.
TRAINING = (
    PREAMBLE
    + """
first = max((max(s.attempts) for s in ledger.spending()), default=0) + 1
for attempt in range(first, first + 100_000):
    reservation = ledger.reserve("study", attempt, cost, delta=1e-5)
    print("touch", attempt, flush=True)
    ledger.spend(reservation)
    print("release", attempt, flush=True)
"""
)
RACING = (
    PREAMBLE
    + """
print("ready", flush=True)
sys.stdin.readline()
for attempt in range(1 + int(sys.argv[3]), 1000, 2):
    try:
        ledger.reserve("study", attempt, cost, delta=1e-5)
    except FedwardError as error:
        print(type(error).__name__, flush=True)
        break
"""
)


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def path(tmp_path):
    Ledger.create(tmp_path / "ledger.sqlite").close()
    return tmp_path / "ledger.sqlite"


def test_killed_at_any_moment_everything_that_was_touched_is_charged_and_all_that_left_is_marked(path):
    touched: set[int] = set()
    released: set[int] = set()
    moments = random.Random(5)
    for _ in range(4):
        process = start(TRAINING, path, 100)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(moments.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        lines = [first, *process.stdout.readlines()]
        process.wait()
        for line in lines:
            if line.endswith("\n"):
                word, attempt = line.split()
                (touched if word == "touch" else released).add(int(attempt))
    with Ledger.open(path, ceiling=100) as ledger:
        (study,) = ledger.spending()
        reserved = set(study.attempts)
        spent = {attempt for attempt, kind in study.attempts.items() if kind is EntryKind.SPENT}
        charged = sum(event.steps for event in study.events[Stratum.LABELLED])
    assert len(touched) >= 4
    assert touched <= reserved
    assert released <= spent
    assert charged == len(reserved), "a reservation without an end stays charged"


def test_two_processes_cannot_both_spend_the_last_of_the_budget(path):
    with Ledger.open(path, ceiling=1.0) as ledger:
        ledger.reserve(
            "study", 5000, [charge(Stratum.LABELLED, sampling_rate=1.0, noise_multiplier=50.0, steps=150)], delta=1e-5
        )
        before = ledger.epsilon()
        assert 0.9 < before < 1.0
    racers = [start(RACING, path, 1.0, place) for place in (0, 1)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    outcomes = [racer.communicate("go\n", timeout=60)[0] for racer in racers]
    assert outcomes == ["BudgetExhaustedError\n"] * 2
    with Ledger.open(path, ceiling=1.0) as ledger:
        assert before < ledger.epsilon() <= 1.0
        one_more = [charge(Stratum.LABELLED, sampling_rate=1.0, noise_multiplier=50.0, steps=1)]
        with pytest.raises(Exception, match="ceiling"):
            ledger.reserve("study", 6000, one_more, delta=1e-5)


def test_a_ledger_that_another_process_holds_is_reported_and_nothing_is_spent(path, monkeypatch):
    monkeypatch.setattr("client.ledger.store.BUSY_TIMEOUT_S", 0.05)
    holder = Ledger.open(path, ceiling=1.0)
    other = Ledger.open(path, ceiling=1.0)
    cost = [charge(Stratum.LABELLED, sampling_rate=1.0, noise_multiplier=50.0, steps=1)]
    with holder._store.exclusive(), pytest.raises(LedgerBusyError):
        other.reserve("study", 1, cost, delta=1e-5)
    assert other.spending() == []
    other.reserve("study", 1, cost, delta=1e-5)

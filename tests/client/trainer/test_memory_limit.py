"""Memory is known before it is used: how many patients go side by side follows from it, and from how training ended."""

import json
import os
import signal
import time
from contextlib import closing

import pytest

from client.agent.progress import ProgressFeed
from client.agent.watched_site import WatchedSite
from client.consent import machine
from client.consent.approval import approved_plans, check_for_approval
from client.consent.machine import require_memory
from client.errors import MemoryEndedError, TrainerFailedError
from client.installation.config import SpeedSection
from client.installation.folder import SiteFolder
from client.installation.training_faults import training_faults
from client.learning.end_of_memory import is_end_of_memory
from client.trainer.device_memory import peak_of
from client.trainer.memory_limit import halve, keep_measured, limit_of, measured_bytes
from client.trainer.process import TrainerProcess
from common.networks.errors import NetworkUnsuitableError
from common.plan.machines import need_of
from common.plan.shapes_here import shapes_here

MB = 1_000_000


@pytest.fixture
def folder(copied):
    found = SiteFolder(copied / "north")
    found.state.mkdir()
    return found


@pytest.fixture
def at_north(folder):
    (checked,) = approved_plans(folder).values()
    return folder, checked.plan


@pytest.mark.parametrize(("free_mb", "at_once"), [(0, 1), (200, 1), (300, 2), (1500, 11), (100_000, 799)])
def test_so_many_go_side_by_side_as_there_is_free_memory_for(at_north, free_mb, at_once):
    folder, plan = at_north
    keep_measured(folder.engines, plan, device="cpu", patient_bytes=100 * MB)
    assert limit_of(folder, plan, device="cpu", free=free_mb * MB) == at_once


def test_without_a_measurement_for_this_device_the_estimate_counts(at_north):
    folder, plan = at_north
    keep_measured(folder.engines, plan, device="cuda", patient_bytes=1)
    assert measured_bytes(folder.engines, plan, device="cpu") is None
    estimate = need_of(plan).patient_bytes
    assert limit_of(folder, plan, device="cpu", free=int(12.6 * estimate)) == pytest.approx(10, abs=1)
    assert limit_of(folder, plan, device="cpu", free=None) == 4096


def test_an_end_of_memory_halves_the_stack_for_good_down_to_one(at_north):
    folder, plan = at_north
    sizes, at_once = [], 16
    for _ in range(6):
        at_once = halve(folder, plan, at_once=at_once)
        sizes.append(limit_of(folder, plan, device="cpu", free=10**12))
    assert sizes == [8, 4, 2, 1, 1, 1]
    (file,) = folder.engines.glob("*.limit.json")
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": "fedward-limit/2", "at_once": 3}', b'{"at_once": 0}'])
def test_a_damaged_file_counts_as_none_with_a_note(at_north, damage, caplog):
    folder, plan = at_north
    halve(folder, plan, at_once=16)
    for file in folder.engines.iterdir():
        file.write_bytes(damage)
    assert limit_of(folder, plan, device="cpu", free=10**12) > 8
    assert "damaged" in caplog.text


def test_a_trainer_that_the_system_ends_is_followed_by_one_with_half_as_many_side_by_side(
    rounds, study, sites, folder, caplog
):
    north = WatchedSite(folder, SpeedSection(), ProgressFeed(), shapes_here)
    with closing(north), pytest.MonkeyPatch.context() as monkeypatch:
        rounds.run(rounds.begin(study), {**sites, "north": north})
        pid = int((folder.state / "trainer.pid").read_text())
        os.kill(pid, signal.SIGSTOP)  # it takes the order and never finishes
        monkeypatch.setattr(north._trainer, "_ended_by_staff", lambda: bool(os.kill(pid, signal.SIGKILL)))
        rounds.run(rounds.begin(study, attempt=2), {**sites, "north": north})
        assert [json.loads(file.read_text())["at_once"] for file in folder.engines.glob("*.limit.json")] == [8]
        assert "memory ended in training with 16 patients side by side; from now on 8" in caplog.text
        assert [fault.fault.partition(" ")[0] for fault in training_faults(folder)] == ["MemoryEndedError"]
        monkeypatch.setattr(north._trainer, "_ended_by_staff", lambda: False)
        opened = rounds.run(rounds.begin(study, attempt=3), {**sites, "north": north})
        assert opened.participants == rounds.names


ENDS = {
    "the processor's": RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    "Python's": MemoryError(),
}


@pytest.mark.parametrize("whose", ENDS)
def test_an_end_of_memory_is_known_from_other_faults(whose):
    assert is_end_of_memory(ENDS[whose])
    assert not is_end_of_memory(RuntimeError("a view of other numbers"))
    assert not is_end_of_memory(ValueError("not enough memory"))


def test_what_work_takes_is_seen_from_outside():
    taken = peak_of(lambda: bytearray(200 * MB).count(1), "cpu")
    assert taken is None or 150 * MB < taken < 300 * MB


def test_what_cannot_fit_is_refused_before_approval_with_the_numbers(at_north, monkeypatch):
    folder, plan = at_north
    monkeypatch.setattr(machine, "memory_bytes", lambda: 800 * MB)
    with pytest.raises(NetworkUnsuitableError, match=r"takes about \d+ MB .* has 400 MB .* larger machine"):
        check_for_approval(folder, folder.plan(plan.digest()))
    monkeypatch.setattr(machine, "memory_bytes", lambda: None)
    require_memory(plan, device="cpu")
    check_for_approval(folder, folder.plan(plan.digest()))


def test_where_a_gpu_trains_its_memory_decides(at_north, monkeypatch):
    _, plan = at_north
    monkeypatch.setattr(machine, "memory_bytes", lambda: 800 * MB)  # too little, were it the processor's
    require_memory(plan, device="cuda", gpu=lambda _: 24e9)
    require_memory(plan, device="cuda", gpu=lambda _: None)  # no such GPU: `check` says so
    with pytest.raises(NetworkUnsuitableError, match=r"takes about \d+ MB .* the GPU cuda:1 has 300 MB"):
        require_memory(plan, device="cuda:1", gpu=lambda _: 300e6)
    assert machine.memory_for_training("cuda:1", {"cuda:1": 5.0}.get) == 5.0


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGKILL, MemoryEndedError), (signal.SIGTERM, TrainerFailedError)])
def test_a_killed_trainer_is_told_from_one_that_ended_otherwise(folder, number, kind):
    with closing(TrainerProcess(folder, SpeedSection())) as trainer:
        trainer.warm_up()
        pid = trainer._process.pid
        os.kill(pid, signal.SIGSTOP)

        def ended():
            for each in (number, signal.SIGCONT):
                os.kill(pid, each)

        trainer._ended_by_staff = ended
        with pytest.raises(TrainerFailedError, match=f"signal {int(number)}") as raised:
            trainer.ask({"do": "open"}, deadline_unix_s=time.time() + 60)
    assert raised.type is kind

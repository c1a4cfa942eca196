"""The process that trains: a round like any other, and what happens when it dies, hangs, fails or loses its agent."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from client.agent.progress import ProgressFeed
from client.agent.watched_site import WatchedSite
from client.consent.approval import withdraw_approval
from client.dicom.errors import CacheInvalidError
from client.doctor import machine
from client.doctor.findings import Level
from client.errors import TrainerFailedError, TrainingStoppedError
from client.installation.config import SpeedSection
from client.installation.folder import SiteFolder
from client.installation.training_faults import training_faults
from client.ledger.budget import EntryKind
from client.processes.shapes_beside import ShapesBeside
from client.trainer import fence
from client.trainer.process import TrainerProcess
from common.errors import FedwardError, FileUnreadableError
from common.networks.errors import WeightsInvalidError
from common.plan.reading import parse_plan
from common.plan.reply_slot import reply_slot_s
from common.plan.shapes_here import shapes_here
from common.secagg.messages import decode
from common.secagg.order import decode_order
from common.secagg.refusals import Check
from common.secagg.stages import SITE_SENDS, Kind


def until(holds, what, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pid_of(site):
    return int((site.folder.state / "trainer.pid").read_text())


@pytest.fixture
def north(copied):
    """A hospital as its agent has it: protocol here, training in a process of its own."""
    folder = SiteFolder(copied / "north")
    folder.state.mkdir()
    site = WatchedSite(folder, SpeedSection(), ProgressFeed(), shapes_here)
    yield site
    site.close()


@pytest.fixture
def everybody(sites, north):
    return {**sites, "north": north}


@pytest.fixture
def trainer(copied):
    folder = SiteFolder(copied / "north")
    folder.state.mkdir()
    with closing(TrainerProcess(folder, SpeedSection())) as process:
        yield process


def test_a_round_trained_in_a_process_of_its_own_is_a_round_like_any_other(rounds, study, everybody):
    opened = rounds.run(rounds.begin(study, round_number=2), everybody)
    assert opened.participants == rounds.names
    assert np.isfinite(opened.total.decode_sum()).all()
    assert opened.total.meta.view(np.int64).any()  # round 2 scores the model of round 1
    assert rounds.spending(everybody["north"])[0].attempts == {1: EntryKind.SPENT}


def test_a_trainer_that_is_killed_is_replaced_at_the_next_order(rounds, study, everybody):
    north = everybody["north"]
    rounds.run(rounds.begin(study), everybody)
    first = pid_of(north)
    os.kill(first, signal.SIGKILL)
    until(lambda: north._trainer._process.poll() is not None, "all of its threads have ended")
    rounds.run(rounds.begin(study, attempt=2), everybody)
    assert pid_of(north) != first
    assert rounds.spending(north)[0].attempts == {1: EntryKind.SPENT, 2: EntryKind.SPENT}


def test_a_trainer_that_dies_at_work_is_noise_alone_to_the_federation_charged_and_told_to_the_staff(
    rounds, study, everybody, monkeypatch
):
    north = everybody["north"]
    rounds.run(rounds.begin(study), everybody)
    frozen = pid_of(north)
    os.kill(frozen, signal.SIGSTOP)  # it takes the order and never finishes
    looks = itertools.count()

    def killed_after_a_while():
        if next(looks) == 2:
            os.kill(frozen, signal.SIGKILL)
        return False

    monkeypatch.setattr(north._trainer, "_ended_by_staff", killed_after_a_while)
    assert rounds.run(rounds.begin(study, attempt=2), everybody).participants == rounds.names
    # why it died nobody knows: it may have been a patient's record, so neither a refusal nor budget shows it
    assert rounds.spending(north)[0].attempts == {1: EntryKind.SPENT, 2: EntryKind.SPENT}
    [fault] = training_faults(north.folder)
    assert (fault.plan, fault.round_number) == (study.plan.digest(), 1)
    assert "MemoryEndedError" in fault.fault  # what a SIGKILL means that no person sent
    rounds.run(rounds.begin(study, attempt=3), everybody)
    assert rounds.spending(north)[0].attempts[3] is EntryKind.SPENT
    assert training_faults(north.folder) == [fault]


@pytest.mark.parametrize("how", ["pause", "withdrawal"])
def test_training_under_way_ends_at_once_when_staff_say_so(rounds, study, everybody, how, monkeypatch):
    north = everybody["north"]
    rounds.run(rounds.begin(study), everybody)
    frozen = pid_of(north)
    os.kill(frozen, signal.SIGSTOP)  # training that takes for ever
    asked, looks = north._ended_by_staff, itertools.count()

    def says_so_meanwhile():
        if next(looks) == 2:
            if how == "pause":
                north.folder.paused.touch()
            else:
                withdraw_approval(north.folder, study.plan.digest(), approver="Dr North")
        return asked()

    monkeypatch.setattr(north._trainer, "_ended_by_staff", says_so_meanwhile)
    assert rounds.refused_by(rounds.order_for(study, everybody, "north", attempt=2)) is Check.R0_CONTRIBUTION
    assert not is_alive(frozen)
    assert not (north.folder.state / "trainer.pid").exists()
    # a person's reason, not the data's: what was reserved is given back
    assert rounds.spending(north)[0].attempts == {1: EntryKind.SPENT, 2: EntryKind.VOID}


def test_a_trainer_that_hangs_is_killed_when_its_last_slot_ends_and_noise_alone_leaves(
    rounds, study, everybody, monkeypatch
):
    north = everybody["north"]
    rounds.run(rounds.begin(study), everybody)
    frozen = pid_of(north)
    os.kill(frozen, signal.SIGSTOP)
    ask, asked = north._trainer.ask, []

    def soon(*given, **named):
        asked.append(named["deadline_unix_s"])
        return ask(*given, **{**named, "deadline_unix_s": time.time() + 1.0})

    monkeypatch.setattr(north._trainer, "ask", soon)
    session = rounds.begin(study, attempt=2)
    assert rounds.run(session, everybody).participants == rounds.names
    deadline_s = decode_order(session._order_message.order).deadline_unix_s
    slot_s = reply_slot_s(study.plan)
    assert deadline_s - slot_s - 2.1 < asked[0] < deadline_s - slot_s / 4, "a multiple of slots, less a margin"
    assert not is_alive(frozen)
    assert rounds.spending(north)[0].attempts == {1: EntryKind.SPENT, 2: EntryKind.SPENT}
    assert len(training_faults(north.folder)) == 1


@pytest.mark.parametrize("file", ["policy", "roster"])
def test_a_file_that_cannot_be_read_for_a_moment_is_no_persons_decision(rounds, study, everybody, file, monkeypatch):
    north = everybody["north"]
    asked, looks = north._ended_by_staff, []

    def broken_meanwhile():
        looks.append(getattr(north.folder, file).write_text("half a file"))
        return asked()

    monkeypatch.setattr(north._trainer, "_ended_by_staff", broken_meanwhile)
    rounds.order_for(study, everybody, "north")
    assert looks, "training took longer than a look"
    assert rounds.spending(north)[0].attempts == {1: EntryKind.RESERVED}


def test_a_trainer_cannot_say_that_a_person_ended_it(trainer, monkeypatch):
    code = int(TrainingStoppedError.exit_code)
    monkeypatch.setattr(trainer, "_asked", lambda *_: ({"failed": code, "sentence": "a person"}, bytearray()))
    monkeypatch.setattr(TrainerFailedError, "exit_code", -1)  # so that the code means the other one
    with pytest.raises(TrainerFailedError):
        trainer.ask({"do": "open"})


def test_a_full_disk_leaves_no_trainer_behind(copied, monkeypatch):
    folder = SiteFolder(copied / "north")
    folder.state.mkdir()

    def full(*_):
        raise FileUnreadableError("no space left")

    monkeypatch.setattr("client.trainer.process.replace_atomically", full)
    process = TrainerProcess(folder, SpeedSection())
    process.warm_up()
    child = process._process
    process.warm_up()
    assert process._process is child
    process.close()
    assert child.poll() is not None


def test_a_model_that_does_not_fit_is_the_same_error_as_without_a_process_between(rounds, study, north):
    order = rounds.begin(study).start()["north"]
    packet = north.answer(Kind.ORDER, order.message, memoryview(order.payload))
    assert decode(packet.message, SITE_SENDS)[0] is Kind.KEYS
    question = {"do": "begin", "plan": study.plan.digest(), "phase": 0, "round": 1, "trained": True}
    question |= {"evaluated": False, "scored": False}
    with pytest.raises(WeightsInvalidError, match="shape"):
        north._trainer.ask(question, memoryview(bytes(8)))


def test_a_fault_of_the_trainer_is_told_without_its_text(trainer):
    secret = "patient-name-in-an-exception"
    with pytest.raises(TrainerFailedError, match=r"KeyError at __main__\.py") as caught:
        trainer.ask({"do": "begin", "plan": secret, "phase": 0, "round": 1, "evaluated": False}, memoryview(b""))
    assert secret not in str(caught.value)
    assert trainer.starts == 1  # it lives on


def test_a_study_that_cannot_be_opened_is_the_same_error_as_without_a_process_between(trainer, study, copied):
    (copied / "north" / "cache" / "index.json").unlink(missing_ok=True)
    for file in (copied / "north" / "cache").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    question = {"do": "open", "plan": study.plan.canonical(), "site": "north"}
    with pytest.raises(CacheInvalidError):
        trainer.ask(question)


@pytest.mark.parametrize("how", ["the cache is a link to another disk", "the cache came after the trainer"])
def test_a_cache_that_lies_elsewhere_or_came_later_is_read(rounds, study, everybody, how, tmp_path):
    north, cache = everybody["north"], everybody["north"].folder.cache
    if how == "the cache is a link to another disk":
        north.close()  # started with the agent, before the link was made
        cache.rename(tmp_path / "disk")
        cache.symlink_to(tmp_path / "disk")
    else:
        cache.rename(cache.with_name("kept"))
        north.close()
        north._trainer.warm_up()
        until(
            lambda: b"client.trainer" in Path(f"/proc/{pid_of(north)}/cmdline").read_bytes().split(b"\0")[2:3], "fenced"
        )
        cache.with_name("kept").rename(cache)
    rounds.run(rounds.begin(study), everybody)
    assert rounds.spending(north)[0].attempts == {1: EntryKind.SPENT}
    assert north._trainer.starts == (2 if "link" in how else 3)  # what came later needs another fence


def test_the_trainer_ends_with_its_agent_even_at_work(copied):
    """The agent is killed, so nobody tells the trainer; the end of its standard input does."""
    busy = "from client.trainer.__main__ import end_with_the_agent; end_with_the_agent()\nwhile True: pass"
    child = subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE)
    assert child.stdin is not None
    time.sleep(0.5)
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(60) == 0


def test_the_trainer_ends_when_its_agent_is_killed(copied):
    folder = copied / "north"
    (folder / "state").mkdir()
    agent = (
        "import sys, time; from pathlib import Path\n"
        "from client.installation.config import SpeedSection; from client.installation.folder import SiteFolder\n"
        "from client.trainer.process import TrainerProcess\n"
        "TrainerProcess(SiteFolder(Path(sys.argv[1])), SpeedSection()).warm_up(); print('up', flush=True)\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", agent, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    pid = int((folder / "state" / "trainer.pid").read_text())
    assert is_alive(pid)
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not is_alive(pid), "the trainer has ended")


def test_the_trainer_opens_no_connection_and_leaves_no_core_file(trainer, study):
    plan = study.plan
    trainer.ask({"do": "open", "plan": plan.canonical(), "site": "north"})
    process = Path(f"/proc/{int(trainer._pid_file.read_text())}")
    opened = [str(file.readlink()) for file in (process / "fd").iterdir()]
    assert not [name for name in opened if name.startswith("socket:")]
    (core,) = [line for line in (process / "limits").read_text().splitlines() if "core file" in line]
    assert core.split()[4:6] == ["0", "0"]


@pytest.mark.parametrize(
    ("module", "must_not_load"),
    [
        ("client.agent.agent", {"torch"}),
        ("client.trainer.__main__", {"flwr", "grpc", "dp_accounting", "httpx", "scipy"}),
    ],
)
def test_agent_and_trainer_each_load_only_their_own_libraries(module, must_not_load):
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not must_not_load & set(loaded)


def test_shapes_found_beside_the_agent_are_those_found_here(plan_document):
    plan_document["phases"][0]["trainable"] = "head"
    plan = parse_plan(plan_document, "plan")
    shapes = ShapesBeside()
    assert shapes(plan) == shapes_here(plan)
    assert shapes(plan) is shapes(plan)


def test_a_network_that_does_not_exist_is_the_same_error_beside_the_agent(plan_document):
    plan_document["network"]["initialisation"] = "0" * 64
    plan = parse_plan(plan_document, "plan")
    with pytest.raises(FedwardError) as here:
        shapes_here(plan)
    with pytest.raises(type(here.value)) as beside:
        ShapesBeside()(plan)
    assert str(beside.value) == str(here.value)


IN_THE_FENCE = """
import os, socket, sys
from pathlib import Path
folder, outside, agent = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def outcome(work):
    try:
        work()
    except PermissionError:
        return "denied"
    except OSError as error:
        return type(error).__name__
    return "done"

def listen():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))

def call():
    socket.create_connection(("127.0.0.1", int(sys.argv[4])), timeout=5).close()

for what, work in {
    "read the cache": lambda: os.listdir(folder / "cache"),
    "read the cache of another study": lambda: os.listdir(folder / "caches" / "of-another"),
    "read the cache's secret": (folder / "site.secret").read_bytes,
    "keep a teacher": lambda: (folder / "teachers" / "new").write_bytes(b"x"),
    "write outside": lambda: outside.write_bytes(b"x"),
    "read the site's key": (folder / "site.key").read_bytes,
    "read the key through a link": (outside.parent / "link" / "site.key").read_bytes,
    "read the ledger": (folder / "ledger.sqlite").read_bytes,
    "list the site folder": lambda: os.listdir(folder),
    "pause the site": lambda: (folder / "paused").write_bytes(b""),
    "change the cache": lambda: (folder / "cache" / "new").write_bytes(b"x"),
    "change the cache of another study": lambda: (folder / "caches" / "of-another" / "new").write_bytes(b"x"),
    "listen": listen,
    "connect": call,
    "connect by another protocol": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).close(),
    "listen without an address": lambda: socket.socket().listen(),
    "send a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
    "talk to a local service": lambda: socket.socket(socket.AF_UNIX).connect(str(folder / "agent.sock")),
    "let others read the key": lambda: os.chmod(folder / "site.key", 0o644),
    "let others read the key, by its folder": lambda: os.chmod("site.key", 0o644, dir_fd=os.open(folder, os.O_PATH)),
    "look into the agent's memory": lambda: open(f"/proc/{agent}/mem", "rb").close(),
    "look at what the agent has open": lambda: os.readlink(f"/proc/{agent}/fd/0"),
    "end the agent": lambda: os.kill(agent, 0),
}.items():
    print(f"{what}: {outcome(work)}")
"""
MAY = {
    "read the cache", "read the cache of another study", "read the cache's secret", "keep a teacher", "write outside",
    "list the site folder",
}  # fmt: skip


def test_the_trainer_cannot_open_the_sites_keys_and_records_nor_reach_network_or_agent(copied, tmp_path):
    version = fence.landlock_version()
    if version < 6:
        pytest.skip(f"the whole fence needs Landlock 6 (Linux 6.12); this kernel offers {version}")
    folder, outside = copied / "north", tmp_path / "outside"
    outside.mkdir()
    (folder / "caches" / "of-another").mkdir(parents=True)
    (outside / "link").symlink_to(folder)
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = str(door.getsockname()[1])
        words = (str(folder), str(outside / "file"), str(os.getpid()), port)
        fenced = (sys.executable, "-I", "-S", fence.__file__, str(folder))
        command = (*fenced, sys.executable, "-c", IN_THE_FENCE, *words)
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    outcomes = dict(line.split(": ") for line in said.splitlines())
    assert {what for what, outcome in outcomes.items() if outcome == "done"} == MAY
    assert {outcome for what, outcome in outcomes.items() if what not in MAY} == {"denied"}


@pytest.mark.parametrize(
    ("version", "refuses_calls", "level", "says"),
    [
        (7, True, Level.OK, "no key, no record and no connection"),
        (7, False, Level.ADVICE, "sockets are not fenced off"),
        (4, True, Level.ADVICE, "other processes are not fenced off"),
        (0, True, Level.ADVICE, "no Landlock"),
    ],
)
def test_check_says_how_far_the_kernel_can_fence_training_off(version, refuses_calls, level, says, monkeypatch):
    monkeypatch.setattr(machine, "landlock_version", lambda: version)
    monkeypatch.setattr(machine, "can_refuse_calls", lambda: refuses_calls)
    found = machine.fence()
    assert says in found.text
    assert found.level is level

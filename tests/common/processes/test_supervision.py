"""Real child processes, really killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.flower.environment import LOOPBACK, SILENCE, child_environment
from common.processes.errors import AlreadyRunningError
from common.processes.supervision import Child, Condition, Pauses, Supervisor

SLEEPER = "import time\ntime.sleep(600)"
QUICK = Pauses(first_s=0.05, most_s=0.2, grace_s=1.0)


def python(folder: Path, code: str, name: str = "child") -> Child:
    return Child(
        name=name,
        command=("python", "-c", code),
        environment=child_environment(),
        log=folder / "logs" / f"{name}.log",
    )


def supervisor(folder: Path, *children: Child, **settings: int) -> Supervisor:
    return Supervisor(children, state=folder / "state", pauses=QUICK, **settings)


def wait_until(holds: Callable[[], object], keeper: Supervisor | None = None) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "it did not happen within 30 s"
        if keeper is not None:
            keeper.watch()
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """A zombie does not live."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_killed_with_kill_9_is_started_again(tmp_path):
    with supervisor(tmp_path, python(tmp_path, SLEEPER)) as keeper:
        first = keeper.states()[0].pid
        assert first is not None
        assert (tmp_path / "state" / "child.pid").read_text() == f"{first}\n"
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: keeper.states()[0].restarts == 1, keeper)
        state = keeper.states()[0]
        assert state.condition is Condition.RUNNING
        assert state.pid not in (first, None)
        assert state.exit_status == -signal.SIGKILL
    assert not lives(state.pid)
    assert not (tmp_path / "state" / "child.pid").exists()
    assert keeper.states()[0].condition is Condition.ENDED


def test_pauses_grow_to_their_limit():
    pauses = Pauses(first_s=0.5, most_s=10.0)
    assert [pauses.before(restart) for restart in (1, 2, 3, 5, 6, 1000)] == [0.5, 1.0, 2.0, 8.0, 10.0, 10.0]


def test_a_child_that_always_fails_is_tried_with_growing_pauses_and_never_given_up(tmp_path):
    with supervisor(tmp_path, python(tmp_path, "raise SystemExit(3)")) as keeper:
        wait_until(lambda: keeper.states()[0].restarts >= 3, keeper)
        assert keeper.states()[0].exit_status == 3
        assert keeper._kept[0].failures >= 3


def test_a_command_that_does_not_exist_says_so_in_its_log(tmp_path):
    child = Child(
        name="ghost", command=("no-such-program",), environment=child_environment(), log=tmp_path / "ghost.log"
    )
    with supervisor(tmp_path, child) as keeper:
        wait_until(lambda: "cannot be started" in (tmp_path / "ghost.log").read_text(), keeper)


def test_what_a_dead_child_had_started_is_ended_before_it_starts_again(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(600)"
    )
    log = tmp_path / "logs" / "child.log"
    with supervisor(tmp_path, python(tmp_path, code)) as keeper:
        wait_until(lambda: log.read_text().strip())
        grandchild = int(log.read_text())
        assert lives(grandchild)
        os.kill(keeper.states()[0].pid or 0, signal.SIGKILL)
        wait_until(lambda: keeper.states()[0].restarts == 1, keeper)
        wait_until(lambda: not lives(grandchild))


def test_children_end_in_the_opposite_order_and_a_deaf_one_is_killed(tmp_path):
    farewell = tmp_path / "farewell"
    code = (
        "import signal, sys, time\n"
        "def bye(*_):\n"
        f"    open({str(farewell)!r}, 'a').write(sys.argv[1])\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, bye)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    deaf = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    kept = [
        Child(name=n, command=("python", "-c", code, n), environment=child_environment(), log=tmp_path / f"{n}.log")
        for n in ("a", "b")
    ]
    with supervisor(tmp_path, *kept, python(tmp_path, deaf, "deaf")) as keeper:
        for log in (tmp_path / "a.log", tmp_path / "b.log", tmp_path / "logs" / "deaf.log"):
            wait_until(lambda log=log: "ready" in log.read_text())
        pids = [state.pid or 0 for state in keeper.states()]
    assert farewell.read_text() == "ba"
    assert [lives(pid) for pid in pids] == [False, False, False]


def test_logs_rotate_keep_a_bounded_size_and_are_for_their_owner_only(tmp_path):
    code = "import time\nfor i in range(3000): print('line', i)\ntime.sleep(600)"
    with supervisor(tmp_path, python(tmp_path, code), max_log_bytes=4096, old_logs=2):
        logs = tmp_path / "logs"

        def newest() -> str:
            with contextlib.suppress(FileNotFoundError):  # between two names while it is rotated
                return (logs / "child.log").read_text()
            return ""

        wait_until(lambda: "line 2999" in newest())
        assert sorted(path.name for path in logs.iterdir()) == ["child.log", "child.log.1", "child.log.2"]
        assert all(path.stat().st_size <= 4096 for path in logs.iterdir())
        assert {path.stat().st_mode & 0o777 for path in logs.iterdir()} == {0o600}


def test_a_second_supervisor_of_the_same_folder_is_refused_and_changes_nothing(tmp_path):
    with supervisor(tmp_path, python(tmp_path, SLEEPER)) as keeper:
        with pytest.raises(AlreadyRunningError, match="already in use"):
            supervisor(tmp_path, python(tmp_path, SLEEPER)).start()
        assert lives(keeper.states()[0].pid or 0)


SUPERVISING = """
import sys
from pathlib import Path
from common.flower.environment import child_environment
from common.processes.supervision import Child, Supervisor

folder = Path(sys.argv[1])
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
leaves = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {deaf!r}]); time.sleep(600)"
children = [
    Child(name="child", command=("python", "-c", leaves), environment=child_environment(), log=folder / "child.log")
]
with Supervisor(children, state=folder / "state") as supervisor:
    print("up", flush=True)
    supervisor.run()
"""


@pytest.fixture
def supervising(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process of its own, whose child has a deaf child."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISING, str(tmp_path)], env=child_environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    wait_until(lambda: len(marked(tmp_path)) == 2)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    for pid in marked(tmp_path):
        os.kill(pid, signal.SIGKILL)


def marked(folder: Path) -> list[int]:
    """Living processes that the supervisor of this folder, or its children, have started."""
    mark = f"FEDWARD_SUPERVISED={folder / 'state'}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0") and lives(int(path.name)):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_a_killed_supervisor_takes_its_child_along_and_the_next_one_ends_the_rest(supervising, tmp_path):
    child = int((tmp_path / "state" / "child.pid").read_text())
    supervising.kill()
    supervising.wait()
    wait_until(lambda: not lives(child))
    assert len(marked(tmp_path)) == 1, "the child's child was told nothing"
    with supervisor(tmp_path, python(tmp_path, SLEEPER)) as keeper:
        wait_until(lambda: marked(tmp_path) == [keeper.states()[0].pid])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_supervisor_and_everything_it_started(supervising, tmp_path, number):
    supervising.send_signal(number)
    assert supervising.wait(30) == 0
    wait_until(lambda: marked(tmp_path) == [])


def test_a_child_s_environment_is_silent_stays_off_the_proxy_and_finds_our_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    made = child_environment(flower_home=tmp_path, https_proxy="http://proxy:3128", EXTRA="1")
    assert SILENCE.items() <= made.items()
    assert made["NO_PROXY"] == made["no_proxy"] == ",".join((*LOOPBACK, "intranet.example"))
    assert made["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert (made["FLWR_HOME"], made["HTTPS_PROXY"], made["EXTRA"]) == (str(tmp_path), "http://proxy:3128", "1")


def test_a_child_loads_our_code_even_where_another_folder_bears_our_name(tmp_path, repository):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    shown = subprocess.run(
        ["python", "-c", "import common; print(common.__file__)"],
        env=child_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(shown.stdout.strip()).parent.parent == repository

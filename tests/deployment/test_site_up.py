"""`fedward-site up` as a hospital runs it: real programs, killed and stopped; the coordinator is not there yet."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from client.installation.folder import SiteFolder
from client.installation.joining import join
from client.installation.setup import set_up
from common.errors import ExitCode
from common.flower.environment import child_environment
from common.flower.pointer import FLOWER_VERSION, pointer_digest
from common.trust.identity import fingerprint, read_signing_key
from common.trust.kit import Kit, signed_kit
from common.trust.roster import Roster, signed_roster
from server.federation.certificates import new_authority

NOT_COPIED = shutil.ignore_patterns("*.sock", "state")
COORDINATOR = "coordinator.invalid:443"  # no such host can exist (RFC 2606)


def site(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "client", *map(str, words)],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def wait_until(holds: Callable[[], object], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


class Proxy:
    """A hospital's HTTP proxy that writes down where it was asked to go, and goes nowhere."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(4096).split(b"\r\n")[0].decode())
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    running = Proxy()
    yield running
    running.close()


@pytest.fixture(scope="module")
def joined(proxy: Proxy) -> Iterator[SiteFolder]:
    """A site that joined, behind a proxy; its path is short enough for a socket."""
    place = Path(tempfile.mkdtemp(prefix="fw"))
    folder = SiteFolder(place / "north")
    set_up(folder, "north")
    coordinator = Ed25519PrivateKey.generate()
    sites = {name: Ed25519PrivateKey.generate().public_key() for name in ("east", "south")}
    sites["north"] = read_signing_key(folder.key).public_key()
    roster = signed_roster(Roster("lungs", 1, coordinator.public_key(), sites), coordinator)
    kit = place / "kit.json"
    kit.write_bytes(make_kit(coordinator, roster, flwr=FLOWER_VERSION))
    join(folder, kit, spoken=lambda: fingerprint(coordinator.public_key()))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text = folder.config.read_text().replace("runtime_port = 9094", f"runtime_port = {port}")
    folder.config.write_text(text.replace('https_proxy = ""', f'https_proxy = "http://127.0.0.1:{proxy.port}"'))
    yield folder
    shutil.rmtree(place, ignore_errors=True)


def make_kit(coordinator: Ed25519PrivateKey, roster: bytes, *, flwr: str) -> bytes:
    document = json.loads(roster)
    kit = Kit(
        federation="lungs",
        coordinator=coordinator.public_key(),
        address=COORDINATOR,
        ca_certificate=new_authority("lungs").certificate.public_bytes(Encoding.PEM).decode(),
        pointer_digest=pointer_digest(),
        flwr=flwr,
        signed_roster=document,
        roster=None,
    )
    return signed_kit(kit, coordinator)


@pytest.fixture(scope="module")
def up(joined: SiteFolder) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "client", "up", "--site-folder", str(joined.path)]
    with (joined.logs / "up.log").open("wb") as log:
        process = subprocess.Popen(command, env=child_environment(), stdout=log, stderr=log)
    wait_until(lambda: status(joined)["connection"] == "up", "agent and SuperNode have found each other")
    yield process
    process.kill()
    process.wait()


def status(folder: SiteFolder) -> dict[str, Any]:
    done = site("status", "--json", "--site-folder", folder.path)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_status_names_the_processes_and_says_that_the_site_runs(up, joined):
    now = status(joined)
    assert (now["site"], now["agent"], now["paused"]) == ("north", "running", False)
    assert now["processes"].keys() == {"agent", "supernode", "supervisor"}
    assert now["processes"]["supervisor"] == up.pid
    assert "running" in site("status", "--site-folder", joined.path).stdout


@pytest.mark.slow
def test_the_way_out_goes_through_the_proxy_and_loopback_never_does(up, joined, proxy):
    wait_until(lambda: proxy.asked, "the SuperNode asked the proxy")
    assert set(proxy.asked) == {f"CONNECT {COORDINATOR} HTTP/1.1"}
    assert status(joined)["connection"] == "up"


@pytest.mark.slow
def test_pause_and_resume_reach_the_running_agent(up, joined):
    assert site("pause", "--by", "Dr North", "--site-folder", joined.path).returncode == 0
    now = status(joined)
    assert (now["paused"], now["step"]) == (True, "paused")
    assert "PAUSED" in site("status", "--site-folder", joined.path).stdout
    assert site("resume", "--by", "Dr North", "--site-folder", joined.path).returncode == 0
    now = status(joined)
    assert (now["paused"], now["step"]) == (False, "resumed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["agent", "supernode"])
def test_what_is_killed_comes_back_and_is_found_again(up, joined, name):
    before = status(joined)["processes"]
    os.kill(before[name], signal.SIGKILL)
    wait_until(lambda: status(joined)["processes"].get(name) not in (None, before[name]), f"{name} is back")
    wait_until(lambda: status(joined)["connection"] == "up", "agent and SuperNode have found each other")
    others = {other: pid for other, pid in before.items() if other != name}
    assert others.items() <= status(joined)["processes"].items()


@pytest.mark.slow
def test_a_second_up_on_the_same_folder_is_refused(up, joined):
    done = site("up", "--site-folder", joined.path)
    assert (done.returncode, "already in use" in done.stderr) == (ExitCode.ALREADY_RUNNING, True)


@pytest.mark.slow
def test_an_end_is_an_end_for_all_and_pausing_works_without_anything_running(up, joined):
    pids = status(joined)["processes"].values()
    up.send_signal(signal.SIGTERM)
    assert up.wait(60) == 0
    wait_until(lambda: not any(lives(pid) for pid in pids), "all have ended")
    now = status(joined)
    assert (now["agent"], now["processes"]) == ("away", {})
    assert site("pause", "--site-folder", joined.path).returncode == 0
    assert joined.paused.exists()
    assert site("resume", "--site-folder", joined.path).returncode == 0
    assert not joined.paused.exists()


REFUSED = {
    "a site that has not joined": ("kit.json", None, ExitCode.NOT_ENROLLED, "join"),
    "settings without a name": (
        "site.toml",
        b'format = "fedward-site/1"',
        ExitCode.SITE_CONFIG_INVALID,
        "field required",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_up_refuses_before_it_starts_anything(joined, tmp_path, case):
    name, content, code, word = REFUSED[case]
    copy = SiteFolder(shutil.copytree(joined.path, tmp_path / "site", ignore=NOT_COPIED))
    (copy.path / name).unlink() if content is None else (copy.path / name).write_bytes(content)
    done = site("up", "--site-folder", copy.path)
    assert (done.returncode, word in done.stderr) == (code, True), done.stderr
    assert not list(copy.path.glob("state/*.pid"))


def test_a_folder_whose_socket_would_have_too_long_a_path_is_refused(joined, tmp_path):
    long = shutil.copytree(joined.path, tmp_path / ("x" * 100), ignore=NOT_COPIED)
    done = site("up", "--site-folder", long)
    assert (done.returncode, "107" in done.stderr) == (ExitCode.AGENT_UNAVAILABLE, True), done.stderr


def test_a_coordinator_with_another_flower_is_refused_before_anything_is_sent(joined, tmp_path):
    copy = SiteFolder(shutil.copytree(joined.path, tmp_path / "site", ignore=NOT_COPIED))
    coordinator = Ed25519PrivateKey.generate()
    sites = {"north": read_signing_key(copy.key).public_key()}
    roster = signed_roster(Roster("lungs", 1, coordinator.public_key(), sites), coordinator)
    copy.kit.write_bytes(make_kit(coordinator, roster, flwr="1.40.0"))
    done = subprocess.run(
        [sys.executable, "-m", "client.agent.supernode", str(copy.path)],
        env=child_environment(flower_home=copy.flower),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == ExitCode.RUNTIME_UNSUITABLE
    assert "1.40.0" in done.stderr

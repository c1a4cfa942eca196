"""A disk that fills while coordinator and hospital run: people are told, and with room again nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.doctor.own_folder import records
from client.installation.audit_log import audit_links
from client.installation.folder import SiteFolder
from client.installation.joining import join
from client.installation.setup import set_up
from common.errors import ExitCode
from common.flower.environment import child_environment
from common.flower.pointer import FLOWER_VERSION
from common.trust.hash_chain import HashChain
from common.trust.identity import fingerprint, read_signing_key
from common.trust.roster import Roster, signed_roster
from server.federation.admission import AUDIT_NAME
from server.model.checkpoint import same_state
from server.study.folder import open_study
from server.study.progress import current_state, replay
from server.study.status import read_journal

from .conftest import STUDY, build, free_ports, wait_until
from .test_site_up import make_kit

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")]
FULL = "full ("


@contextmanager
def small_disk(folder, size):
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder))
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=True)


@contextmanager
def filled(folder):
    """Leave no byte free."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    yield
    ballast.unlink()


def typed(module, *words):
    line = [sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(line, env=child_environment(), capture_output=True, text=True, check=False, timeout=600)
    assert "bug" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def said(module, option, folder):
    """What `status --json` says of the disk."""
    done = typed(module, "status", "--json", option, folder)
    assert done.returncode == ExitCode.OK, done.stderr
    return json.loads(done.stdout)["lacking"]


def test_a_study_waits_while_the_coordinator_s_disk_is_full_and_goes_on_without_loss(tmp_path):
    with small_disk(tmp_path / "coordinator", "40m") as disk:
        made = build(tmp_path)
        try:
            made.start_coordinator()
            made.sign_study(STUDY, 60)
            for name in made.sites:
                made.start_site(name)
            made.command("run", STUDY)
            made.wait_for_rounds(2)
            with filled(disk):
                assert FULL in said("server", "--folder", disk)
                assert "it cannot work: the disk of" in typed("server", "status", "--folder", disk).stdout
                for name in ("superlink", f"study-{STUDY}"):
                    if pid := made.process(name):  # it may have ended by itself, and its file cannot be written
                        os.kill(pid, signal.SIGKILL)
                wait_until(lambda: "is full" in (tmp_path / "up.log").read_text(), "the terminal says it too")
                at_most = made.status()["rounds_applied"]
            made.wait_for_rounds(at_most + 2)
            assert said("server", "--folder", disk) == ""
            made.command("stop", STUDY, "--wait")
            study = open_study(made.folder.study(STUDY))
            journal = read_journal(study)
            attempts = [row.attempt for row in journal.attempts()]
            assert attempts == list(range(1, len(attempts) + 1))
            assert same_state(replay(study, journal), current_state(study, journal))
            assert list(HashChain(made.folder.audit, AUDIT_NAME).links())
            assert "Traceback" not in (made.folder.logs / "executor.log").read_text()
        finally:
            made.end()


def made_site(folder):
    """A site that has joined a coordinator who is never there."""
    site = SiteFolder(folder)
    set_up(site, "north")
    coordinator = Ed25519PrivateKey.generate()
    sites = {name: Ed25519PrivateKey.generate().public_key() for name in ("east", "south")}
    sites["north"] = read_signing_key(site.key).public_key()
    roster = signed_roster(Roster("lungs", 1, coordinator.public_key(), sites), coordinator)
    kit = folder.parent / "kit.json"
    kit.write_bytes(make_kit(coordinator, roster, flwr=FLOWER_VERSION))
    join(site, kit, spoken=lambda: fingerprint(coordinator.public_key()))
    site.config.write_text(site.config.read_text().replace("= 9094", f"= {free_ports(1)[0]}"))
    return site


def test_a_hospital_whose_disk_fills_says_so_in_status_and_check_and_comes_back_by_itself():
    place = Path(tempfile.mkdtemp(prefix="fw"))  # a socket's path is short
    with small_disk(place / "north", "24m") as disk:
        site = made_site(disk)
        line = [sys.executable, "-m", "client", "up", "--allow-root", "--site-folder", str(disk)]
        with (place / "up.log").open("wb") as log:
            up = subprocess.Popen(line, env=child_environment(), stdout=log, stderr=log)
        running = lambda: json.loads(typed("client", "status", "--json", "--site-folder", disk).stdout)  # noqa: E731
        try:
            wait_until(lambda: running()["agent"] == "running", "the agent answers")
            with filled(disk):
                done = typed("client", "status", "--site-folder", disk)
                assert "it cannot work: the disk of" in done.stdout.splitlines()[0]
                done = typed("client", "check", "--offline", "--site-folder", disk)
                assert done.returncode == ExitCode.CHECK_FAILED, done.stderr
                assert "begin-again" not in done.stdout, "a full disk is no lost file"
                assert typed("client", "pause", "--by", "Dr North", "--site-folder", disk).returncode
                os.kill(running()["processes"]["agent"], signal.SIGKILL)
                wait_until(lambda: running()["agent"] == "away", "the agent is gone")
                wait_until(lambda: "is full (" in (place / "up.log").read_text(), "the terminal says it too")
                assert FULL in said("client", "--site-folder", disk)
            wait_until(lambda: running()["agent"] == "running", "the agent is back")
            assert said("client", "--site-folder", disk) == ""
            assert typed("client", "pause", "--by", "Dr North", "--site-folder", disk).returncode == ExitCode.OK
            assert [link.entry["what"] for link in audit_links(site)][-1] == "paused"
            assert list(records(site))
        finally:
            up.terminate()
            up.wait(60)
    shutil.rmtree(place)

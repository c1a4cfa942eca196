"""A coordinator and three hospitals as real processes on loopback; only the hospitals' training is made up."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from client.consent.approval import approve
from client.consent.confirmation import confirm
from client.installation.folder import SiteFolder
from client.installation.joining import join
from client.installation.setup import set_up
from common.flower.environment import child_environment
from common.trust.enrolment import signed_enrolment
from common.trust.identity import fingerprint, read_signing_key
from server.deployment.federation_status import process_of
from server.deployment.loopback_tls import loopback_authority
from server.deployment.superlink_client import AwayError, SuperLinkClient
from server.drafting.recipes import Recipe
from server.federation.admission import admit, sign_next_roster
from server.federation.config import coordinator_config_text, read_coordinator_config
from server.federation.folder import FederationFolder
from server.federation.kit_making import make_kit
from server.federation.setup import create_federation
from server.study.folder import open_study
from server.study.making import new_study, sign_study
from server.study.new_plan import Wanted
from server.study.status import read_journal, study_status

SITES = ("hospital-1", "hospital-2", "hospital-3")
STUDY = "lungs"
WAITING = ("training_timeout_s = 3600.0", "training_timeout_s = 180.0\nstage_timeout_s = 120.0")
PATIENCE_S = 600.0  # machines are shared: a round takes three seconds, or a minute


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def wait_until(holds, what, seconds=PATIENCE_S):
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.2)
    return found


def processes_below(pid):
    """Children, and theirs."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    children = [int(number) for number in text.split()]
    return children + [grandchild for child in children for grandchild in processes_below(child)]


@dataclass
class Deployment:
    """``folder``: the coordinator's. ``sites``: by name. Programs that were started end with the context."""

    place: Path
    folder: FederationFolder
    sites: dict[str, SiteFolder] = field(default_factory=dict)
    programs: list[subprocess.Popen] = field(default_factory=list)

    @property
    def config(self):
        return read_coordinator_config(self.folder.config)

    def command(self, *words, module="server"):
        """Type a command of the coordinator."""
        line = [sys.executable, "-m", module, *map(str, words), "--folder", str(self.folder.path)]
        environment, patience_s = child_environment(), PATIENCE_S
        done = subprocess.run(line, check=False, env=environment, capture_output=True, text=True, timeout=patience_s)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, name, *line):
        log = (self.place / f"{name}.log").open("ab")
        environment = child_environment(OMP_NUM_THREADS="1")
        self.programs.append(subprocess.Popen(line, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return self.programs[-1]

    def start_coordinator(self):
        self.start("up", sys.executable, "-m", "server", "up", "--allow-root", "--folder", str(self.folder.path))
        with self.superlink() as client:
            wait_until(lambda: answers(client.nodes), "the SuperLink answers")

    def start_site(self, name):
        script = Path(__file__).with_name("made_up_site.py")
        return self.start(name, sys.executable, str(script), str(self.sites[name].path))

    @contextmanager
    def superlink(self):
        """The SuperLink's interfaces as the executor uses them."""
        wait_until(loopback_authority(self.folder).exists, "up has made its certificates")
        authority, secret = loopback_authority(self.folder).read_bytes(), self.folder.executor_secret.read_bytes()
        client = SuperLinkClient(self.config.superlink_address, authority=authority, secret=secret)
        try:
            yield client
        finally:
            client.close()

    def process(self, name):
        return process_of(self.folder, name)

    def kill(self, name):
        """SIGKILL one of the coordinator's processes, and wait until another one has its place."""
        before = self.process(name)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: self.process(name) not in {before, None}, f"{name} is started again")

    def status(self, study=STUDY):
        opened = open_study(self.folder.study(study))
        journal = read_journal(opened)
        try:
            return study_status(opened, journal)
        finally:
            if journal:
                journal.close()

    def wait_for_rounds(self, count, study=STUDY):
        wait_until(lambda: self.status(study)["rounds_applied"] >= count, f"{count} rounds are applied")

    def sign_study(self, name, rounds, *, approved=True, changes=("", "")):
        counts = [f"{site}=100,100" for site in self.sites]
        wanted = Wanted(Recipe.PLAIN, None, epsilon=8.0, rounds=2 * rounds)  # noise for attempts that are lost
        study, _ = new_study(self.folder, name, counts, wanted)
        text = study.plan.read_text().replace(f"\nrounds = {2 * rounds}\n", f"\nrounds = {rounds}\n")
        study.plan.write_text(text.replace(*WAITING).replace(*changes))
        sign_study(self.folder, name)
        for site in self.sites.values() if approved else ():
            approve(site, study.plan, approver="Data Protection Officer")

    def end(self):
        everyone = [pid for program in self.programs for pid in processes_below(program.pid)]
        for program in reversed(self.programs):
            program.terminate()
        for program in self.programs:
            try:
                program.wait(40)
            except subprocess.TimeoutExpired:
                program.kill()
        for pid in everyone:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def answers(call):
    try:
        call()
    except AwayError:
        return False
    return True


def build(place, sites=SITES):
    """A federation whose hospitals have joined."""
    ports = free_ports(2 + len(sites))
    made = Deployment(place, FederationFolder(place / "coordinator"))
    text = coordinator_config_text(
        "rehearsal", f"localhost:{ports[0]}", gateway_port=None, superlink_port=ports[1], status_port=0
    )
    create_federation(made.folder, text)
    for name, port in zip(sites, ports[2:], strict=True):
        site = made.sites[name] = SiteFolder(place / name)
        enrolment = set_up(site, name)
        text = site.config.read_text().replace("runtime_port = 9094", f"runtime_port = {port}")
        site.config.write_text(text.replace("poll_interval_s = 1.0", "poll_interval_s = 0.5"))
        file = place / f"{name}.json"
        file.write_bytes(signed_enrolment(enrolment, read_signing_key(site.key)))
        admit(made.folder, file, enrolment.fingerprint())
    sign_next_roster(made.folder, "rehearsal")
    kit = place / "kit.json"
    kit.write_bytes(make_kit(made.folder, made.config))
    heard = fingerprint(read_signing_key(made.folder.key).public_key())
    for name, site in made.sites.items():
        joined = join(site, kit, spoken=lambda: heard)
        assert joined.site == name
        for other, spoken in joined.others.items():
            confirm(site, other, spoken, person="Data Protection Officer")
    return made


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    made = build(tmp_path_factory.mktemp("d"))
    try:
        made.start_coordinator()
        yield made
    finally:
        made.end()

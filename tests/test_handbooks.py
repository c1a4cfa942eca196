"""Both handbooks are run: every block, in the order of their numbers, with real folders, keys, processes and TLS.

A block's mark is the comment above it: ``run NUMBER``, with ``every site``, ``at SITE``, ``background``, ``stopped``
(the site is not up), ``input WORD`` (typed at a prompt); ``edit NUMBER FILE`` (lines of a settings file); ``system``
(needs root or another machine: not run, and holds no command of ours).
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest

from client.__main__ import COMMANDS as SITE_COMMANDS
from client.consent.confirmation import confirm
from client.installation.folder import SiteFolder
from common.plan.reading import read_plan
from common.trust.enrolment import read_enrolment
from common.trust.identity import fingerprint, read_public_key
from common.trust.roster import read_roster
from server.__main__ import COMMANDS as SERVER_COMMANDS
from server.study.folder import open_study
from server.study.status import read_journal, require_started
from simulation.rehearsal.cast import free_ports
from simulation.rehearsal.settings_files import change

REPOSITORY = Path(__file__).resolve().parent.parent
HANDBOOKS = ("site-handbook.md", "coordinator-handbook.md")
SITES = ("north", "south", "west", "east")
MODULES = {"fedward-site": "client", "fedward-server": "server", "fedward-sim": "simulation"}
FENCE = re.compile(r"(?:<!-- ([^>]*) -->\n)?```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND_TIMEOUT_S = 600.0
SMALL = {"size_px": [32, 32]}  # what the test changes so that it takes minutes


@dataclass(frozen=True)
class Block:
    """One fenced block. ``number``: its place in the story, 0 for one that is not run."""

    page: str
    mark: str
    language: str
    text: str

    @property
    def number(self) -> int:
        found = re.match(r"(?:run|edit) (\d+)", self.mark)
        return int(found.group(1)) if found else 0

    @property
    def sites(self) -> tuple[str, ...]:
        at = re.search(r" at (\w+)", self.mark)
        return (at.group(1),) if at else SITES if "every site" in self.mark else ("",)


def blocks(*pages: str) -> list[Block]:
    found = []
    for page in pages or HANDBOOKS:
        text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
        found += [Block(page, mark or "", language, body) for mark, language, body in FENCE.findall(text)]
    return found


def test_every_block_of_a_handbook_says_whether_it_is_run():
    for block in blocks():
        assert re.fullmatch(r"(run \d{3}( every site| at \w+)?( background| stopped)?( input \w+)?"
                            r"|edit \d{3} \S+( every site)?|system: .+)", block.mark), block  # fmt: skip
    numbers = [block.number for block in blocks() if block.number]
    assert len(set(numbers)) == len(numbers)
    for page in HANDBOOKS:
        assert sum(1 for block in blocks(page) if block.number) >= 10, page


def test_what_is_not_run_holds_no_command_of_ours():
    for block in blocks():
        if not block.number:
            assert not re.search(r"^\s*fedward-(site|server|sim)\s", block.text, flags=re.MULTILINE), block.text


def test_a_command_named_in_the_text_exists():
    known = {"fedward-site": SITE_COMMANDS, "fedward-server": SERVER_COMMANDS}
    for page in HANDBOOKS:
        text = FENCE.sub("", (REPOSITORY / "docs" / page).read_text(encoding="utf-8"))
        for program, command in set(re.findall(r"`(fedward-(?:site|server)) ([a-z-]+)", text)):
            assert command in known[program], f"{page}: {program} {command}"


@dataclass
class Story:
    """The handbooks being followed: one folder for everybody, ``post`` for what travels by mail."""

    place: Path
    ports: dict[str, int]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def post(self) -> Path:
        return self.place / "post"

    @property
    def federation(self) -> Path:
        return self.place / "federation"

    def scans(self, site: str) -> Path:
        return self.place / "scans" / f"hospital-{SITES.index(site) + 1}"

    def words(self, text: str, site: str, mark: str) -> str:
        """The block as this test types it: folders, ports, and what is heard over the phone."""
        if "every site" in mark:
            text = re.sub(r"\bnorth\b", site, text).replace("NORTH_FINGERPRINT", f"{site.upper()}_FINGERPRINT")
        places = {
            "/var/lib/fedward/site": str(self.place / site),
            "/var/lib/fedward/federation": str(self.federation),
            "fl.example.org:8443": f"localhost:{self.ports['gateway']}",
            "8765": str(self.ports[f"page {site}"]),
        }
        if site:
            places |= {
                "/srv/dicom": str(self.scans(site) / "scans"),
                "/srv/labels.csv": str(self.scans(site) / "labels.csv"),
            }
        for name, place in places.items():
            text = text.replace(name, place)
        return re.sub(r"\b[A-Z]+(?:_[A-Z]+)+\b", lambda found: self.heard(found.group(0)), text)

    def heard(self, word: str) -> str:
        """What a person looks up, hears or types where the handbook has a word in capitals."""
        plan = self.federation / "studies/lungs-2026/study.toml"
        if word == "COORDINATOR_FINGERPRINT":
            return fingerprint(read_public_key(self.federation / "coordinator.pub"))
        if word.endswith("_FINGERPRINT"):
            name = word.removesuffix("_FINGERPRINT").lower().replace("_", "-")
            return read_enrolment(self.post / f"{name}-enrolment.json").fingerprint()
        if word == "PLAN_DIGEST":
            return read_plan(plan).digest()
        if word in {"LAST_ATTEMPT", "LEDGER_HEAD"}:
            opened = open_study(plan.parent)
            journal = require_started(read_journal(opened), opened)
            heads, last = journal.last_heads(), journal.last_attempt()
            journal.close()
            return str(last) if word == "LAST_ATTEMPT" else heads["north"].head.hex()
        raise AssertionError(f"the handbook has a word that the test does not know: {word}")

    def patient(self, site: str) -> str:
        file = next((self.scans(site) / "scans").rglob("*.dcm"))
        return str(pydicom.dcmread(file, stop_before_pixels=True).PatientID)

    def follow(self, block: Block) -> None:
        for site in block.sites:
            if block.mark.startswith("edit"):
                file = Path(self.words(block.mark.split()[2], site, block.mark))
                change(file, tomllib.loads(self.words(block.text, site, block.mark)))
            elif "background" in block.mark:
                self._start(self.words(block.text, site, block.mark), site)
            else:
                if "stopped" in block.mark:
                    self.end(site)
                self._type_in(block, site)
        self._settle(block)

    def _type_in(self, block: Block, site: str) -> None:
        text = self.words(block.text, site, block.mark)
        typed = f"{self.patient(site)}\n" if "input" in block.mark else None
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=self.post, env=self._environment(), input=typed,
            capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False, start_new_session=True,
        )  # fmt: skip
        assert done.returncode == 0, (
            f"{block.page} {block.mark} {site}\n{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )

    def _start(self, text: str, site: str) -> None:
        name = site or "coordinator"
        with (self.place / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                ["bash", "-c", f"exec {text.strip()}"], cwd=self.post, env=self._environment(), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        path = f"{self.place / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def _confirm_everybody(self) -> None:
        """What the block shows for one hospital, every other one does too."""
        for site in SITES[1:]:
            folder = SiteFolder(self.place / site)
            for other, heard in read_roster(folder.roster).fingerprints().items():
                if other != site:
                    confirm(folder, other, heard, person="Dr Mina Rao")

    def _settle(self, block: Block) -> None:
        """What many hospitals on one machine need, and waiting for what was started."""
        if block.number == 10:
            change(self.federation / "coordinator.toml", {"superlink_port": self.ports["superlink"]})
        elif block.number == 25:
            for site in SITES:
                own = {"runtime_port": self.ports[f"runtime {site}"], "poll_interval_s": 0.2}
                change(self.place / site / "site.toml", own)
        elif block.number == 90:
            self._confirm_everybody()
        elif block.number in {105, 285}:
            study = "lungs-2026" if block.number == 105 else "lungs-2027"
            change(self.federation / f"studies/{study}/study.toml", SMALL)
        elif block.number == 70:
            wait_until(lambda: answers(self.ports["gateway"]), "the gateway answers")
        elif block.number == 160:
            for site in SITES:
                wait_until(lambda site=site: (self.place / site / "agent.sock").exists(), f"the agent of {site} runs")

    def end(self, name: str) -> None:
        process = self.running.pop(name, None)
        if process:
            process.terminate()
            process.wait(90)


def wait_until(holds, what: str) -> None:
    end_s = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < end_s, f"waited in vain until {what}"
        time.sleep(0.2)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def story() -> Iterator[Story]:
    """A short path: Unix sockets need one."""
    place = Path(tempfile.mkdtemp(prefix="fedward-handbooks-"))
    names = [
        "gateway",
        "superlink",
        "page ",
        *(f"page {site}" for site in SITES),
        *(f"runtime {site}" for site in SITES),
    ]
    told = Story(place, dict(zip(names, free_ports(len(names)), strict=True)))
    told.post.mkdir()
    (place / "bin").mkdir()
    for program, module in MODULES.items():
        script = place / "bin" / program
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        script.chmod(0o755)
    yield told
    for name in list(told.running):
        told.running[name].terminate()
    for name in list(told.running):
        told.end(name)
    shutil.rmtree(place)


@pytest.mark.slow
def test_every_command_of_both_handbooks_works_in_their_order(story):
    scans = ["phantoms", story.place / "scans", "--sites", 4, "--patients", 24, "--size-px", 32, "--labelled", 0.5]
    command = [sys.executable, "-m", "simulation", *map(str, scans), "--test-patients", "0"]
    subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_TIMEOUT_S)
    for block in sorted((block for block in blocks() if block.number), key=lambda block: block.number):
        began = time.monotonic()
        story.follow(block)
        print(f"{block.mark:<60} {time.monotonic() - began:6.1f} s", flush=True)

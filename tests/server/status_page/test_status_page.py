"""The coordinator's status page: real process, real socket, a study that runs, and a browser where there is one."""

import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from typer.testing import CliRunner

from common.web.door import page_address
from common.web.page_token import read_page_token
from common.web.prometheus import exposition
from server.__main__ import app
from server.deployment.endings import write_ending
from server.status_page.facts import Studies, StudyReader, UnreadableStudy
from server.status_page.federation import federation_metrics, federation_section
from server.status_page.page import overview, study_page
from server.study.events import LoggedEvents, RunState
from server.study.folder import StudyLock
from server.study.live_status import LiveFile, LiveStatus, is_running, read_live_status
from simulation.runtime.faults import Fault, Trouble
from tests.browser import CHROMIUM, as_browsed

PATIENT = {"timing": {"training_timeout_s": 300.0, "stage_timeout_s": 300.0}}
DROPOUTS = (
    Fault(Trouble.DROP, sites=("site-2",), actions=("forward",), attempts=(1,)),
    Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=("keylist",), attempts=(2,)),
)


class PageProcess:
    """``python -m server.status_page`` on a free port."""

    def __init__(self, folder) -> None:
        command = [sys.executable, "-m", "server.status_page", "--folder", str(folder), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(re.search(r":(\d+)/", self.process.stdout.readline()).group(1))
        self.token = read_page_token(folder / "page.token")

    def get(self, path: str, *, with_token: bool = True) -> str:
        headers = {"Authorization": f"Bearer {self.token.text}"} if with_token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def in_browser(self, profile) -> str:
        """The page as a browser has built it."""
        return as_browsed(page_address(self.port, self.token), profile, "--virtual-time-budget=5000")


class Held(LoggedEvents):
    """Holds the run in its third attempt, while the sites exchange keys, until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go, self.attempt = threading.Event(), threading.Event(), 0

    def on_attempt(self, start) -> None:
        self.attempt = start.attempt

    def on_stage(self, asked, sites, timeout_s) -> None:
        if self.attempt == 3 and asked == "keylist":
            self.reached.set()
            assert self.go.wait(300)


@pytest.fixture
def federation(make_federation):
    return make_federation(short={"rounds": 2, "maximum_attempts": 9}, **PATIENT)


def test_the_page_shows_a_running_study_and_its_end(federation, tmp_path):
    held, ended = Held(), []
    watched = LiveFile(federation.study, held)
    thread = threading.Thread(target=lambda: ended.append(federation.run(*DROPOUTS, events=watched)))
    thread.start()
    page = PageProcess(federation.study)
    try:
        assert held.reached.wait(120)
        shown = page.get("/study/study")
        assert "running" in shown
        assert "attempt 3: hospitals are exchanging keys (0 of 4 have answered)" in shown
        assert "4 of 4</b><span>hospitals are there now" in shown
        assert "1 of 3</b><span>rounds applied" in shown
        assert "site-2, attempt 1, round 1: asked, then dropped out" in shown
        assert "site-3, attempt 2, round 2: asked, the attempt was given up" in shown
        assert "C.too_few" in shown
        if CHROMIUM:
            built = page.in_browser(tmp_path / "browser")
            assert "A small study" in built
            assert "attempt 3: hospitals are exchanging keys" in built
        metrics = page.get("/metrics")
        assert 'fedward_study_running{study="small"} 1' in metrics
        assert 'fedward_study_attempts_aborted_total{study="small"} 1' in metrics
        assert 'fedward_site_dropped_out_total{study="small",site="site-2"} 1' in metrics
        assert str(federation.path) not in metrics + shown
        held.go.set()
        thread.join(120)
        assert ended[0].state is RunState.FINISHED
        assert "finished" in page.get("/study/study")
        assert 'fedward_study_running{study="small"} 0' in page.get("/metrics")
        assert page.get("/readyz", with_token=False) == "ready\n"
        for path in ("/", "/study/study", "/metrics", "/page.css", "/nothing"):
            with pytest.raises(urllib.error.HTTPError, match="401") as refused:
                page.get(path, with_token=False)
            assert refused.value.read() == b""
    finally:
        held.go.set()
        page.process.terminate()
        assert page.process.wait(20) in {0, -15}
    if not CHROMIUM:
        pytest.skip("all but the browser's part passed: no Chromium on this machine")


def test_a_study_that_never_ran_has_a_page(federation):
    facts = StudyReader(federation.study).read()
    shown = study_page("lungs", facts, None, alone=False)
    for words in ("not started", "never started", "no model has been scored yet", "promises nothing to a patient"):
        assert words in shown


def test_scores_and_epsilon_are_on_the_page_with_their_intervals(federation):
    federation.run()
    reader = StudyReader(federation.study)
    facts = reader.read()
    shown = study_page("lungs", facts, reader.epsilon_seen_by(facts.plan), alone=False)
    assert "<title>after 2 rounds: AUC 0.800 (" in shown
    assert "most ε about one patient (δ = 0.0001)" in shown
    assert facts.plan.digest() in shown


def test_what_did_not_change_is_not_read_again(federation):
    federation.run()
    reader = StudyReader(federation.study)
    assert reader.read().attempts is reader.read().attempts


def test_the_overview_lists_good_and_broken_studies(federation, tmp_path):
    studies = tmp_path / "folder" / "studies"
    studies.mkdir(parents=True)
    shutil.copytree(federation.study, studies / "good")
    shutil.copytree(federation.study, studies / "broken")
    (studies / "broken" / "study.toml").write_text("nonsense = 1\n")
    found = Studies(tmp_path / "folder")
    assert isinstance(found.all()[0], UnreadableStudy)
    shown = overview("lungs", found.all())
    assert 'href="/study/good"' in shown
    assert "cannot be read" in shown
    assert found.reader("../good") is None


def test_whether_a_study_runs_is_seen_without_taking_its_lock(federation):
    folder = StudyReader(federation.study).read().study.folder
    assert is_running(federation.study) is False
    lock = StudyLock(folder)
    assert is_running(federation.study) is True
    lock.release()
    assert is_running(federation.study) is False


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"doing": 1}', b"\xff", b"null"])
def test_a_damaged_live_file_shows_nothing_and_breaks_nothing(federation, content):
    (federation.study / "live.json").write_bytes(content)
    assert read_live_status(federation.study) is None
    assert StudyReader(federation.study).read().live is None


def test_a_folder_that_cannot_be_written_does_not_disturb_the_run(tmp_path):
    gone = LiveFile(tmp_path / "gone", LoggedEvents())
    gone.on_waiting(1, 3)
    assert read_live_status(tmp_path / "gone") is None
    there = LiveFile(tmp_path, LoggedEvents())
    there.on_waiting(1, 3)
    found = read_live_status(tmp_path)
    times = {"unix_s": found.unix_s, "since_unix_s": found.since_unix_s}
    assert found == LiveStatus(doing="waiting", online=1, needed=3, **times)


def test_a_federation_shows_its_hospitals_and_which_programs_run(tmp_path):
    folder = tmp_path / "federation"
    words = ["init", str(folder), "--federation", "lungs", "--address", "localhost:8443"]
    assert CliRunner().invoke(app, words).exit_code == 0
    shown = federation_section(folder)
    assert shown.count("does not run") == 3
    assert "days left" in shown
    assert "No roster is signed yet" in shown
    (folder / "state").mkdir(exist_ok=True)
    (folder / "state" / "gateway.pid").write_text(f"{os.getpid()}\n")
    assert federation_section(folder).count("does not run") == 2
    metrics = exposition(federation_metrics(folder))
    assert 'fedward_program_running{program="gateway"} 1\n' in metrics
    assert 'fedward_program_running{program="superlink"} 0\n' in metrics
    assert re.search(r"fedward_gateway_certificate_days \d{3}", metrics)
    assert federation_metrics(tmp_path) == []
    (folder / "coordinator.key").unlink()
    assert "Needs attention" in federation_section(folder)
    assert federation_section(tmp_path) is None


def test_a_study_that_ended_says_how_and_one_that_is_wanted_says_so(federation):
    write_ending(federation.study, RunState.NO_COHORT, "too few sites came")
    facts = StudyReader(federation.study).read(frozenset({"site-1"}))
    assert "too few sites came" in study_page("lungs", facts, None, alone=False)
    assert facts.sites_online() == {"site-1"}
    (federation.study / "wanted").touch()
    (federation.study / "ended.json").unlink()
    assert "it starts as soon as" in study_page("lungs", StudyReader(federation.study).read(), None, alone=False)

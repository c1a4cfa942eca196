"""Engines are tried before a study's first order, in a process of its own; an attempt never waits for it."""

import errno
import json
import time

import pytest
import torch

from client.agent.progress import ProgressFeed
from client.agent.watched_site import WatchedSite
from client.consent.approval import approved_plans
from client.errors import TrainerFailedError
from client.installation.config import SpeedSection
from client.installation.folder import SiteFolder
from client.learning.speed import Speed
from client.private_gradients.budget import Budget
from client.private_gradients.settings import EngineName, SpeedSettings
from client.private_gradients.verdict import RememberedVerdicts
from client.trainer.__main__ import Trainer
from client.trainer.measuring import measure_engines, sentence_of
from client.trainer.warm_up import WarmUp
from common.control.site_control_pb2 import Step
from common.plan.shapes_here import shapes_here


@pytest.fixture
def checked(copied):
    folder = SiteFolder(copied / "north")
    folder.state.mkdir()
    return folder, list(approved_plans(folder).values())


def warmed_up(folder, studies, *, meanwhile=lambda child: None, device="cpu"):
    """Look until it is over; return what was told."""
    told: list[tuple[str, int | None]] = []
    warm_up = WarmUp(folder, SpeedSection(device=device), lambda *what: told.append(what))
    end = time.monotonic() + 120
    while not told or told[-1][1] is not None:
        assert time.monotonic() < end
        warm_up.look(studies)
        if warm_up._child is not None:
            meanwhile(warm_up._child)
        time.sleep(0.05)
    warm_up.look(studies)
    assert not warm_up.is_busy, "once is enough"
    return told


@pytest.mark.slow
def test_a_plan_s_engines_are_on_disk_before_its_first_order_and_the_time_left_was_told(checked):
    folder, (study,) = checked
    told = warmed_up(folder, [study])
    assert told[0] == (study.plan.digest(), 20)
    formats = [json.loads(file.read_text())["format"] for file in folder.engines.iterdir()]
    assert "fedward-engine/1" in formats
    assert set(formats) == {"fedward-engine/1", "fedward-memory/1"}, "and what one patient takes"


def killed(child):
    child.kill()


def test_a_process_that_is_killed_meanwhile_is_one_sentence_and_nothing_else(checked, caplog):
    folder, (study,) = checked
    assert warmed_up(folder, [study], meanwhile=killed) == [(study.plan.digest(), None)]
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("fedward")]
    assert said.startswith(f"no engine was chosen for plan {study.plan.digest()[:12]}: its process ended")
    assert said.endswith("one patient at a time")
    assert not folder.engines.exists()


LACKING = {
    "no room for a verdict": (
        OSError(errno.ENOSPC, "No space left on device", "/site/engines/x.json"),
        "the disk is full",
    ),
    "over the quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
    "a folder to be read only": (OSError(errno.EROFS, "Read-only file system"), "the system does not let this user"),
    "a folder of somebody else's": (
        PermissionError(errno.EACCES, "Permission denied"),
        "the system does not let this user",
    ),
    "a fault of ours": (KeyError("Meyer"), "KeyError at "),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_ends_the_choice_of_engines_is_said_in_a_sentence_without_the_exception_s_text(case):
    error, begins = LACKING[case]
    said = sentence_of(error, "cpu")
    assert said.startswith(begins)
    assert "Meyer" not in said
    assert "/site" not in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_goes_while_engines_are_tried_is_named():
    said = sentence_of(RuntimeError("CUDA error: unspecified launch failure"), "cuda:0")
    assert said.startswith("cuda:0 cannot compute: the GPU or its driver is gone")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_gone_is_one_sentence_and_nothing_is_charged(checked, caplog):
    folder, (study,) = checked
    before = folder.ledger.read_bytes() if folder.ledger.exists() else None
    warmed_up(folder, [study], device="cuda")
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("fedward")]
    assert said.startswith("no engine was chosen for plan")
    assert "cuda cannot compute: the GPU or its driver is gone" in said
    assert (folder.ledger.read_bytes() if folder.ledger.exists() else None) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_the_trainer_opens_no_study_on_a_gpu_that_is_gone(checked, device):
    folder, (study,) = checked
    question = {"plan": study.plan.canonical(), "site": study.site_id}
    with pytest.raises(TrainerFailedError, match=f"{device} cannot compute: .* set device = .cpu. in site.toml"):
        Trainer(folder, Speed(device=device)).open(question)


@pytest.mark.slow
def test_a_folder_that_takes_no_file_is_one_sentence(checked, caplog):
    folder, (study,) = checked
    folder.engines.write_text("a file where the folder should be")
    warmed_up(folder, [study])
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("no engine was chosen for plan")


def test_no_order_tries_an_engine_measured_or_not(rounds, study, sites, monkeypatch):
    def tried(*_, **__):
        raise AssertionError("an engine was tried inside an attempt")

    monkeypatch.setattr("client.private_gradients.engine.choose", tried)
    opened = rounds.run(rounds.begin(study), sites)
    assert opened.participants == rounds.names


def test_equal_hospitals_are_measured_once(checked):
    _, (study,) = checked
    verdicts, budgets = RememberedVerdicts(), []
    speed = Speed(gradients=SpeedSettings(EngineName.BOOK_KEEPING))
    for site in study.plan.sites:
        budgets.append(Budget())
        measure_engines(study.plan, site, speed, verdicts, budget=budgets[-1])
    assert budgets[0].spent_s > 0
    assert [budget.spent_s for budget in budgets[1:]] == [0] * (len(budgets) - 1)


def test_the_agent_says_that_it_measures_and_how_long_at_most(checked):
    folder, _ = checked
    feed = ProgressFeed()
    site = WatchedSite(folder, SpeedSection(), feed, shapes_here)
    try:
        site._measuring("ab" * 32, 14)
        assert (feed.last.step, feed.last.left_s) == (Step.STEP_MEASURING, 14)
        site._measuring("ab" * 32, None)
        assert feed.last.step == Step.STEP_MEASURED
    finally:
        site.close()

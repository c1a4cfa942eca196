"""A hospital's staff are told when a released model does worse on their own held-out patients."""

import stat

import numpy as np
import pytest

from client.agent.site_status import worse_models
from client.final_model.own_scores import note_own_score as note
from client.final_model.own_scores import own_score, read_own_scores, why_worse
from client.installation.folder import SiteFolder
from common.privacy.metrics import UNITS_PER_PATIENT, CountKind, CountLayout

TWO = CountLayout(CountKind.CLASSIFICATION, 2, 8)
DICE = CountLayout(CountKind.SEGMENTATION, 2, 8)
PLAN = "ab" * 32


def counts(right, wrong):
    """Of each class: patients scored on the right side of one half, and on the wrong one."""
    vector = np.zeros(TWO.length)
    TWO.tables(vector)["histograms"][0] = [[0, right, 0, 0, 0, 0, wrong, 0], [0, wrong, 0, 0, 0, 0, right, 0]]
    return (vector * UNITS_PER_PATIENT).astype(np.int64)


def dice(total, patients):
    return np.array([total * UNITS_PER_PATIENT, patients * UNITS_PER_PATIENT], np.int64)


COURSES = {
    "one score says nothing": ([(40, 10)], False),
    "better and better": ([(25, 25), (35, 15), (45, 5)], False),
    "within the error": ([(42, 8), (40, 10)], False),
    "far worse than the best before": ([(25, 25), (45, 5), (25, 25)], True),
    "worse and then as good again": ([(45, 5), (25, 25), (44, 6)], False),
}


@pytest.mark.parametrize("course", COURSES)
def test_staff_are_told_when_the_newest_model_is_clearly_worse_than_an_earlier_one(course, tmp_path):
    scores, is_told = COURSES[course]
    folder = SiteFolder(tmp_path)
    path = folder.own_scores(PLAN)
    for number, (right, wrong) in enumerate(scores, start=1):
        note(path, TWO, counts(right, wrong), phase=0, round_number=number)
    assert bool(why_worse(read_own_scores(path))) is is_told
    told = worse_models(folder, [PLAN, "cd" * 32])
    assert set(told) == ({PLAN} if is_told else set())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_figure_is_exact_and_too_few_patients_give_none(tmp_path):
    score, error = own_score(TWO, counts(40, 10))
    assert score == pytest.approx(0.8)
    assert 0 < error < 0.1
    assert own_score(TWO, counts(5, 4)) is None
    assert own_score(DICE, dice(15, 20))[0] == 0.75
    assert own_score(DICE, dice(5, 9)) is None
    note(tmp_path / "scores", TWO, counts(5, 4), phase=0, round_number=1)
    assert not (tmp_path / "scores").exists()


def test_a_damaged_line_or_a_full_disk_costs_a_score_and_nothing_else(tmp_path):
    path = tmp_path / "scores"
    note(path, TWO, counts(40, 10), phase=0, round_number=1)
    path.write_bytes(b"{broken\n" + path.read_bytes() + b'{"phase": 1}\n')
    assert [each.round_number for each in read_own_scores(path)] == [1]
    (tmp_path / "file").touch()
    note(tmp_path / "file" / "scores", TWO, counts(40, 10), phase=0, round_number=1)
    assert read_own_scores(tmp_path / "file" / "scores") == []

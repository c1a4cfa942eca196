"""Kept figures save the accountant's time, and nobody but this installation can put one there."""

import json
import os
import subprocess
import sys

import pytest

from common.plan.figure_file import FigureFile, figures_in
from common.plan.reading import read_plan
from common.privacy import accounting, kept_figures
from common.privacy.accounting import SampledGaussian, epsilon
from server.commands.plan import checked_summary

HISTORY = [SampledGaussian(0.2, 1.4, 100)]
DELTA = 1e-5


@pytest.fixture
def count(monkeypatch):
    """Count what the accountant composes; its memory within a process is emptied."""
    composed = []
    compute = accounting._composed
    monkeypatch.setattr(accounting, "_composed", lambda *asked: composed.append(asked) or compute(*asked))
    accounting._epsilon.cache_clear()
    yield composed
    accounting._epsilon.cache_clear()


def asked_again(folder):
    accounting._epsilon.cache_clear()
    with figures_in(folder):
        return epsilon(HISTORY, DELTA)


def test_the_same_question_is_computed_once(count, tmp_path):
    first = asked_again(tmp_path / "figures")
    computed = len(count)
    assert computed > 0
    assert asked_again(tmp_path / "figures") == first
    assert len(count) == computed
    assert (tmp_path / "figures" / "figures.json").stat().st_mode & 0o077 == 0


def test_without_a_folder_everything_is_computed(count):
    assert asked_again(None) == asked_again(None)
    assert len(count) >= 2


def test_another_question_is_another_answer(count, tmp_path):
    with figures_in(tmp_path):
        assert epsilon(HISTORY, 1e-5) < epsilon(HISTORY, 1e-6) < epsilon([SampledGaussian(0.2, 1.2, 100)], 1e-6)


def lower_every_figure(folder):
    file = folder / "figures.json"
    file.write_text(json.dumps({key: [0.1, tag] for key, (_, tag) in json.loads(file.read_text()).items()}))


def swap_answers(folder):
    """The tag of a cheap history's figure under the name of the dear one."""
    accounting._epsilon.cache_clear()
    with figures_in(folder):
        epsilon([SampledGaussian(0.01, 50.0, 1)], DELTA)
    file = folder / "figures.json"
    known = json.loads(file.read_text())
    cheap = min(known.values(), key=lambda entry: entry[0])
    file.write_text(json.dumps(dict.fromkeys(known, cheap)))


def sign_with_another_key(folder):
    (folder / "figures.key").unlink()
    other = FigureFile(folder)
    question_keys = list(json.loads((folder / "figures.json").read_text()))
    forged = {key: [0.1, other._tag(b"?", 0.1)] for key in question_keys}
    (folder / "figures.json").write_text(json.dumps(forged))


def text(content):
    return lambda folder: (folder / "figures.json").write_text(content)


def readable_by_all(folder):
    lower_every_figure(folder)
    (folder / "figures.json").chmod(0o644)


def a_link(folder):
    real = folder.parent / "elsewhere.json"
    (folder / "figures.json").rename(real)
    (folder / "figures.json").symlink_to(real)


POISON = {
    "every figure lowered": lower_every_figure,
    "another history's answer": swap_answers,
    "signed with another key": sign_with_another_key,
    "no JSON": text("{"),
    "a list": text("[]"),
    "nested without end": text("[" * 100_000),
    "entries of another form": lambda folder: text(
        json.dumps({key: {"epsilon": 0.1} for key in json.loads((folder / "figures.json").read_text())})
    )(folder),
    "far too large": text("[" + "0," * 200_000 + "0]"),
    "readable by everybody": readable_by_all,
    "a link": a_link,
    "a key that others can read": lambda folder: (folder / "figures.key").chmod(0o644),
    "no file": lambda folder: (folder / "figures.json").unlink(),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_a_figure_that_was_tampered_with_is_computed_again(poison, count, tmp_path):
    folder = tmp_path / "figures"
    true = asked_again(folder)
    poison(folder)
    assert asked_again(folder) == true


def test_a_figure_of_another_version_of_the_accountant_answers_nothing(count, tmp_path, monkeypatch):
    asked_again(tmp_path)
    computed = len(count)
    monkeypatch.setattr(kept_figures, "_accountant", lambda: "another")
    asked_again(tmp_path)
    assert len(count) > computed


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(count, tmp_path):
    (tmp_path / "file").write_text("")
    assert asked_again(tmp_path / "file" / "figures") == asked_again(None)


def test_a_plan_that_was_checked_before_needs_no_accountant(signed_plan, tmp_path):
    code = "import sys, runpy; sys.argv = ['s', 'plan', 'check', sys.argv[1], '--json']\ntry:\n"
    code += " runpy.run_module('server', run_name='__main__')\n"
    code += "finally:\n print([n for n in ('torch', 'dp_accounting', 'opacus') if n in sys.modules], file=sys.stderr)"
    loaded = []
    for _ in range(2):
        done = subprocess.run(
            (sys.executable, "-c", code, str(signed_plan)), capture_output=True, text=True, check=True,
            env=dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache")),
        )  # fmt: skip
        loaded.append(done.stderr.strip().splitlines()[-1])
    assert loaded == ["['dp_accounting']", "[]"]


def test_nothing_that_lies_beside_a_plan_is_read(signed_plan):
    """A coordinator could send any file with the plan: none but the plan and its signature is opened."""
    for name in ("figures.json", "figures.key", "study.toml.guarantee", "figures"):
        (signed_plan.parent / name).write_text('{"epsilon": 0.1}')
    assert checked_summary(read_plan(signed_plan), "plan")["privacy"]["bought"]["epsilon"] > 7

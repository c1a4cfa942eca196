"""The accuracy experiment on an archive that is made here: rows, features kept, and that a budget costs accuracy."""

import json
import math

import numpy as np
import pytest

from simulation.experiments import accuracy
from simulation.experiments.accuracy import Cell, cell_auc
from simulation.experiments.feature_sets import Part, Parts, features_of, read_parts
from simulation.experiments.private_heads import METHODS


def made_up_features(seed=0, count=600, features=20, classes=3):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, features))

    def part(size):
        numbers = random.integers(0, classes, size)
        values = centres[numbers] + 0.8 * random.normal(size=(size, features)) + 2
        return Part(values.astype(np.float32), numbers.astype(np.int64))

    return Parts(part(count), part(200), part(200))


@pytest.fixture(scope="module")
def parts():
    return made_up_features()


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_what_is_easy_and_less_of_it_for_less_budget(method, parts):
    open_auc, tight = (
        np.mean([cell_auc(parts, parts.test, Cell(0.2, epsilon, method), seed=seed) for seed in range(3)])
        for epsilon in (math.inf, 0.1)
    )
    assert open_auc > 0.95
    assert tight < open_auc - 0.05


def test_equal_seeds_give_equal_draws(parts):
    cell = Cell(0.2, 2.0, "ridge")
    assert cell_auc(parts, parts.test, cell, seed=1) == cell_auc(parts, parts.test, cell, seed=1)
    assert cell_auc(parts, parts.test, cell, seed=1) != cell_auc(parts, parts.test, cell, seed=2)


@pytest.fixture
def archive(tmp_path):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 900).astype(np.uint8)
    images = (random.integers(0, 60, (900, 8, 8)) + 90 * labels[:, None, None]).astype(np.uint8)
    path = tmp_path / "made-up.npz"
    np.savez(path, images=images, labels=labels)
    return path


def test_the_command_prints_one_row_for_each_cell(archive, tmp_path, capsys, monkeypatch):
    given = ["--labels", "0.1,0.5", "--epsilon", "8,inf", "--methods", "ridge,supervised_head", "--seeds", "2"]
    monkeypatch.setattr("sys.argv", ["accuracy", "--data", str(archive), *given, "--kept", str(tmp_path), "--json"])
    assert accuracy.main() == 0
    said = json.loads(capsys.readouterr().out)
    assert [(row["labels"], row["epsilon"], row["method"]) for row in said["rows"]] == [
        (labels, epsilon, method)
        for labels in (0.1, 0.5)
        for epsilon in (8.0, None)
        for method in ("ridge", "supervised_head")
    ]
    assert set(said["rows"][0]) == {"labels", "epsilon", "method", "encoder", "seeds", "auc", "auc_sd"}
    assert all(row["auc"] > 0.9 and row["seeds"] == 2 for row in said["rows"])


def test_features_are_computed_once(archive, tmp_path, monkeypatch):
    images = read_parts(archive)
    first = features_of(images, archive, encoder=None, card=None, kept=tmp_path / "kept")
    monkeypatch.setattr("simulation.experiments.feature_sets._small_cnn", lambda: pytest.fail("computed again"))
    again = features_of(images, archive, encoder=None, card=None, kept=tmp_path / "kept")
    np.testing.assert_array_equal(first.train.values, again.train.values)
    assert len(images.validation.classes) >= 100
    assert first.train.values.shape == (len(images.train.classes), 112)


def test_an_unknown_method_is_answered_with_the_known_ones(archive, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["accuracy", "--data", str(archive), "--methods", "magic"])
    with pytest.raises(SystemExit):
        accuracy.main()
    assert "magic is no method; choose from: supervised_head" in capsys.readouterr().err

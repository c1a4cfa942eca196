"""The fuzz run: its seeds are good, and so mutations get past the first look; a parser that breaks is found."""

import json
import random

import pytest
from typer.testing import CliRunner

from simulation.hostile import fuzz
from simulation.hostile.fuzz import app, mutated, parsers

FED = parsers()


@pytest.mark.parametrize("name", FED)
def test_each_parser_takes_its_good_inputs(name, tmp_path):
    parse, seeds = FED[name]
    found = [parse(seed, tmp_path) for seed in seeds]
    assert found
    if name == "image":
        assert found.count(None) > len(found) // 2  # a code is a refusal; some transfer syntaxes have no DX form


def test_mutations_differ_stay_small_and_are_the_same_for_one_seed():
    drawn = [mutated(b"x" * 100, random.Random(seed)) for seed in range(50)]
    assert len(set(drawn)) > 40
    assert max(map(len, drawn)) <= fuzz.MAX_BYTES
    assert drawn == [mutated(b"x" * 100, random.Random(seed)) for seed in range(50)]


def test_a_few_seconds_of_it_find_nothing():
    done = CliRunner().invoke(app, ["--minutes", "0.1", "--seed", "7", "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["findings"]) == (0, {})
    assert min(found["tried"].values()) > 0


def test_a_parser_that_breaks_is_a_finding_and_the_run_exits_1(monkeypatch):
    monkeypatch.setattr(fuzz, "parsers", lambda: {"broken": (lambda content, _: {}[content], [b"x"])})
    done = CliRunner().invoke(app, ["--minutes", "0.005", "--json"])
    assert done.exit_code == 1
    assert list(json.loads(done.stdout)["findings"]) == ["broken: KeyError"]

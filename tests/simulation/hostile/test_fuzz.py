"""The fuzz run: its seeds are good, and so mutations get past the first look; a parser that breaks is found."""

import json
import random
from contextlib import suppress

import pytest
from typer.testing import CliRunner

from simulation.hostile import fuzz
from simulation.hostile.fuzz import app, mutated, parsers

DEEP, LONG = b"[" * 5000, b"9" * 400
# what broke a parser once: its name, and what was made of a good input
BROKE = [
    ("agent: claim", lambda _: DEEP),
    ("cache: header", lambda _: DEEP),
    ("site: training faults", lambda _: DEEP),
    ("site: training faults", lambda good: good.replace(b'"time_s": 1', b'"time_s": null')),
    ("site: own scores", lambda good: DEEP + b"\n" + good),
    ("site: own scores", lambda good: good + good.replace(b"0.8", b'"x"')),
    ("site: own scores", lambda good: good + good.replace(b"0.8", LONG)),
    ("site: teacher", lambda good: (5000).to_bytes(8, "little") + DEEP),
    ("study: live status", lambda _: DEEP),
    ("study: ending", lambda _: DEEP),
    ("study: ending", lambda good: good.replace(b'"unix_s": 1', b'"unix_s": 1' + LONG).replace(b".", b"1")),
    ("authority's key", lambda good: good[:60]),
    ("ledger", lambda good: good.replace(b'{"', b"\xff\xfe", 1)),
    ("ledger: anchor", lambda good: good.replace(b'"number":', b'"number":Infinity,"x":')),
    ("site: journal", lambda good: good[:100] + b"\xff" * 200 + good[300:]),
    ("site: journal", lambda good: b"no database" * 10),
    ("study: journal", lambda good: good[:100] + b"\xff" * 200 + good[300:]),
    ("study: journal", lambda good: good.replace(b'["east", "north"]', b'["east", "north"[')),
    ("study: journal", lambda good: good.replace(b"mutual", b"nobody")),
]


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    return parsers(tmp_path_factory.mktemp("good"))


def test_each_parser_takes_its_good_inputs(fed, tmp_path):
    for name, (parse, seeds) in fed.items():
        found = [parse(seed, tmp_path) for seed in seeds]
        assert found, name
        if name == "image":
            assert found.count(None) > len(found) // 2  # a code is a refusal; some transfer syntaxes have no DX form
        elif name.startswith(("series", "mask")):
            assert not any(found), name
        elif name == "page: request":
            assert [answer[9:12] for answer in found] == [b"400", b"200", b"404", b"200"]
        elif name == "gateway: request":
            assert [answer[9:12] for answer in found] == [b"200", b"200", b"200", b"411", b""]


@pytest.mark.parametrize(("name", "broken"), BROKE)
def test_what_broke_a_parser_once_is_refused_or_read_as_nothing(fed, tmp_path, name, broken):
    parse, seeds = fed[name]
    content = broken(seeds[0])
    assert content != seeds[0]
    with suppress(*fuzz.REFUSALS):
        parse(content, tmp_path)


def test_mutations_differ_stay_small_and_are_the_same_for_one_seed():
    drawn = [mutated(b"x" * 100, random.Random(seed)) for seed in range(50)]
    assert len(set(drawn)) > 40
    assert max(map(len, drawn)) <= fuzz.MAX_BYTES
    assert drawn == [mutated(b"x" * 100, random.Random(seed)) for seed in range(50)]


def test_a_few_seconds_of_it_find_nothing(fed, monkeypatch):
    monkeypatch.setattr(fuzz, "parsers", lambda _: fed)  # made once
    done = CliRunner().invoke(app, ["--minutes", "0.1", "--seed", "7", "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["findings"]) == (0, {})
    assert min(found["tried"].values()) > 0


def test_a_parser_that_breaks_is_a_finding_and_the_run_exits_1(monkeypatch):
    monkeypatch.setattr(fuzz, "parsers", lambda _: {"broken": (lambda content, _: {}[content], [b"x"])})
    done = CliRunner().invoke(app, ["--minutes", "0.005", "--json"])
    assert done.exit_code == 1
    assert list(json.loads(done.stdout)["findings"]) == ["broken: KeyError"]

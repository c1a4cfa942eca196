"""The fuzz run: its seeds are good, and so mutations get past the first look; a parser that breaks is found."""

import base64
import io
import json
import random
import zipfile
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
    ("node key", lambda good: changed_inside(good, b"\0\0\0\x61\x04", b"\0\0\0\x61\x02")),  # a compressed point
    ("public images", lambda good: good[:80] + bytes([good[80] ^ 255]) * 40 + good[120:]),  # zlib.error
    ("public images", lambda _: zipped({"images.npy": b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((\n"})),  # TokenError
    ("release: zip", lambda good: good.replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\xff")),
]


def changed_inside(key, former, new):
    """Return an OpenSSH secret key of whose content one part is another."""
    first, *lines, last = key.splitlines()
    content = base64.b64decode(b"".join(lines)).replace(former, new, 1)
    return first + b"\n" + base64.encodebytes(content) + last + b"\n"


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


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


def test_nothing_and_one_octet_are_no_hang(fed, tmp_path):
    for name in ("gateway: request", "page: request"):
        for content in (b"", b"P", b"\r\n"):
            assert fed[name][0](content, tmp_path)[9:12] in {b"", b"400"}


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

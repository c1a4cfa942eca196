import base64
import gzip
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import pytest

from client.dicom.cache import Cache
from client.dicom.cache_folder import open_folder
from client.dicom.segments import read_index
from simulation.hostile import codestreams, containers, headers, pixel_modules
from simulation.hostile.adversarial_dicom import write_cases
from simulation.hostile.canaries import plant, plant_in_bad_files, plant_series
from simulation.hostile.canary_scan import CanaryScanner

PLAN = """
[task]
kind = "classification"
classes = ["normal", "lesion"]
modalities = ["CT"]
dimensions = 2

[image]
size_px = [32, 32]
intensity = "ct_window"
window_hu = [0, 2048]
"""
VOLUME_PLAN = """
[task]
kind = "segmentation"
classes = ["background", "lesion"]
modalities = ["CT"]
dimensions = 3

[image]
size_px = [8, 64, 64]
spacing_mm = [2.5, 1.0, 1.0]
intensity = "ct_window"
window_hu = [0, 2048]
"""
CHEAP = (*headers.CASES, *pixel_modules.CASES, *codestreams.SIZES, *codestreams.ITEMS, *containers.CASES[10:24])


@pytest.fixture(scope="module")
def site(tmp_path_factory, repository):
    """A hospital whose scans, bad files and label table are full of canaries, ingested by the real command."""
    home = tmp_path_factory.mktemp("site")
    planted = plant(home, seed=4)
    write_cases(home / "scans" / "bad", CHEAP)
    bad = plant_in_bad_files(home / "scans" / "bad", planted)
    prepare(home, PLAN)
    return home, planted, bad, run_ingest(home, repository, "labels.csv")


@pytest.fixture(scope="module")
def volume_site(tmp_path_factory, repository):
    """The same for a study of volumes: a series, and an expert's segmentation of it."""
    home = tmp_path_factory.mktemp("volumes")
    planted = plant_series(home, seed=5)
    prepare(home, VOLUME_PLAN)
    return home, planted, run_ingest(home, repository, "labels.csv")


def prepare(home: Path, plan: str) -> None:
    (home / "study.toml").write_text(plan)
    (home / "site.secret").write_bytes(secrets.token_bytes(32))
    (home / "site.secret").chmod(0o600)
    (home / "temporary").mkdir()


def run_ingest(home: Path, repository: Path, labels: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"TMPDIR": str(home / "temporary"), "HOME": str(home / "temporary")}
    command = [sys.executable, "-m", "client", *options, "ingest", str(home / "scans"), "--labels", str(home / labels)]
    command += ["--plan", str(home / "study.toml"), "--site-folder", str(home), "--json"]
    return subprocess.run(command, capture_output=True, cwd=repository, env=environment, timeout=300, check=False)


def sightings(planted, *places) -> list[str]:
    """What was planted and found again, by where it was planted and where it was found (never by itself)."""
    scanner = CanaryScanner(planted.canaries)
    found = []
    for label, place in places:
        seen = scanner.scan(label, place) if isinstance(place, bytes) else scanner.scan_folder(place, label)
        found += [f"{planted.canaries[s.canary]} -> {s.place} ({s.spelling})" for s in seen]
    return found


def test_hundreds_of_identifiers_are_planted_in_files_that_are_taken_and_files_that_are_refused(site):
    _, planted, bad, finished = site
    report = json.loads(finished.stdout)
    assert len(planted.canaries) >= 1000
    assert bad >= 60
    assert report["accepted"] >= 3
    assert report["label_rows"]["matched"] == 3, "the images with canaries were read, and their labels found"
    assert sum(report["rejected"].values()) >= 60


def test_no_identifier_reaches_the_cache_the_output_or_a_temporary_file(site):
    home, planted, _, finished = site
    places = [("cache", home / "cache"), ("temporary", home / "temporary")]
    places += [("standard output", finished.stdout), ("standard error", finished.stderr)]
    assert sightings(planted, *places) == []


def test_no_identifier_of_a_series_or_its_segmentation_reaches_anything(volume_site):
    home, planted, finished = volume_site
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert (report["accepted"], report["labelled_patients"], report["rejected"]) == (9, 1, {})
    places = [("cache", home / "cache"), ("temporary", home / "temporary")]
    places += [("standard output", finished.stdout), ("standard error", finished.stderr)]
    assert len(planted.canaries) >= 1000
    assert sightings(planted, *places, *decrypted(home)) == []
    seen = {s.canary for s in CanaryScanner(planted.canaries).scan_folder(home / "scans", "scans")}
    assert len(seen) > 0.99 * len(planted.canaries), "the search does find them in the scans"


def test_no_identifier_is_in_the_decrypted_cache(site):
    home, planted, _, _ = site
    assert sightings(planted, *decrypted(home)) == []


def decrypted(home: Path) -> list[tuple[str, bytes]]:
    """Everything the cache holds, in plain: what whoever has the site secret could read."""
    secret = (home / "site.secret").read_bytes()
    folder = open_folder(home / "cache", secret)
    index = read_index(folder.segments, folder.vault)
    cache = Cache.open(home / "cache", secret)
    assert len(cache.records) >= 1
    entries = (
        [asdict(record) for record in cache.records],
        index.files,
        index.stacks,
        index.owners,
        dict(cache.patients()),
    )
    levels = b"".join(cache.read_levels(record.record_id).tobytes() for record in cache.records)
    return [("decrypted index", repr(entries).encode()), ("decrypted pixels", levels)]


def test_no_identifier_is_in_the_sentence_or_traceback_of_a_failure(site, repository):
    home, planted, _, _ = site
    table = (home / "labels.csv").read_text()
    damages = {
        "rounded.csv": table.replace("PatientID,", "PatientID,1.2E+11", 1).replace("1.2E+11", "1.2E+11,", 1),
        "unknown.csv": table.replace("lesion", planted.word("an unknown class")),
        "columns.csv": table.replace("key_type,key,label", "a,b,c"),
        "key.csv": table.replace("PatientID", planted.word("an unknown kind of key")),
        "quote.csv": table + '"' + planted.word("an open quote"),
        "encoding.csv": table,
    }
    for name, content in damages.items():
        (home / name).write_bytes(content.encode() + (b"\xff\xfe" if name == "encoding.csv" else b""))
        finished = run_ingest(home, repository, name, "--debug")
        assert finished.returncode == 41, name
        assert sightings(planted, ("output", finished.stdout + finished.stderr)) == [], name


def test_the_search_does_find_what_a_careless_copy_leaves(site, tmp_path):
    """The test that can fail: the same search over a plain copy of the folder sees every canary."""
    home, planted, _, _ = site
    shutil.copytree(home / "scans", tmp_path / "copy/scans", symlinks=True)
    shutil.copy(home / "labels.csv", tmp_path / "copy")
    seen = {s.canary for s in CanaryScanner(planted.canaries).scan_folder(tmp_path / "copy", "copy")}
    here = {canary for canary, place in planted.canaries.items() if not place.startswith("an ")}
    assert here - seen == set()


HIDING_PLACES = {
    "plain": lambda b: b,
    "UTF-16 little endian": lambda b: b.decode().encode("utf-16-le"),
    "UTF-16 big endian": lambda b: b.decode().encode("utf-16-be"),
    "base64": base64.b64encode,
    "base64 for addresses": base64.urlsafe_b64encode,
    "hexadecimal": lambda b: b.hex().encode(),
    "hexadecimal capitals": lambda b: b.hex().upper().encode(),
    "capitals": bytes.upper,
    "small letters": bytes.lower,
    "zlib": zlib.compress,
    "zlib, best": lambda b: zlib.compress(b, 9),
    "gzip": gzip.compress,
    "raw deflate": lambda b: zlib.compress(b, wbits=-15),
    "base64 inside zlib": lambda b: zlib.compress(base64.b64encode(b)),
    "hexadecimal inside gzip": lambda b: gzip.compress(b.hex().encode()),
}


@pytest.mark.parametrize("hiding_place", HIDING_PLACES)
def test_the_search_finds_a_canary_in_every_spelling_at_every_place(hiding_place):
    rng = random.Random(1)
    canary, other = "QWERTYUIOPLKJHG", "ZXCVBNMASDFGHJKL"
    scanner = CanaryScanner([canary, other])
    for before in range(9):
        text = b"a b+/?" * 3 + b"x" * before + canary.encode() + b"~~>" * before
        hidden = HIDING_PLACES[hiding_place](text)
        around = b"" if hiding_place == "raw deflate" else rng.randbytes(40 + before)
        assert {s.canary for s in scanner.scan("here", around + hidden + around)} == {canary}, before


def test_a_canary_too_short_to_be_told_from_chance_is_refused():
    with pytest.raises(ValueError, match="8 bytes"):
        CanaryScanner(["short"])

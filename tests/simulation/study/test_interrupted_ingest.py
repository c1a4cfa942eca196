import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace as changed

import pytest

from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.dicom.settings import IngestSettings
from simulation.hospitals.differences import Differences
from simulation.hospitals.phantom_hospitals import PhantomRequest, make_phantom_hospitals
from simulation.hostile import headers
from simulation.hostile.adversarial_dicom import write_cases
from simulation.hostile.ingest_verdicts import verdicts

SECRET = bytes(range(32))
SETTINGS = IngestSettings(
    kind="classification",
    classes=("normal", "consolidation"),
    modalities=("DX", "CT"),
    dimensions=2,
    size_px=(32, 32),
    intensity="percentiles",
)
FILES_IN_A_SEGMENT = 4
# What a real run does, with small segments, so that a kill falls between, in and after commits.
PROGRAM = f"""
import sys
from pathlib import Path
from client.dicom import segments
from client.dicom.ingest import ingest
from client.dicom.settings import IngestSettings
segments.COMMIT_FILES = {FILES_IN_A_SEGMENT}
settings = IngestSettings.model_validate_json(sys.argv[3])
labels = Path(sys.argv[1]).parent / "labels.csv"
ingest(Path(sys.argv[1]), Path(sys.argv[2]), settings=settings, secret=bytes(range(32)), labels=labels)
"""


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A hospital of 120 radiographs and some bad files."""
    out = tmp_path_factory.mktemp("interrupted") / "out"
    request = PhantomRequest(patients=120, size_px=32, test_patients=0)
    make_phantom_hospitals(out, request, Differences(sites=1, labelled_share=0.3))
    folder = out / "hospital-1" / "scans"
    write_cases(folder / "0-bad", headers.KINDS)
    return folder


def start(scans, cache, repository) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, str(scans), str(cache), SETTINGS.model_dump_json()]
    return subprocess.Popen(command, cwd=repository, start_new_session=True)


def content(cache_path):
    """Records with their arrays, without the place where they lie (that may depend on the run)."""
    cache = Cache.open(cache_path, SECRET)
    anywhere = {"segment": 0, "offset": 0}
    return [(changed(r, **anywhere), cache.read_levels(r.record_id).tobytes()) for r in cache.records]


def committed(cache) -> int:
    return len(list(cache.rglob("*.index")))


def test_an_ingest_that_is_killed_again_and_again_ends_with_the_same_cache(scans, tmp_path, repository):
    labels = scans.parent / "labels.csv"
    ingest(scans, tmp_path / "whole", settings=SETTINGS, secret=SECRET, labels=labels)
    rng, cache, after_kills = random.Random(), tmp_path / "killed", []
    for segments in (0, 1, 8, 15):
        process = start(scans, cache, repository)
        while committed(cache) < segments and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        after_kills.append(committed(cache))
    assert start(scans, cache, repository).wait() == 0
    # On a busy machine a kill may come late; of four, two at least fell inside the work.
    assert sum(segments < committed(cache) for segments in after_kills) >= 2, "the kills left something to do"
    assert content(cache) == content(tmp_path / "whole")
    assert verdicts(scans, cache, SECRET) == verdicts(scans, tmp_path / "whole", SECRET)
    assert names(cache) == names(tmp_path / "whole"), "no half-written file stays"
    assert stems(cache, "shard") <= stems(cache, "index"), "every shard is committed (one of bad files only has none)"


def stems(cache, suffix) -> set[str]:
    return {path.stem for path in cache.rglob(f"*.{suffix}")}


def names(cache) -> set[str]:
    """Names of the cache's files but for the segments, of which one run has more than another."""
    return {path.name for path in cache.rglob("*") if path.suffix not in {".shard", ".index"}}


def test_what_is_compared_does_differ_when_a_file_differs(scans, tmp_path):
    """The test that can fail: one image less is one record less."""
    ingest(scans, tmp_path / "whole", settings=SETTINGS, secret=SECRET)
    victim = next(path for path in scans.rglob("*.dcm") if "0-bad" not in str(path))
    kept = victim.read_bytes()
    victim.unlink()
    try:
        ingest(scans, tmp_path / "less", settings=SETTINGS, secret=SECRET)
    finally:
        victim.write_bytes(kept)
    assert len(content(tmp_path / "less")) == len(content(tmp_path / "whole")) - 1

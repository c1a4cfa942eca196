"""`make audit`: advisories are read from a local copy, and none means that nothing was audited."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def audit(source):
    return subprocess.run(
        [sys.executable, ".ci/audit.py", str(source)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def advisory(name, *events):
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}]
    package = {"ecosystem": "PyPI", "name": name}
    return json.dumps({"id": "PYSEC-1", "summary": "bad", "affected": [{"package": package, "ranges": ranges}]})


def test_without_a_copy_a_sentence_says_what_to_fetch(tmp_path):
    done = audit(tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing was audited" in done.stderr
    assert "all.zip" in done.stderr


def test_an_empty_copy_is_no_clean_bill(tmp_path):
    assert audit(tmp_path).returncode == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"[1]", b"\xff"])
def test_a_copy_of_which_a_part_cannot_be_read_is_no_clean_bill(content, tmp_path):
    (tmp_path / "a.json").write_text(advisory("numpy", {"introduced": "999"}))
    (tmp_path / "b.json").write_bytes(content)
    done = audit(tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "damaged" in done.stderr


def test_a_file_that_is_no_zip_is_no_clean_bill(tmp_path):
    (tmp_path / "all.zip").write_bytes(b"no zip")
    assert (audit(tmp_path / "all.zip").returncode, audit(tmp_path).returncode) == (2, 2)


@pytest.mark.parametrize(
    ("events", "status"),
    [
        (({"introduced": "0"},), 1),
        (({"introduced": "0"}, {"fixed": "999"}), 1),
        (({"introduced": "0"}, {"fixed": "0.0.1"}), 0),
        (({"introduced": "0"}, {"last_affected": "0.0.1"}), 0),
        (({"introduced": "999"},), 0),
        (({"introduced": "0"}, {"fixed": "0.1"}, {"introduced": "0.2"}, {"fixed": "999"}), 1),
    ],
)
def test_a_version_in_an_advisorys_range_fails(events, status, tmp_path):
    (tmp_path / "one.json").write_text(advisory("Pillow", *events))
    done = audit(tmp_path)
    assert done.returncode == status, done.stderr
    assert ("pillow" in done.stdout) == bool(status)


def test_a_floor_that_allows_a_hole_fails_though_the_pin_is_sound(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("one.json", advisory("numpy", {"introduced": "0"}, {"fixed": "2.0.1"}))
    done = audit(tmp_path / "all.zip")
    assert done.returncode == 1
    assert "pyproject.toml: numpy 2.0" in done.stdout

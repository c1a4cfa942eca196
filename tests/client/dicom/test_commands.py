"""The commands as staff run them: site folder, JSON, exit codes."""

import json
import signal
import subprocess
import sys
import time

import pytest

from client.final_model import kept_score
from client.installation.config import default_site_config
from common.errors import ExitCode

PLAN = """
[task]
kind = "classification"
classes = ["normal", "lesion"]
modalities = ["CT"]
dimensions = 2

[image]
size_px = [32, 32]
intensity = "ct_window"
window_hu = [0.0, 4000.0]
"""


@pytest.fixture
def site(tmp_path, scan, repository):
    """A site folder with a secret, a plan, a folder of scans, and a way to run ``fedward-site``."""
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "labels.csv").write_text("key_type,key,label\nPatientID,P1,lesion\n")
    (tmp_path / "scans").mkdir()
    (tmp_path / "site").mkdir()
    for number in range(3):
        (tmp_path / "scans" / f"{number}.dcm").write_bytes(scan(number=number))

    def run(*arguments: str, typed: str = ""):
        return subprocess.run(
            [sys.executable, "-m", "client", *arguments],
            capture_output=True,
            text=True,
            input=typed,
            check=False,
            cwd=tmp_path,
            env={"PYTHONPATH": str(repository), "PATH": "/usr/bin", "OMP_NUM_THREADS": "1"},
        )

    assert run("keys", "secret", "site/site.secret").returncode == ExitCode.OK
    return run


def test_a_site_ingests_looks_at_its_data_and_lets_a_patient_opt_out(site, tmp_path):
    first = site("ingest", "scans", "--plan", "plan.toml", "--labels", "labels.csv", "--site-folder", "site", "--json")
    assert first.returncode == ExitCode.OK, first.stderr
    report = json.loads(first.stdout)
    assert (report["records"], report["labelled_patients"], report["rejected"]) == (3, 1, {})
    again = site("ingest", "scans", "--site-folder", "site", "--json")
    assert json.loads(again.stdout)["files_read"] == 0
    seen = site("data", "--site-folder", "site", "--contact-sheet", "sheet.png", "--json")
    assert json.loads(seen.stdout)["patients"] is None
    assert (tmp_path / "sheet.png").stat().st_mode & 0o777 == 0o600
    unknown = site("withdraw", "--site-folder", "site", typed="Px\n")
    assert "no record here is of this PatientID: look at the spelling, which was not shown" in unknown.stdout
    assert "Px" not in unknown.stdout + unknown.stderr
    kept = tmp_path / "site" / kept_score.FILE_NAME
    kept.write_bytes(b"a sealed score with slices of patients")
    gone = site("withdraw", "--site-folder", "site", "--json", typed="P1\n")
    assert not kept.exists(), "whoever opted out may be on a slice"
    assert json.loads(gone.stdout[gone.stdout.index("{") :]) == {"erased_records": 3, "persons": 1, "identities": 1}
    assert "P1" not in gone.stdout + gone.stderr
    empty = site("ingest", "scans", "--site-folder", "site")
    assert empty.returncode == ExitCode.NOTHING_USABLE
    assert "withdrawn" in empty.stdout


def test_a_table_in_the_hospitals_words_is_explained_by_map_or_by_the_site_settings(site, tmp_path):
    words = ["--plan", "plan.toml", "--labels", "own.csv", "--site-folder", "site", "--json"]
    (tmp_path / "own.csv").write_text("Pat-Nr;diagnosis\nP1;Pneumonie\n")
    unknown = site("ingest", "scans", *words, "--map", "Pat-Nr=PatientID", "--map", "diagnosis:o.B.=normal")
    assert unknown.returncode == ExitCode.LABELS_INVALID
    assert "'Pneumonie' 1" in " ".join(unknown.stderr.split())
    settings = default_site_config("north").replace(
        "map = []", 'map = ["Pat-Nr=PatientID", "diagnosis:Pneumonie=lesion"]'
    )
    (tmp_path / "site" / "site.toml").write_text(settings)
    mapped = site("ingest", "scans", *words)
    assert mapped.returncode == ExitCode.OK, mapped.stderr
    assert json.loads(mapped.stdout)["labelled_patients"] == 1


def test_errors_have_their_exit_codes_and_one_sentence(site, tmp_path):
    new = site("ingest", "scans", "--site-folder", "site")
    assert (new.returncode, "give --plan" in new.stderr) == (ExitCode.PLAN_INVALID, True)
    (tmp_path / "site" / "site.secret").chmod(0o644)
    exposed = site("ingest", "scans", "--plan", "plan.toml", "--site-folder", "site")
    assert exposed.returncode == ExitCode.KEY_EXPOSED
    nowhere = site("ingest", "scans", "--plan", "plan.toml")
    assert nowhere.returncode == ExitCode.FILE_UNREADABLE
    assert "Traceback" not in new.stderr + exposed.stderr + nowhere.stderr


SOME_RECORDS = 40_000  # bytes: some arrays are placed and noted, most are not


def test_the_keyboard_stops_an_ingest_at_once_and_keeps_what_was_read(site, tmp_path, scan, repository):
    for number in range(600):
        (tmp_path / "scans" / f"more{number}.dcm").write_bytes(scan(number=number + 10))
    command = [sys.executable, "-m", "client", "ingest", "scans", "--plan", "plan.toml", "--site-folder", "site"]
    environment = {"PYTHONPATH": str(repository), "PATH": "/usr/bin"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    segments = tmp_path / "site" / "cache" / "segments"
    while process.poll() is None and not any(part.stat().st_size > SOME_RECORDS for part in segments.glob("*.partial")):
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in said) == (130, False)
    rest = json.loads(site("ingest", "scans", "--site-folder", "site", "--json").stdout)
    assert 0 < rest["files_read"] < 603
    assert rest["records"] == 603

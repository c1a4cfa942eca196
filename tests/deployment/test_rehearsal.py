"""A whole deployment by the commands that people type: `fedward-sim rehearse`, also with kill -9 of every process."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

LONGEST_S = 1800
KEYS = {"ok", "sites", "rounds", "overhead_s_per_round", "steps"}
VICTIMS = ["SuperLink", "gateway", "ServerApp", "SuperNode", "agent", "trainer"]


def rehearse(repository, *options: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "simulation", "rehearse", *options, "--json"],
        capture_output=True, text=True, timeout=LONGEST_S, check=False,
        env=os.environ | {"PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_three_hospitals_enrol_approve_train_and_receive_the_model(repository):
    result = rehearse(repository, "--sites", "3", "--rounds", "2")
    assert result.keys() >= KEYS
    assert (result["ok"], result["sites"], result["rounds"]) == (True, 3, 3)  # the third scores the final model
    assert all(step["seconds"] >= 0 for step in result["steps"])
    assert result["books"]["ledger_events"] == 9
    assert len(result["model_sha256"]) == 64


def test_a_model_of_25_million_parameters_completes_its_rounds_in_bounded_memory(repository):
    """102 MB; six times that is 610 MB, libraries included."""
    result = rehearse(repository, "--width", "292", "--rounds", "1")
    six_times_mb, peak_mb, own_mb = 6 * 25_428_530 * 4 / 1e6, result["peak_mb"], result["own_mb"]
    of_sites = [name for name in peak_mb if name.endswith((" agent", " trainer"))]
    assert (result["ok"], result["rounds"], len(of_sites)) == (True, 2, 6)
    assert peak_mb["superlink"] <= 1500
    assert {name: peak for name, peak in peak_mb.items() if name != "superlink" and peak > six_times_mb} == {}
    assert all(own_mb[name] <= peak_mb[name] for name in peak_mb)


def test_each_process_is_killed_once_and_the_study_ends_with_books_that_agree(repository):
    result = rehearse(repository, "--kill")
    assert [kill["victim"] for kill in result["killed"]] == VICTIMS
    assert result["books"]["rounds"] == result["rounds"]
    assert result["books"]["attempts"] >= result["rounds"]

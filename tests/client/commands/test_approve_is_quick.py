"""Reading and signing take neither PyTorch nor DICOM, and an accountant only for sampling not asked about before."""

import os
import subprocess
import sys

import pytest

from common.plan.reading import read_plan
from common.plan.signing import sign_plan

HEAVY = {"torch", "dp_accounting", "opacus", "scipy", "pydicom", "matplotlib", "flwr", "grpc", "PIL"}
PROGRAM = f"""
import sys, runpy
sys.argv = ["fedward-site", *sys.argv[1:]]
try:
    runpy.run_module("client", run_name="__main__")
finally:
    print(*sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)
"""


def loaded_by(*words) -> str:
    done = subprocess.run(
        (sys.executable, "-c", PROGRAM, *map(str, words)), capture_output=True, text=True, check=True, env=os.environ
    )
    return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""


@pytest.fixture
def whole_batches(plan_file, coordinator_key, tmp_path):
    """The plan with every patient in every round: epsilon has a formula."""
    file = tmp_path / "whole.toml"
    file.write_text(plan_file.read_text().replace("labelled_sampling_rate = 0.2", "labelled_sampling_rate = 1.0"))
    text = file.read_text()
    old = read_plan(file).phases[0].noise_multiplier
    file.write_text(text.replace(f"noise_multiplier = {old}", "noise_multiplier = 4.0"))
    sign_plan(read_plan(file), file, coordinator_key)
    return file


def test_a_plan_that_was_read_before_is_read_without_an_accountant(stocked, plan_file):
    words = ("approve", plan_file, "--site-folder", stocked.path, "--json")
    assert loaded_by(*words) == "dp_accounting scipy"
    assert loaded_by(*words) == ""


def test_a_plan_without_sampling_never_needs_one(stocked, whole_batches):
    assert loaded_by("approve", whole_batches, "--site-folder", stocked.path, "--json") == ""


@pytest.mark.parametrize("command", ["client.commands.approve", "server.commands.plan", "server.commands.study"])
def test_what_approves_checks_and_signs_imports_nothing_that_it_does_not_need(command):
    program = f"import sys, {command}; print(*{HEAVY!r} & sys.modules.keys())"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

"""The same ServerApp and ClientApp on Flower's own simulation runtime."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is a development dependency (flwr[simulation])")

PROGRAM = """
import sys
from pathlib import Path
from server.attempts.run_options import RunOptions, set_options
from server.attempts.retries import RunSettings
from simulation.runtime.made_up_work import made_up_site, numbered_update
from simulation.runtime.ray_runtime import run_on_ray
from simulation.study.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
set_options(folder.study.path, RunOptions(settings=RunSettings(cohort_wait_s=180.0), hello_timeout_s=180.0))
sites = [folder.site(f"hospital-{number}") for number in range(1, 5)]
run_on_ray(folder.study.path, sites, open_site=lambda path: made_up_site(path, numbered_update))
"""


@pytest.mark.slow
def test_a_run_on_ray_ends_with_the_same_model_as_on_the_loopback(bare_run, bare_template, tmp_path):
    # A process of its own: Ray starts servers, and its actors import from the folder it was started in.
    subprocess.run([sys.executable, "-c", PROGRAM, str(bare_run.folder.path)], check=True, timeout=300)
    on_ray = bare_run.parameters()
    assert len(bare_run.journal().applied()) == 6
    twin = bare_run.twin(bare_template, tmp_path / "twin")
    twin.run()
    assert np.array_equal(on_ray, twin.parameters())

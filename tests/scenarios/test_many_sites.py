"""A hundred hospitals: the same code, the same protocol, one round."""

import pytest

from server.attempts.retries import RunSettings
from server.attempts.run_options import RunOptions
from server.study.events import RunState
from server.study.folder import open_study
from server.study.progress import open_journal
from simulation.runtime.made_up_work import empty_update, made_up_site
from simulation.study.run_folder import RunFolder
from simulation.study.running import run_rounds_over_loopback
from simulation.study.scenario_reading import parse_scenario
from simulation.study.site_building import build_bare_run

SITES = 100


@pytest.mark.slow
def test_a_hundred_sites_finish_a_round(bare_document, tmp_path):
    study = {name: part for name, part in bare_document["study"].items() if name != "secure_aggregation"}
    study["phases"] = [bare_document["study"]["phases"][0] | {"rounds": 1, "maximum_attempts": 3}]
    study["privacy"] = {"noise": "distributed", "epsilon": 8.0, "delta": 5e-5}
    document = bare_document | {"study": study, "hospitals": bare_document["hospitals"] | {"sites": SITES}}
    scenario, folder = parse_scenario(document, "hundred"), RunFolder(tmp_path / "run")
    plan = build_bare_run(folder, scenario, dict.fromkeys(scenario.site_names, (50, 50)))
    settings = RunOptions(settings=RunSettings(gather_s=0.0))
    end = run_rounds_over_loopback(
        folder, scenario, plan, settings, open_site=lambda path: made_up_site(path, empty_update)
    )
    assert end.state is RunState.FINISHED
    (opened,) = open_journal(open_study(folder.study.path)).opened()
    assert len(opened.participants) == SITES

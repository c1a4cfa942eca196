"""Each way to aggregate, from scans to the final model: real training, masked sums, Flower's messages, server's rule.

What the server made of the sums is computed a second time here, with torch's optimisers or the formula of the paper.
"""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from client.consent.approval import approve
from client.dicom.cache import Cache
from client.installation.folder import SiteFolder
from client.learning.speed import Speed
from client.private_gradients.settings import EngineName, SpeedSettings
from client.site import Site
from common.plan.fitting import lattice_step
from common.plan.plan import StudyPlan
from common.plan.protocol import divisor
from common.plan.reading import read_plan
from common.plan.signing import sign_plan, signature_path
from common.trust.identity import read_secret_file, read_signing_key
from server.attempts.retries import RunSettings
from server.attempts.run_options import RunOptions
from server.drafting.plan_text import plan_toml
from server.model.checkpoint import same_state
from server.model.sums import sum_name
from server.study.events import RunState
from server.study.folder import open_study
from server.study.progress import current_state, open_journal, replay
from simulation.study.run_folder import RunFolder
from simulation.study.running import run_rounds_over_loopback
from simulation.study.scenario_reading import parse_scenario
from simulation.study.site_building import APPROVER, build_run, site_policy

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
ROUNDS = 3
SETTINGS = {"learning_rate": 0.2, "momentum": 0.8, "second_momentum": 0.9, "adaptivity": 1e-2, "average_decay": 0.0}
# What a rule does not read, no plan may set (common.plan.settings_read).
READ_BY = {
    "mean": ("learning_rate", "average_decay"),
    "momentum": ("learning_rate", "momentum", "average_decay"),
    "adam": tuple(SETTINGS),
    "yogi": tuple(SETTINGS),
}
SCENARIO = {
    "format": "fedward-scenario/1",
    "name": "rules",
    "title": "One study for each way to aggregate",
    "hospitals": {"source": "phantoms", "patients": 8, "size_px": 32, "labelled_share": 1.0, "test_patients": 50},
    "study": {
        "task": {
            "kind": "classification",
            "classes": ["normal", "consolidation"],
            "modalities": ["DX"],
            "dimensions": 2,
        },
        "image": {"size_px": [32, 32], "intensity": "percentiles"},
        "privacy": {"noise": "none"},
        "evaluation": {"held_out": False},
        "phases": [{"name": "only", "rounds": ROUNDS, "trainable": "head", "labelled_sampling_rate": 1.0}],
    },
    "running": {"workers": 0},
}


@dataclass
class Study:
    """A run folder whose plan was changed, signed anew and approved anew by every hospital."""

    folder: RunFolder
    plan: StudyPlan

    def run(self):
        speed = Speed(gradients=SpeedSettings(engine=EngineName.LOOP))
        options = RunOptions(settings=RunSettings(gather_s=0.0), longest_poll_s=0.01)
        return run_rounds_over_loopback(
            self.folder,
            parse_scenario(SCENARIO, "rules"),
            self.plan,
            options,
            open_site=lambda path: Site.open(path, speed=speed, holds_replies=False),
        )


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("rules")
    (path / "rules.toml").write_text("# the scenario of a test\n")
    build_run(RunFolder(path / "run"), parse_scenario(SCENARIO, "rules"), path / "rules.toml")
    return path / "run"


@pytest.fixture
def study(template, tmp_path):
    """``study(aggregation=..., phase=..., privacy=...)``: the same hospitals, another plan."""

    def make(aggregation=None, phase=None, privacy=None):
        shutil.copytree(template, tmp_path / "run")
        folder = RunFolder(tmp_path / "run")
        document = read_plan(folder.study.plan).model_dump()
        rule = (aggregation or {}).get("rule", document["aggregation"]["rule"].value)
        document["aggregation"] |= {name: SETTINGS[name] for name in READ_BY[rule]} | (aggregation or {})
        document["privacy"] |= privacy or {}
        if privacy:
            document["timing"] |= {
                "reply_slot_s": 3.0
            }  # private plans name one; these hospitals do not wait for its end
        document["phases"] = [document["phases"][0] | (phase or {})]
        plan = StudyPlan.model_validate(document)
        folder.study.plan.write_text(plan_toml(plan))
        sign_plan(plan, folder.study.plan, read_signing_key(folder.coordinator_key))
        for name in SITES:
            approve_again(SiteFolder(folder.site(name)), folder, plan)
        return Study(folder, plan)

    return make


def approve_again(site, folder, plan):
    site.policy.write_text(site_policy(plan))
    incoming = site.path / "study.toml"
    shutil.copyfile(folder.study.plan, incoming)
    shutil.copyfile(signature_path(folder.study.plan), signature_path(incoming))
    approve(site, incoming, approver=APPROVER)
    Cache.open(site.cache, read_secret_file(site.secret)).freeze(plan.digest())


def directions(made, opened_study, journal, *, sign):
    """Yield d of each round, from the stored sums alone: sign * sum * worth of one unit / public divisor."""
    plan = made.plan
    trained = opened_study.network.phases[0].vector.lattice.step
    unit = trained if plan.privacy.noise == "local" else lattice_step(plan)
    share = divisor(plan, plan.phases[0], SITES)
    for row in journal.opened()[:ROUNDS]:
        assert set(row.participants) == set(SITES)
        body = load_file(opened_study.folder.sums / sum_name(row.attempt))["body_sum"].astype(np.float64)
        assert body.any()
        yield sign * body * unit / share


def finished(made):
    """Run the study and return its start and final weights of the trained part, and the directions of its rounds."""
    end = made.run()
    assert (end.state, end.rounds_applied) == (RunState.FINISHED, ROUNDS)
    opened_study = open_study(made.folder.study.path)
    journal = open_journal(opened_study)
    state = current_state(opened_study, journal)
    assert same_state(replay(opened_study, journal), state)
    trained = opened_study.network.phases[0].trained
    sign = 1 if made.plan.privacy.noise == "local" else -1
    return (
        opened_study.network.start[trained],
        state.parameters[trained],
        list(directions(made, opened_study, journal, sign=sign)),
    )


def by_torch(make, start, found):
    weights = torch.nn.Parameter(torch.from_numpy(start.astype(np.float64)))
    optimiser = make([weights])
    for direction in found:
        weights.grad = -torch.from_numpy(direction)
        optimiser.step()
    return weights.detach().numpy()


def by_yogi(start, found):
    """Reddi et al. 2021, algorithm 2, with Adam's bias correction."""
    lr, b1, b2, a = (SETTINGS[name] for name in ("learning_rate", "momentum", "second_momentum", "adaptivity"))
    weights, m, v = start.astype(np.float64), np.zeros(len(start)), np.zeros(len(start))
    for t, d in enumerate(found, start=1):
        m = b1 * m + (1 - b1) * d
        v = v - (1 - b2) * np.sign(v - d**2) * d**2
        weights = weights + lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + a)
    return weights


RULES = {
    "FedSGD": ("mean", lambda start, found: by_torch(lambda p: torch.optim.SGD(p, lr=0.2), start, found)),
    "FedAvgM": ("momentum", lambda s, found: by_torch(lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.8), s, found)),
    "FedAdam": (
        "adam",
        lambda s, found: by_torch(lambda p: torch.optim.Adam(p, lr=0.2, betas=(0.8, 0.9), eps=1e-2), s, found),
    ),
    "FedYogi": ("yogi", by_yogi),
}


@pytest.mark.parametrize(("rule", "expected"), RULES.values(), ids=RULES)
def test_a_rule_of_the_server_from_scans_to_the_final_model(study, rule, expected):
    start, final, found = finished(study(aggregation={"rule": rule}))
    assert np.abs(final - start).max() > 1e-3
    assert final == pytest.approx(expected(start, found), abs=1e-5)


LOCAL = {
    "FedAvg": ({"local_steps": 3}, "mean"),
    "FedProx": ({"local_steps": 3, "proximal_weight": 1.0}, "mean"),
    "FedProx with FedAdam": ({"local_steps": 3, "proximal_weight": 1.0}, "adam"),
}
SLOW = {"FedProx with FedAdam"}


@pytest.mark.parametrize(
    ("phase", "rule"),
    [pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, case in LOCAL.items()],
)
def test_local_steps_with_noise_in_each_hospital_from_scans_to_the_final_model(study, phase, rule):
    made = study(
        aggregation={"rule": rule},
        phase={"noise_multiplier": 60.0, "local_learning_rate": 0.05, **phase},
        privacy={"noise": "local", "epsilon": 8.0, "delta": 1e-3},
    )
    start, final, found = finished(made)
    name = next(name for name, (known, _) in RULES.items() if known == rule)
    assert np.abs(final - start).max() > 1e-3
    assert final == pytest.approx(RULES[name][1](start, found), abs=1e-4)

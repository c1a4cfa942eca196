"""`fedward-server status` and `export`: what the journal says, and a model that can be computed again."""

import json
import sqlite3

import numpy as np
import pytest
import torch
from safetensors.numpy import load, load_file, save
from typer.testing import CliRunner

from common.networks.parameters import load as load_parameters
from common.plan.start import start_network
from server.__main__ import app
from server.errors import StudyFolderInvalidError
from server.model.sums import sum_name
from server.study.events import LoggedEvents, RunState
from server.study.folder import open_study
from server.study.progress import current_state, open_journal
from simulation.runtime.faults import Fault, Trouble

SHORT = {"rounds": 2, "maximum_attempts": 9}
DROPOUTS = (
    Fault(Trouble.DROP, sites=("site-2",), actions=("forward",), attempts=(1,)),
    Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=("keylist",), attempts=(2,)),
)


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def status(federation):
    return json.loads(call("status", federation.study, "--json"))


@pytest.fixture
def federation(make_federation):
    return make_federation(short=SHORT)


def test_a_study_that_never_ran_says_so(federation):
    facts = status(federation)
    assert (facts["state"], facts["rounds_applied"], facts["rounds_planned"]) == ("not started", 0, 3)
    with pytest.raises(StudyFolderInvalidError, match="never started"):
        call("export", federation.study)


def test_the_status_counts_rounds_attempts_failures_and_sites(federation):
    assert federation.run(*DROPOUTS).state is RunState.FINISHED
    facts = status(federation)
    assert facts["state"] == "finished"
    assert (facts["rounds_applied"], facts["attempts"], facts["attempts_allowed"]) == (3, 3, 9)
    assert (facts["orders"], facts["orders_allowed"]) == (4, 1180)
    assert facts["aborted"] == {"C.too_few": 1}
    assert facts["scores"]["2"]["score"] == 0.8
    two = facts["sites"]["site-2"]
    assert (two["in_cohort"], two["in_sum"], two["dropped_out"], two["timeouts"]) == (4, 2, 1, 0)
    assert facts["sites"]["site-4"]["in_sum"] == 3
    assert two["bytes_from_site"] < facts["sites"]["site-4"]["bytes_from_site"]


def test_the_last_head_of_every_ledger_is_kept_also_of_sites_that_dropped_out_later(federation):
    with pytest.raises(StudyFolderInvalidError, match="never started"):
        call("study", "heads", federation.study)
    federation.run(*DROPOUTS)
    kept = json.loads(call("study", "heads", federation.study, "--json"))
    assert kept["last_attempt"] == 4
    assert {site: row["attempt"] for site, row in kept["sites"].items()} == dict.fromkeys(federation.names, 4)
    shown = call("study", "heads", federation.study)
    for row in kept["sites"].values():
        assert f"{kept['plan']}:{row['head']}" in shown


def test_the_status_can_be_read_while_rounds_run(federation):
    seen = []

    class Reader(LoggedEvents):
        def on_stage(self, asked, sites, timeout_s):
            del asked, sites, timeout_s
            seen.append(status(federation))

    federation.run(events=Reader())
    assert [facts["state"] for facts in seen[:7]] == ["unfinished"] * 7
    assert {facts["rounds_applied"] for facts in seen} == {0, 1, 2, 3}


def test_people_see_a_table(federation):
    federation.run(*DROPOUTS)
    shown = call("status", federation.study)
    assert "small: finished, 3 of 3 rounds, 3 of 9 attempts, 4 orders" in shown
    assert "C.too_few" in shown
    assert "site-4" in shown


def test_the_exported_model_is_the_state_by_name_and_the_card_says_what_it_is(federation):
    federation.run()
    target = federation.path / "released"
    card = json.loads(call("export", federation.study, "--output", target, "--json"))
    study = open_study(federation.study)
    state = current_state(study, open_journal(study))
    tensors = load_file(target / "model.safetensors")
    network = start_network(study.plan)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    again = start_network(study.plan)
    load_parameters(again, study.network.everything, torch.from_numpy(state.parameters))
    assert all(bool((a == b).all()) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert card == json.loads((target / "model-card.json").read_text())
    assert (card["plan_digest"], card["finished"], card["verified_by_replay"]) == (study.plan.digest(), True, True)
    assert card["privacy"]["epsilon"] == 8.0
    assert card["privacy"]["bought"]["epsilon"] > 0
    readable = (target / "MODEL-CARD.md").read_text()
    assert card["weights"]["sha256"] in readable
    assert "Not a medical device" in readable


def test_a_changed_sum_stops_the_export(federation):
    federation.run()
    path = federation.study / "sums" / sum_name(2)
    tensors = load(path.read_bytes())
    path.write_bytes(save(tensors | {"body_sum": tensors["body_sum"] + np.int32(1)}))
    with pytest.raises(StudyFolderInvalidError, match="not the sum"):
        call("export", federation.study)
    assert call("export", federation.study, "--no-verify")


@pytest.mark.parametrize("made_so_far", ["", "CREATE TABLE study (id, plan_digest, unix_s)"])
def test_a_journal_that_is_being_made_reads_as_a_study_that_never_ran(federation, made_so_far):
    with sqlite3.connect(federation.study / "journal.sqlite") as half:
        half.execute("PRAGMA journal_mode=WAL")
        half.execute(made_so_far)
    assert status(federation)["state"] == "not started"

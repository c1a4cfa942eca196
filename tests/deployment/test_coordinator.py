"""The coordinator as real processes: who is let in, what a run may ask, and what happens when a process is killed."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.fab import Fab

from client.installation.folder import SiteFolder
from client.installation.setup import set_up
from common.flower.environment import child_environment
from common.flower.pointer import pointer_bundle
from common.trust.hash_chain import HashChain
from server.deployment.endings import read_ending
from server.deployment.superlink_client import AwayError
from server.federation.admission import AUDIT_NAME, dismiss, node_keys, sign_next_roster
from server.model.checkpoint import same_state
from server.study.events import RunState
from server.study.folder import open_study
from server.study.live_status import is_running
from server.study.progress import current_state, replay
from server.study.status import read_journal

from .conftest import SITES, STUDY, answers, free_ports, processes_below, wait_until

pytestmark = pytest.mark.slow
ROUNDS = 10


def names(client):
    return sorted(node.name for node in client.nodes())


def test_the_superlink_knows_exactly_the_nodes_of_the_roster(deployment):
    with deployment.superlink() as client:
        wait_until(lambda: names(client) == list(SITES), "all nodes are registered")


def test_it_still_knows_them_after_it_was_killed(deployment):
    with deployment.superlink() as client:
        wait_until(lambda: names(client) == list(SITES), "all nodes are registered")
        before = sorted(node.number for node in client.nodes())
        deployment.kill("superlink")
        wait_until(lambda: answers(client.nodes), "the SuperLink answers again")
        assert sorted(node.number for node in client.nodes()) == before


def test_everything_of_the_superlink_but_ten_paths_is_not_found_at_the_gateway(deployment):
    address = deployment.config.superlink_address
    with httpx.Client(verify=str(deployment.folder.superlink / "tls" / "ca.crt"), trust_env=False) as inside:
        paths = inside.get(f"https://{address}/openapi.json").json()["paths"]
    assert len(paths) > 60
    outside = f"https://{deployment.config.gateway.public_address}"
    with httpx.Client(verify=str(deployment.folder.ca_certificate), trust_env=False) as client:
        found = {
            path: client.post(outside + path).status_code for path in [*paths, "/docs", "/openapi.json", "/health"]
        }
    let_in = {path for path, status in found.items() if status != 404}
    assert {found[path] for path in let_in} == {401}  # and they ask who it is
    assert len(let_in) == 10


def test_a_strangers_supernode_is_refused_and_stays_unknown(deployment, tmp_path):
    stranger = SiteFolder(tmp_path / "stranger")
    set_up(stranger, "stranger")
    shutil.copyfile(deployment.sites[SITES[0]].kit, stranger.kit)
    shutil.copyfile(deployment.sites[SITES[0]].roster, stranger.roster)
    text = stranger.config.read_text().replace("runtime_port = 9094", f"runtime_port = {free_ports(1)[0]}")
    stranger.config.write_text(text)
    line = [sys.executable, "-m", "client.agent.supernode", str(stranger.path)]
    log = deployment.folder.logs / "gateway.log"
    before = log.read_text().count("a stranger: 401")
    subprocess.run(line, env=child_environment(), capture_output=True, check=False, timeout=120)  # it gives up
    assert log.read_text().count("a stranger: 401") > before
    with deployment.superlink() as client:
        assert "stranger" not in names(client)


def started(deployment, client, bundle, **config):
    """Start a run by hand, as somebody on the coordinator's machine could."""
    request = StartRunRequest(fab=fab_to_proto(Fab("", bundle, {})), override_config=user_config_to_proto(config))
    return client._control.StartRun(request).run_id


@pytest.mark.parametrize(
    ("case", "bundle", "config"),
    [
        ("the pointer with a study", pointer_bundle(), {"study": STUDY}),
        ("the pointer with a path", pointer_bundle(), {"study": "../../etc"}),
    ],
)
def test_a_run_that_the_executor_did_not_start_never_runs(deployment, case, bundle, config):
    with deployment.superlink() as client:
        run_id = started(deployment, client, bundle, **config)
        wait_until(lambda: run_id not in client.unfinished_runs(), f"{case}: the executor stops it")
    assert not list(deployment.folder.state.glob("study-*.pid"))


def test_a_run_cannot_bring_settings_of_its_own(deployment):
    """Threshold, word size, noise: what a run may configure at all is the study's name."""
    with deployment.superlink() as client:
        for setting in ({"threshold": 2}, {"word-bits": 16}, {"study-folder": "/tmp"}):
            with pytest.raises(AwayError):
                started(deployment, client, pointer_bundle(), **setting)


@pytest.fixture(scope="module")
def study(deployment):
    """A study that runs, with three hospitals."""
    deployment.sign_study(STUDY, ROUNDS)
    for name in deployment.sites:
        deployment.start_site(name)
    deployment.command("run", STUDY)
    deployment.wait_for_rounds(1)
    return deployment


@pytest.mark.parametrize("victim", ["gateway", "superlink", "executor", f"study-{STUDY}"])
def test_a_process_that_is_killed_in_the_middle_of_a_round_comes_back_and_the_study_goes_on(study, victim):
    before = study.status()["rounds_applied"]
    study.kill(victim)
    study.wait_for_rounds(before + 1)


def test_stop_ends_after_the_attempt_under_way_and_resume_goes_on(study):
    study.command("stop", STUDY, "--wait")
    place = study.folder.study(STUDY)
    assert is_running(place) is False
    assert read_ending(place).state is RunState.STOPPED
    before = study.status()
    time.sleep(3)
    assert study.status() == before
    study.command("resume", STUDY)
    study.wait_for_rounds(before["rounds_applied"] + 1)


def test_in_the_end_every_round_counts_once_and_the_sums_lead_to_the_model(study):
    study.command("run", STUDY, "--wait")
    facts = study.status()
    assert facts["rounds_applied"] >= ROUNDS
    opened = open_study(study.folder.study(STUDY))
    journal = read_journal(opened)
    attempts = [row.attempt for row in journal.attempts()]
    applied = [row.attempt for row in journal.applied()]
    assert attempts == list(range(1, len(attempts) + 1))
    assert applied == sorted(set(applied))
    assert same_state(replay(opened, journal), current_state(opened, journal))
    assert not study.folder.wanted(STUDY).exists()
    chain = HashChain(study.folder.audit, AUDIT_NAME)
    said = [link.entry["what"] for link in chain.links()]
    assert said.count("run started") >= 3
    assert {"created", "admitted", "roster signed", "plan signed", "wanted", "stopped"} <= set(said)


def test_the_token_of_a_run_is_not_in_the_list_of_processes(study):
    lines = [
        Path(f"/proc/{pid}/cmdline").read_bytes()
        for pid in processes_below(os.getpid())
        if Path(f"/proc/{pid}").exists()
    ]
    assert any(b"study_process" in line or b"executor_process" in line for line in lines)
    assert not any(b"token" in line for line in lines)


def test_a_dismissed_site_is_shut_out_for_good(study):
    gone = SITES[2]
    key = next(key for key in node_keys(study.folder) if key.site == gone)
    dismiss(study.folder, gone)
    sign_next_roster(study.folder, "rehearsal")
    with study.superlink() as client:
        wait_until(lambda: names(client) == list(SITES[:2]), "its node is unknown")
    assert key.line not in [other.line for other in node_keys(study.folder)]

"""The agent's socket: who may open it, and what its calls do. With a real agent."""

import os
import shutil
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client.agent.agent import Agent
from client.agent.control import SERVICE, SUPERNODE
from client.agent.control_client import ControlClient
from client.agent.control_socket import MAX_SOCKET_PATH_BYTES, require_socket_path
from client.agent.errors import AgentUnavailableError
from client.installation.audit_log import AUDIT_NAME
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from client.learning.speed import speed_of
from common.control.generate import NAMES, generated
from common.control.site_control_pb2 import Connection, Step
from common.errors import NotTomlError
from common.flower.messages import HELLO_TYPE, MESSAGE_TYPES, hello_question, to_content
from common.plan.errors import PlanInvalidError
from common.processes.errors import AlreadyRunningError
from common.secagg.messages import Packet
from common.secagg.stages import Kind
from common.trust.hash_chain import HashChain

NONCE = bytes(16)


@pytest.fixture
def control(agent, folder):
    with ControlClient(folder.control_socket) as client:
        yield client


def test_only_the_site_s_own_user_can_open_the_socket(agent, folder):
    assert folder.control_socket.stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o077 == 0


def test_status_says_who_is_there_and_whether_tasks_can_come(control, until):
    until(lambda: control.status().connection == Connection.CONNECTION_UP, "the SuperNode is there")
    status = control.status()
    assert (status.site, status.paused, list(status.studies)) == ("north", False, [])


def test_health_follows_the_standard(agent, folder, until):
    with grpc.insecure_channel(f"unix:{folder.control_socket}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        assert stub.Check(health_pb2.HealthCheckRequest(service="")).status == serving
        assert stub.Check(health_pb2.HealthCheckRequest(service=SERVICE)).status == serving
        until(lambda: stub.Check(health_pb2.HealthCheckRequest(service=SUPERNODE)).status == serving, "up")


def test_whoever_watches_sees_each_step_as_it_happens(control, supernode, folder):
    seen: list[int] = []
    others = ControlClient(folder.control_socket)

    def watch() -> None:
        for event in others.watch():
            seen.append(event.step)
            if event.step == Step.STEP_RESUMED:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    supernode.ask(HELLO_TYPE, hello_question(NONCE))
    supernode.reply()
    supernode.ask(MESSAGE_TYPES[Kind.ORDER], to_content(Packet(b"any order"), NONCE))
    supernode.reply()
    supernode.ask("query.shell", hello_question(NONCE))
    supernode.reply()
    control.pause(person="Dr North")
    control.resume(person="Dr North")
    watcher.join(20)
    others.close()
    assert not watcher.is_alive()
    steps = (
        Step.STEP_GREETED,
        Step.STEP_TRAINING,
        Step.STEP_REFUSED,
        Step.STEP_REJECTED,
        Step.STEP_PAUSED,
        Step.STEP_RESUMED,
    )
    assert tuple(seen[-len(steps) :]) == steps
    status = control.status()
    assert status.rejected >= 1
    assert status.tasks >= 3


def test_pausing_and_resuming_is_written_down_with_the_person_and_done_once(control, folder):
    control.pause(person="Dr North")
    control.pause(person="Dr South")
    assert folder.paused.exists()
    assert control.status().paused
    control.resume(person="Dr East")
    assert not folder.paused.exists()
    entries = [link.entry for link in HashChain(folder.audit, AUDIT_NAME).links()][-2:]
    assert [(entry["what"], entry["person"]) for entry in entries] == [("paused", "Dr North"), ("resumed", "Dr East")]


def test_a_refused_plan_comes_back_as_the_same_error_that_the_command_would_give(control, signed_plan):
    signature = signed_plan.with_name(signed_plan.name + ".sig")
    with pytest.raises(PlanInvalidError, match="made for roster"):
        control.approve(signed_plan.read_bytes(), signature.read_bytes(), approver="Dr North")
    with pytest.raises(NotEnrolledError, match="no such plan"):
        control.withdraw_approval("0" * 64, approver="Dr North")


def test_an_approval_leaves_nothing_of_a_refused_plan_behind(control, folder):
    with pytest.raises(NotTomlError):
        control.approve(b"no = plan", b"", approver="Dr North")
    assert not list(folder.path.glob(".approve-*"))
    assert not folder.plans.exists()


def test_a_second_agent_on_the_same_folder_is_refused(agent, folder):
    with pytest.raises(AlreadyRunningError, match="already in use"):
        Agent(folder.path)
    assert folder.control_socket.exists()


def test_where_no_agent_runs_the_error_says_what_to_start(tmp_path):
    with (
        ControlClient(tmp_path / "agent.sock") as client,
        pytest.raises(AgentUnavailableError, match="fedward-site up"),
    ):
        client.status()


def test_a_path_that_no_unix_socket_may_have_is_refused_with_the_limit(tmp_path):
    long = SiteFolder(tmp_path / ("x" * (MAX_SOCKET_PATH_BYTES - len(str(tmp_path)) - len("//agent.sock") + 1)))
    with pytest.raises(AgentUnavailableError, match="108 bytes, a Unix socket's path may have 107"):
        require_socket_path(long.control_socket)
    taken = tmp_path / "agent.sock"
    taken.write_text("")
    with pytest.raises(AgentUnavailableError, match="not a socket"):
        require_socket_path(taken)


def test_the_generated_code_is_what_the_contract_says(repository):
    made = generated()
    assert {name: (repository / "common" / "control" / name).read_text() for name in NAMES} == made


def test_the_agent_works_with_every_speed_setting_of_site_toml(folder, tmp_path, monkeypatch):
    own = SiteFolder(tmp_path / "north")
    shutil.copytree(folder.path, own.path, ignore=shutil.ignore_patterns("agent.sock", "state"))
    text = own.config.read_text()
    for before, after in {
        "patients_at_once = 16": "patients_at_once = 3", "threads = 1": "threads = 2",
        'engine = "auto"': 'engine = "loop"', "autocast = false": "autocast = true",
        "compile = false": "compile = true",
    }.items():  # fmt: skip
        assert before in text
        text = text.replace(before, after)
    own.config.write_text(text)
    asked = []

    class SeenError(Exception):
        pass

    def watched(_folder, speed, _feed, _shapes_of):
        asked.append(speed)
        raise SeenError

    monkeypatch.setattr("client.agent.agent.WatchedSite", watched)
    umask = os.umask(0o077)
    try:
        with pytest.raises(SeenError):
            Agent(own.path)
    finally:
        os.umask(umask)
    (section,) = asked
    speed = speed_of(section)
    assert (speed.patients_at_once, speed.masking_threads) == (3, 2)
    assert (speed.gradients.engine, speed.gradients.autocast, speed.gradients.compile) == ("loop", True, True)

"""Processes that nobody looks into, whose children get few variables, and that are not root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.doctor.machine import processes as processes_finding
from client.installation.folder import SiteFolder
from common.errors import ExitCode
from common.flower.environment import child_environment
from common.processes.errors import RunsAsRootError
from common.processes.hardening import refuse_root

REPOSITORY = Path(__file__).resolve().parents[3]
LOOK = """
import ctypes, resource, sys
from common.processes.hardening import shut_process
shut_process()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


def run(program, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True,
        text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2)")
def test_a_shut_process_is_not_dumpable_and_leaves_no_core():
    assert run(LOOK) == "0 (0, 0)"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_process_of_the_same_user_cannot_read_a_shut_one():
    program = (
        "import ctypes, os\nfrom common.processes.hardening import shut_process\nos.setuid(65534)\n"
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as a process is that was started by this user\n"
        "for shut in (lambda: None, shut_process):\n"
        "    shut(); child = os.fork()\n"
        "    if child == 0:\n"
        "        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        "        try: open(f'/proc/{os.getppid()}/environ').read(); said = 'read'\n"
        "        except PermissionError: said = 'refused'\n"
        "        print(said, flush=True); os._exit(0)\n"
        "    os.waitpid(child, 0)"
    )
    assert run(program).split() == ["read", "refused"]


@pytest.mark.parametrize(
    "module",
    [
        "client.__main__", "server.__main__", "server.gateway.__main__", "server.deployment.executor_process",
        "server.deployment.study_process", "server.deployment.superlink_process", "client.agent.supernode",
        "client.trainer.__main__", "client.status_page.__main__", "server.status_page.__main__", "client.dicom.limits",
    ],
)  # fmt: skip
def test_every_program_shuts_itself(module):
    text = (REPOSITORY / (module.replace(".", "/") + ".py")).read_text()
    assert "shut_process()" in text or "shut_service()" in text


def test_a_child_gets_what_is_on_the_list_and_no_secret_of_the_shell(monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "PYTHONSTARTUP", "SSH_AUTH_SOCK", "MALLOC_CONF_X", "BASH_ENV"):
        monkeypatch.setenv(name, "x")
    for name in ("LC_ALL", "HTTPS_PROXY", "CUDA_VISIBLE_DEVICES", "TZ", "FEDWARD_ALLOW_ROOT"):
        monkeypatch.setenv(name, "kept")
    given = child_environment()
    assert {"AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "PYTHONSTARTUP", "SSH_AUTH_SOCK", "BASH_ENV"}.isdisjoint(given)
    assert {given[name] for name in ("LC_ALL", "HTTPS_PROXY", "CUDA_VISIBLE_DEVICES", "TZ")} == {"kept"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try it")
@pytest.mark.parametrize(("module", "option"), [("client", "--site-folder"), ("server", "--folder")])
def test_up_refuses_to_run_as_root_unless_told(module, option, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "FEDWARD_ALLOW_ROOT"}
    done = subprocess.run(
        [sys.executable, "-m", module, "up", option, str(tmp_path)], cwd=REPOSITORY, env=environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == ExitCode.RUNS_AS_ROOT
    assert "--allow-root" in done.stderr
    allowed = subprocess.run(
        [sys.executable, "-m", module, "up", "--allow-root", option, str(tmp_path)], cwd=REPOSITORY, env=environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert allowed.returncode != ExitCode.RUNS_AS_ROOT


SERVICES = {
    "the agent": ("client", "agent", "--site-folder"),
    "a hospital's page": ("client.status_page", "--port", "0", "--site-folder"),
    "a coordinator's page": ("server.status_page", "--port", "0", "--folder"),
    "the gateway": ("server.gateway",),
    "the executor": ("server.deployment.executor_process",),
    "the SuperLink": ("server.deployment.superlink_process", "--host"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try it")
@pytest.mark.parametrize("service", SERVICES)
def test_no_program_that_runs_for_long_runs_as_root_unless_told(service, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "FEDWARD_ALLOW_ROOT"}
    done = subprocess.run(
        [sys.executable, "-m", *SERVICES[service], str(tmp_path)], cwd=REPOSITORY, env=environment,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == ExitCode.RUNS_AS_ROOT, done.stderr
    assert "--allow-root" in done.stderr


def test_what_was_allowed_to_up_is_allowed_to_what_it_starts(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("FEDWARD_ALLOW_ROOT")
    assert "FEDWARD_ALLOW_ROOT" not in child_environment()
    refuse_root(is_allowed=True)
    assert child_environment()["FEDWARD_ALLOW_ROOT"] == "1"


def test_a_user_who_is_not_root_needs_no_permission(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    refuse_root(is_allowed=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(RunsAsRootError):
        refuse_root(is_allowed=False)


def test_the_doctor_finds_nothing_where_no_supervisor_runs(tmp_path):
    assert processes_finding(SiteFolder(tmp_path)).level.value == "ok"

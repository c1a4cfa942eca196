"""What IT copies from docs/deploy fits the program: units, container file, nginx."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server.gateway.door import FLEET_PATHS, PATHS, Limits

DEPLOY = Path(__file__).resolve().parent.parent / "docs/deploy"
UNITS = ("fedward-site.service", "fedward-server.service")
SYSTEMD = shutil.which("systemd-analyze")
MODULES = {"fedward-site": "client", "fedward-server": "server"}
CONTROL_PATHS = (
    "/v1/control/start-run",
    "/v1/fleet/register-node",
    "/docs",
    "/openapi.json",
    "/v1/runtime/acquire-task",
)

needs_systemd = pytest.mark.skipif(SYSTEMD is None, reason="no systemd-analyze on this machine")


def directives(name: str) -> list[tuple[str, str]]:
    lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
    return [tuple(line.split("=", 1)) for line in lines if "=" in line and not line.startswith("#")]


def values(name: str, key: str) -> list[str]:
    return [value for found, value in directives(name) if found == key]


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_no_fault_in_a_unit(name, tmp_path):
    text = (DEPLOY / name).read_text(encoding="utf-8")
    program = re.search(r"^ExecStart=(\S+)", text, flags=re.MULTILINE).group(1)
    copy = tmp_path / name
    copy.write_text(text.replace(program, sys.executable), encoding="utf-8")  # installed elsewhere on this machine
    done = subprocess.run([SYSTEMD, "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_site_may_fence_its_training_off():
    allowed = {name for value in values("fedward-site.service", "SystemCallFilter") for name in value.split()}
    assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} <= allowed


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_the_exposure_of_a_unit_is_what_the_page_says(name):
    command = [SYSTEMD, "security", "--offline=yes", "--no-pager", str(DEPLOY / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = re.search(r"exposure level for \S+ ([\d.]+)", done.stdout)
    if said is None:
        pytest.skip("this systemd cannot judge a unit offline")
    claimed = re.search(rf"\[{re.escape(name)}\].*exposure ([\d.]+) of 10", (DEPLOY / "README.md").read_text())
    assert float(said.group(1)) <= float(claimed.group(1))


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_a_command_that_exists_as_a_user_without_rights(name):
    program, command, option, _folder = values(name, "ExecStart")[0].split()
    module = MODULES[Path(program).name]
    shown = subprocess.run(
        [sys.executable, "-m", module, command, "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert option in shown
    assert values(name, "User") == ["fedward"]
    assert values(name, "CapabilityBoundingSet") == values(name, "AmbientCapabilities") == [""]
    for key in ("NoNewPrivileges", "PrivateDevices", "ProtectHome", "PrivateTmp"):
        assert values(name, key) == ["yes"], key
    assert values(name, "ProtectSystem") == ["strict"]
    assert values(name, "StateDirectoryMode") == ["0700"]
    assert values(name, "LimitCORE") == ["0"]
    assert values(name, "MemoryDenyWriteExecute") == []  # PyTorch would fail


def test_the_sites_unit_reads_scans_only_and_reaches_one_address_only():
    assert values("fedward-site.service", "ReadOnlyPaths") == ["/srv/dicom"]
    assert values("fedward-site.service", "IPAddressDeny") == ["any"]
    assert "localhost" in values("fedward-site.service", "IPAddressAllow")


def test_the_gpu_drop_in_opens_nvidia_devices_only():
    assert values("fedward-site-gpu.conf", "DevicePolicy") == ["closed"]
    assert all("nvidia" in device for device in values("fedward-site-gpu.conf", "DeviceAllow"))


def nginx_text() -> str:
    lines = (DEPLOY / "nginx.conf").read_text(encoding="utf-8").splitlines()
    return "\n".join(line.partition("#")[0].rstrip() for line in lines)


def test_nginx_lets_through_the_gateways_paths_and_nothing_else():
    locations = re.findall(r'location (~ )?("?)(\S+?)\2 \{', nginx_text())
    assert [place for _, _, place in locations][1:] == ["/"]
    pattern = re.compile(locations[0][2])
    assert {path for path in PATHS if pattern.search(path)} == set(PATHS)
    alternatives = re.search(r"\(([a-z|-]+)\)", pattern.pattern).group(1).split("|")
    assert {f"/v1/fleet/{name}" for name in alternatives} == set(FLEET_PATHS)
    for path in CONTROL_PATHS + tuple(f"{good}/x" for good in PATHS) + tuple(f"/x{good}" for good in PATHS):
        assert not pattern.search(path), path
    rest = nginx_text().split("location / {")[1]
    assert "return 404;" in rest
    assert "proxy_pass" not in rest


def test_nginx_has_the_gateways_limits_and_checks_its_certificate():
    text = nginx_text()
    assert f"client_max_body_size {Limits().max_body_bytes >> 20}m;" in text
    assert "ssl_protocols       TLSv1.3;" in text
    assert "proxy_ssl_verify on;" in text
    assert "limit_except POST { deny all; }" in text
    assert text.count("{") == text.count("}")
    assert all(line.rstrip().endswith((";", "{", "}")) for line in text.splitlines() if line.strip())


def container_lines() -> list[str]:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_what_the_container_file_copies_exists_or_is_made_by_make(repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    for line in container_lines():
        words = line.split()
        if words[0] == "COPY" and not words[1].startswith("--from"):
            assert (repository / words[1]).exists() or f"-d {words[1].strip('/')} " in makefile, line
    assert "sha256sum *.whl > SHA256SUMS" in makefile


def test_the_container_file_starts_commands_that_exist_as_an_ordinary_user():
    lines = container_lines()
    stages = [line.split(" AS ")[1] for line in lines if line.startswith("FROM ")]
    assert stages[-2:] == ["site", "server"]
    entries = [re.findall(r'"([^"]+)"', line)[0] for line in lines if line.startswith("ENTRYPOINT")]
    arguments = [re.findall(r'"([^"]+)"', line) for line in lines if line.startswith("CMD")]
    assert entries == ["fedward-site", "fedward-server"]
    for entry, (command, option, _folder) in zip(entries, arguments, strict=True):
        shown = subprocess.run(
            [sys.executable, "-m", MODULES[entry], command, "--help"],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
        assert option in shown
    assert lines.index("USER fedward") < lines.index("FROM runtime AS site")


def test_every_file_of_the_folder_is_on_its_page():
    listed = set(re.findall(r"\]\(([\w.-]+)\)", (DEPLOY / "README.md").read_text(encoding="utf-8")))
    assert {file.name for file in DEPLOY.iterdir()} - {"README.md"} == listed

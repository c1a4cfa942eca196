"""What Flower packs, and what pip builds: exactly our four packages, and nothing a hospital would be surprised by."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

CONSOLE_SCRIPTS = ("fedward-sim", "fedward-server", "fedward-site")


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory) -> Path:
    """The wheel as `pip wheel .` makes it (the build backend comes from the installed environment)."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(out), str(repository)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0 and "hatchling" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("no package index here, so the build backend cannot be fetched")
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_four_packages_and_their_data_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"client", "common", "server", "simulation"}
    endings = {Path(name).suffix for name in names if ".dist-info/" not in name}
    assert endings <= {".py", ".safetensors", ".toml", ".proto", ".pyi", ".html", ".css", ".js", ".svg", ""}
    assert any(name.startswith("common/data/") and name.endswith(".safetensors") for name in names)


@pytest.mark.slow
def test_the_commands_work_from_a_wheel_in_a_new_environment(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True, system_site_packages=False)
    # the dependencies are those of this environment (installing them again takes minutes); our code is the wheel's
    site_packages = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    here = next(path for path in map(Path, sys.path) if (path / "torch").is_dir())
    (site_packages / "dependencies.pth").write_text(f"{here}\n")
    pip = [str(tmp_path / "venv" / "bin" / "python"), "-m", "pip"]
    subprocess.run([*pip, "install", "--no-deps", "--quiet", str(wheel)], check=True, timeout=120)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for name in CONSOLE_SCRIPTS:
        command = [str(tmp_path / "venv" / "bin" / name), "--version"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment, timeout=60
        )
        assert done.stdout.startswith(name)


def test_flower_packs_code_and_settings_only(repository, tmp_path):
    flwr = Path(sys.executable).parent / "flwr"
    copy = tmp_path / "fedward"
    copy.mkdir()
    (copy / "pyproject.toml").write_bytes((repository / "pyproject.toml").read_bytes())
    for package in ("client", "common", "server"):
        shutil.copytree(repository / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    done = subprocess.run(
        [str(flwr), "build"], cwd=copy, capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = zipfile.ZipFile(next(copy.glob("*.fab"))).namelist()
    code = [name for name in names if name.endswith(".py")]
    assert "server/app.py" in code
    assert "client/app.py" in code
    assert {name.split("/")[0] for name in code} <= {"client", "common", "server"}

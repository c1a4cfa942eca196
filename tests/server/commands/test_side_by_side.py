"""Two federations on one machine: made one after the other, both not running."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import ExitCode
from server.__main__ import app
from server.federation.config import read_coordinator_config

REPOSITORY = Path(__file__).resolve().parents[3]


def made(folder, port):
    line = ["init", str(folder), "--federation", "lungs", "--address", f"localhost:{port}"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    return read_coordinator_config(folder / "coordinator.toml")


def test_a_second_federation_gets_another_superlink_port_though_the_first_does_not_run(tmp_path):
    first, second, third = (made(tmp_path / name, 9000 + number) for number, name in enumerate("abc"))
    ports = [each.loopback.superlink_port for each in (first, second, third)]
    assert len(set(ports)) == 3
    assert ports == sorted(ports)


def test_settings_beside_it_that_cannot_be_read_disturb_nobody(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "coordinator.toml").write_text("no = settings")
    assert made(tmp_path / "b", 9001).loopback.superlink_port


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_one_sentence(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk))
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (disk / "filler").write_bytes(bytes(60 * 1024))
        line = (
            sys.executable,
            "-m",
            "server",
            "init",
            str(disk / "f"),
            "--federation",
            "lungs",
            "--address",
            "localhost:9009",
        )
        done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    finally:
        subprocess.run(("umount", str(disk)), check=True)
    assert done.returncode == ExitCode.DISK_FULL, done.stderr
    assert "bug" not in done.stderr
    assert "Traceback" not in done.stderr

"""The check for machines with a GPU runs where nothing of ours is installed, and says what does not hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from simulation.benchmarks import gpu, gpu_right
from simulation.benchmarks.gpu_speed import rows

CHECKOUT = Path(gpu.__file__).parents[2]
ONLY_TORCH = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pydantic", "cryptography", "typer", "rich", "flwr", "opacus", "msgpack", "pydicom"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from simulation.benchmarks.gpu import main
sys.exit(main(["--device", "cpu", "--small", "--limit-s", "0", "--json", sys.argv[1]]))
"""


def test_it_needs_pytorch_and_the_checkout_only_and_names_rows_that_it_has_no_time_for(tmp_path):
    command = [sys.executable, "-c", ONLY_TORCH, str(tmp_path / "found.json")]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(check["ok"] for check in found["checks"])
    assert {row["reason"] for row in found["rows"]} == {"no time left"}


def test_a_row_is_measured_in_each_precision_and_memory_format(monkeypatch):
    monkeypatch.setattr("simulation.benchmarks.gpu_speed.TURNS", 1)
    found = list(rows("cpu", deadline_s=float("inf"), small=True))
    assert {(row.precision, row.memory_format) for row in found} == {
        (precision, layout) for precision in ("float32", "bfloat16") for layout in ("contiguous", "channels_last")
    }
    assert all(row.ratio_to_plain > 0 and not row.reason for row in found)
    assert gpu.line(found[0]).count("|") == gpu.line(rows_without_time()).count("|")


def rows_without_time():
    return next(rows("cpu", deadline_s=0, small=True))


def test_a_wrong_engine_is_found(monkeypatch):
    def wrong(problem, stack):
        return 1.5 * gpu_right.loop_gradients(problem, stack)

    monkeypatch.setattr(gpu_right, "vmap_gradients", wrong)
    check = gpu_right._engines_agree(gpu_right.TINY[0], "cpu")
    assert not check.ok
    assert "vmap 5.0e-01" in check.detail


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert gpu.main([]) == 1
    assert "sees none" in capsys.readouterr().err

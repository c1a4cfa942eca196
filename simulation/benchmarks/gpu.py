"""One prepared check of a machine with a GPU: is private training right there, and how fast is it?

    make gpu-check                                    (a fresh machine: PyTorch for CUDA, numpy, and this checkout)
    python -m simulation.benchmarks.gpu --json FILE   (the same; FILE also holds the table's figures)

First what must hold (``gpu_right``), then times (``gpu_speed``): a row that the time left has no room for says so.
Nothing of ours needs to be installed, so this reads its arguments without the libraries that our commands use. Exit
status 1: something is wrong, or there is no such device. Ends within ``--limit-s`` and one row.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from simulation.benchmarks.gpu_right import Check, checks
from simulation.benchmarks.gpu_speed import SpeedRow, rows

LIMIT_S: Final = 400.0  # of the eight minutes that a check may take on a machine that is lent


def measured(device: str, *, limit_s: float, small: bool) -> dict[str, Any]:
    """Return what was found, as JSON has it: machine, checks, rows. Progress goes to standard error."""
    deadline_s = time.monotonic() + limit_s
    found: list[Check] = []
    for check in checks(device, small=small):
        _say(f"{'ok ' if check.ok else 'NOT'} {check.name}: {check.detail}")
        found.append(check)
    timed: list[SpeedRow] = []
    for row in rows(device, deadline_s=deadline_s, small=small):
        _say(line(row))
        timed.append(row)
    return {
        "machine": _machine(device),
        "checks": [asdict(check) for check in found],
        "rows": [asdict(row) for row in timed],
    }


def line(row: SpeedRow) -> str:
    """Return a row of the table for ``docs/benchmarks.md``."""
    head = f"| {row.model} | {row.precision} | {row.memory_format} | "
    if row.reason:
        return f"{head}not measured: {row.reason} | | | | | |"
    times = f"{row.plain_ms:.1f} | {row.private_ms:.1f} | {row.ratio_to_plain:.2f}"
    return f"{head}{row.engine} | {times} | {row.busy:.0%} | {row.peak_mb:.0f} |"


def main(arguments: list[str] | None = None) -> int:
    """Run the check; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m simulation.benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="of PyTorch: cuda, cuda:1; cpu shows that it runs")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="no row begins after so many seconds")
    parser.add_argument("--small", action="store_true", help="tiny inputs: shows that it runs, measures nothing")
    parser.add_argument("--json", type=Path, help="where the result is written")
    asked = parser.parse_args(arguments)
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        _say(f"no GPU: PyTorch {torch.__version__} sees none; install PyTorch for CUDA, or pass --device cpu --small")
        return 1
    result = measured(asked.device, limit_s=asked.limit_s, small=asked.small)
    text = json.dumps(result, indent=1)
    if asked.json:
        asked.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 0 if all(check["ok"] for check in result["checks"]) else 1


def _machine(device: str) -> dict[str, str]:
    on_gpu = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "processor",
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "cudnn": str(torch.backends.cudnn.version()) if on_gpu else "",  # type: ignore[no-untyped-call]
    }


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())

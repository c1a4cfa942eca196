"""What a round costs without training: our loopback against Flower's own simulation runtime on Ray.

    python -m simulation.benchmarks.rounds [--json] [--sites 4 --sites 16 --sites 100] [--rounds 12] [--no-ray]

The app, the study and the made-up updates are the same on both: everything but training, with all durable writes on
(ledger, journals, outbox, sums, checkpoints). Rounds are timed apart from the start, in turn on both sides: medians of
wall clock, and processor time beside it. Compare the columns of a row, not rows of different days. Two more columns
are not in turn: Flower's own FedAvg on Ray, which protects nothing, and a loop of plain averaging without messages.
``--real`` adds how much of a real training round is not training.
"""

import argparse
import importlib.util
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from simulation.benchmarks.rounds_bare import fedavg_on_ray_ms, loop_ms
from simulation.benchmarks.rounds_real import as_json, measure_real_round
from simulation.benchmarks.rounds_timed import measure_in_turns, prepare_process

MOST_RAY_SITES = 16  # one actor opens and serves all sites one after the other: 100 take many minutes


@dataclass(frozen=True, slots=True)
class Row:
    """One number of sites; milliseconds of a round (median), seconds until the first round was done. None: not run."""

    sites: int
    ours_ms_per_round: float
    flower_ray_ms_per_round: float | None
    nvflare_ms_per_round: float | None
    ours_start_s: float
    flower_ray_start_s: float | None
    ours_cpu_ms_per_round: float | None
    flower_ray_cpu_ms_per_round: float | None
    ray_over_ours: float | None
    flower_fedavg_ray_ms_per_round: float | None
    loop_ms_per_round: float


def measured_row(sites: int, rounds: int, *, with_ray: bool) -> tuple[Row, str, str]:
    """Measure one number of sites; also say why Ray's columns and FedAvg's are empty, "" where they are not."""
    both = measure_in_turns(sites, rounds, with_ray=with_ray and sites <= MOST_RAY_SITES)
    ours, ray = both.ours, both.ray
    fedavg_ms, why_no_fedavg = fedavg_on_ray_ms(sites, rounds) if with_ray else (None, "not asked for")
    row = Row(
        sites,
        ours.ms_per_round,
        ray.ms_per_round if ray else None,
        None,
        ours.start_s,
        ray.start_s if ray else None,
        ours.cpu_ms_per_round,
        ray.cpu_ms_per_round if ray else None,
        ray.ms_per_round / ours.ms_per_round if ray else None,
        fedavg_ms,
        loop_ms(sites, rounds),
    )
    is_large = with_ray and sites > MOST_RAY_SITES
    why_no_ray = f"not measured above {MOST_RAY_SITES} sites: minutes a round" if is_large else both.why_no_ray
    return row, why_no_ray, why_no_fedavg


def why_no_nvflare() -> str:
    """Say why NVFlare's column is empty."""
    if importlib.util.find_spec("nvflare") is None:
        return "not measured: nvflare is not installed (it is no dependency of this project)"
    return "not measured: nvflare is installed, but cannot run this app, and another app would be another measurement"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sites", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--real", action=argparse.BooleanOptionalAction, default=True)
    chosen = parser.parse_args()
    prepare_process()
    measured = [measured_row(sites, chosen.rounds, with_ray=chosen.ray) for sites in chosen.sites or [4, 16, 100]]
    rows = [row for row, *_ in measured]
    real = as_json(measure_real_round()) if chosen.real else None
    if chosen.json:
        notes = {
            "nvflare": why_no_nvflare(),
            "flower_ray": {row.sites: why for row, why, _ in measured if why},
            "flower_fedavg_ray": {row.sites: why for row, _, why in measured if why},
            "rounds": chosen.rounds,
        }
        answer = {"rows": [asdict(row) for row in rows], "real_round": real, "notes": notes}
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    _show(rows, real)
    for row, *reasons in measured:
        for name, why in zip(("our app on Ray", "FedAvg on Ray"), reasons, strict=True):
            if why:
                sys.stdout.write(f"{row.sites} sites, {name}: {why}\n")


def _show(rows: list[Row], real: dict[str, Any] | None) -> None:
    table = Table(
        "sites",
        "ours, ms a round",
        "Ray",
        "ratio",
        "ours, CPU ms",
        "Ray",
        "ours, first round s",
        "Ray",
        "FedAvg on Ray, ms",
        "loop, ms",
    )
    for row in rows:
        shown = (
            row.ours_ms_per_round,
            row.flower_ray_ms_per_round,
            row.ray_over_ours,
            row.ours_cpu_ms_per_round,
            row.flower_ray_cpu_ms_per_round,
            row.ours_start_s,
            row.flower_ray_start_s,
            row.flower_fedavg_ray_ms_per_round,
            row.loop_ms_per_round,
        )
        table.add_row(str(row.sites), *("" if value is None else f"{value:.3g}" for value in shown))
    console = Console()
    console.print(table)
    if real:
        share = real["control_plane_share"]
        console.print(f"of a real round of {real['seconds']:.2f} s, {share:.1%} is not training, scoring or masking")


if __name__ == "__main__":
    main()

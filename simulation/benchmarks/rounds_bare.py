"""What the rounds are held against: Flower's own FedAvg on Ray, and a loop in one process without any message.

Both average as many float32 weights as the study of ``rounds_timed``, of the same sites, with updates that are ready.
FedAvg is what a user of Flower runs: its strategy, its ``run_simulation``, its defaults; no secure aggregation, no
signature, no ledger, nothing durable. The loop is the arithmetic alone.
"""

import time
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

PARAMETERS = 24_000  # of the study of ``rounds_timed.bare_scenario``


def fedavg_on_ray_ms(sites: int, rounds: int) -> tuple[float | None, str]:
    """Return the median of a round after the first, in milliseconds; None and why, where it cannot be had."""
    try:
        from simulation.runtime.ray_fedavg import fedavg_rounds  # noqa: PLC0415 (optional extra)

        ends = fedavg_rounds(sites, rounds, np.zeros(PARAMETERS, np.float32))
    except ImportError:
        return None, "not measured: ray is not installed (an extra of Flower: `pip install flwr[simulation]`)"
    except RuntimeError as error:
        return None, f"not measured: Flower's simulation failed: {error}"
    if len(ends) < rounds:
        return None, f"not measured: Flower's simulation ended after {len(ends)} of {rounds} rounds"
    return 1000 * median(later - earlier for earlier, later in pairwise(ends)), ""


def loop_ms(sites: int, rounds: int) -> float:
    """Return the median of a round of plain averaging in this process, in milliseconds."""
    model: NDArray[np.float32] = np.zeros(PARAMETERS, np.float32)
    updates = [np.full(PARAMETERS, 1e-3 * site, np.float32) for site in range(sites)]
    spent_s = []
    for _ in range(max(rounds, 5)):
        began_s = time.perf_counter()
        total = np.zeros_like(model)
        for update in updates:
            total += update
        model += total / np.float32(sites)
        spent_s.append(time.perf_counter() - began_s)
    return 1000 * median(spent_s)

"""How far hostile hospitals move the median of groups and the mean, and what it costs when nobody is hostile.

    python -m simulation.benchmarks.group_medians

Numbers only: honest patients, noise as the protocol places it, and attackers who add the longest vector that the bound
on their sum (``server.model.norm_bound``) leaves them. The numbers of ``docs/threat-model.md`` are printed here.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

PARAMETERS: Final = 2000
DRAWS: Final = 64
RATE, PATIENTS, SIGMA, COLLUDERS, GROUP = 0.2, 100, 2.0, 1, 3
AGREEMENT: Final = 0.3  # length of the mean gradient of honest patients, each of length 1
CASES: Final = (0, "nobody"), (1, "spread"), (1, "one coordinate"), (2, "spread"), (2, "one coordinate")

Vectors = NDArray[np.float64]


def longest(sites: int, honest: int) -> float:
    """Return the longest sum over so many sites that passes: ``norm_bound`` with labelled patients and C = 1."""
    expected = 1.1 * RATE * PATIENTS * sites
    signal, noise = expected + 6 * math.sqrt(expected), SIGMA * math.sqrt(sites / honest)
    spread = PARAMETERS + 6 * math.sqrt(2 * PARAMETERS)
    return math.sqrt(signal**2 + 12 * signal * noise + noise**2 * spread)


def with_attack(honest_sum: Vectors, direction: Vectors, limit: float) -> Vectors:
    """Return a sum of length ``limit`` that lies as far along ``direction`` as an attacker can push it."""
    along, length = float(np.dot(honest_sum, direction)), float(np.linalg.norm(honest_sum))
    room = limit**2 - length**2 + along**2
    return np.asarray(honest_sum + (math.sqrt(max(room, 0.0)) - along) * direction)


def mean_of(updates: Vectors, hostile: NDArray[np.bool_], direction: Vectors, honest: int) -> Vectors:
    """Return the mean of a sum of these sites' updates, where the hostile ones may have added to it."""
    total = updates[~hostile].sum(0)
    if hostile.any():
        total = with_attack(total, direction, longest(len(updates), honest))
    return np.asarray(total / (RATE * PATIENTS * len(updates)))


def one_draw(sites: int, attackers: int, kind: str, generator: np.random.Generator) -> list[float]:
    """Return how far mean and median lie along the attack, and how far from the truth."""
    agreed = np.full(PARAMETERS, 1 / math.sqrt(PARAMETERS))
    direction = -np.eye(1, PARAMETERS)[0] if kind == "one coordinate" else -agreed
    sampled = generator.binomial(PATIENTS, RATE, (sites, 1))
    own = math.sqrt((1 - AGREEMENT**2) / PARAMETERS) * generator.normal(size=(sites, PARAMETERS))
    signal = sampled * AGREEMENT * agreed + np.sqrt(sampled) * own
    noise = SIGMA * generator.normal(size=(sites, PARAMETERS))
    hostile = np.zeros(sites, bool)
    hostile[generator.choice(sites, attackers, replace=False)] = True
    all_honest, group_honest = sites - sites // 4 - COLLUDERS, GROUP - COLLUDERS
    mean = mean_of(signal + noise / math.sqrt(all_honest), hostile, direction, all_honest)
    updates, drawn = signal + noise / math.sqrt(group_honest), generator.permutation(sites)[: sites - sites % GROUP]
    groups = [drawn[first :: sites // GROUP] for first in range(sites // GROUP)]
    median = np.median([mean_of(updates[each], hostile[each], direction, group_honest) for each in groups], axis=0)
    errors = [step - AGREEMENT * agreed for step in (mean, median)]
    return [*(float(error @ direction) for error in errors), *(float(np.linalg.norm(error)) for error in errors)]


def main() -> None:
    """Print one line for each case."""
    generator = np.random.default_rng(1)
    print("hospitals  hostile           along: mean       median  error: mean       median")
    for sites in (9, 12, 20):
        for attackers, kind in CASES:
            found = np.mean([one_draw(sites, attackers, kind, generator) for _ in range(DRAWS)], axis=0)
            figures = "  ".join(f"{figure:11.3f}" for figure in found)
            print(f"{sites:9}  {attackers} {kind:14}  {figures}")


if __name__ == "__main__":
    main()

"""The coordinate-wise median of the means of groups of hospitals, block by block, the same bits on every machine.

No hospital moves a coordinate beyond the means of the groups it is not in, while fewer than half of the groups hold a
hostile one. Each group's sum was opened by its own secure aggregation and holds the full noise, so the median is
post-processing of released values: it costs no epsilon.
Sources: Minsker 2015 (median of means); Yin et al. 2018 (coordinate-wise median in distributed learning).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.secagg.accumulator import SummedVector
from server.model.blocks import Computed, Vector, Weights


@dataclass(frozen=True, eq=False)
class GroupSum:
    """The opened sum of one group of a round, and whose it is."""

    attempt: int
    participants: tuple[str, ...]
    total: SummedVector


def median(means: Sequence[Weights]) -> Weights:
    """Return the median of at least one vector in each coordinate: of an even number the mean of the middle two."""
    middle = len(means) // 2

    def of_block(block: slice) -> Vector:
        ranked = np.sort(np.stack([mean[block] for mean in means]), axis=0)
        if len(means) % 2:
            return np.ascontiguousarray(ranked[middle], np.float32)
        return np.ascontiguousarray((ranked[middle - 1] + ranked[middle]) * np.float32(0.5), np.float32)

    return Computed(means[0].size, of_block)


def summed_counts(metas: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Return the evaluation counts (meta words,) of all groups together, modulo 2^64 as each sum is."""
    total = np.zeros_like(metas[0])
    for meta in metas:
        total += meta
    return total

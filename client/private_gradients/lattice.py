"""The lattice of a clipped sum where the plan's words do not decide it. Knows nothing of PyTorch: an agent reads it."""

import math
from typing import Final

FINEST_BITS: Final = 20


def finest_step(clipping_norm: float, num_parameters: int) -> float:
    """Return the power of two 2^floor(log2(C 2^-20 / sqrt(d))): rounding then adds less than 2^-20 C.

    Raises: ValueError unless 0 < clipping_norm < inf.
    """
    require_clipping_norm(clipping_norm)
    return float(2.0 ** math.floor(math.log2(clipping_norm * 2.0**-FINEST_BITS / math.sqrt(max(1, num_parameters)))))


def require_clipping_norm(clipping_norm: float) -> None:
    """Raise ValueError unless 0 < clipping_norm < inf."""
    if not 0 < clipping_norm < math.inf:
        raise ValueError(f"clipping norm is {clipping_norm!r}; a positive finite number is needed")

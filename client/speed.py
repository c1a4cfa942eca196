"""Settings of one site that change how fast it works, and nothing that leaves it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Speed:
    """``device``: torch device of training. ``patients_at_once``: bounds memory. ``masking_threads``: of the vector."""

    device: str = "cpu"
    patients_at_once: int = 16
    masking_threads: int = 1

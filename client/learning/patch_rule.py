"""Which patches of a scan a patient gives a step, as numbers; settings are read without PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PatchRule:
    """``size_px``: of a patch; ``count``: patches of a patient in a step; ``foreground_share``: chance of a patch."""

    size_px: tuple[int, ...]
    count: int
    foreground_share: float

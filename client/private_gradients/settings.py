"""What a site may choose about its private gradients. Knows nothing of PyTorch, so that an agent may read it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MOST_PATIENTS: Final = 4096  # side by side, whatever a site asks for


class EngineName(StrEnum):
    """Which engine computes the gradients. A setting of speed: the result is the same to rounding."""

    AUTO = "auto"
    LOOP = "loop"
    VMAP = "vmap"
    BOOK_KEEPING = "book_keeping"


@dataclass(frozen=True)
class SpeedSettings:
    """The site's own settings: they change time and memory, never the clip or the guarantee.

    engine: ``auto`` times the engines on one or two made-up patients and keeps the fastest that is sound (``choice``);
    with one patient at a time it is the loop, on a processor without a whole gradient in memory (``layer_by_layer``).
    autocast: bfloat16 forward and backward where that keeps patients apart (``choice``), float32 elsewhere; gradients,
    norms and sums are float32 or wider in any case.
    compile: also try ``torch.compile`` of the gradients, and keep it if it is sound and faster; it takes a minute for
    each phase and stratum.
    """

    engine: EngineName = EngineName.AUTO
    autocast: bool = False
    compile: bool = False

"""What the plan's network makes of each phase, as numbers: all that checks and the protocol need to know of a network.

Finding them takes PyTorch (200 MB of memory for as long as a process lives); using them does not. Whoever must stay
small, like a hospital's agent, asks a child process (``client.processes.shapes_beside``).
"""

from collections.abc import Callable
from dataclasses import dataclass

from common.plan.plan import StudyPlan


@dataclass(frozen=True)
class PhaseShape:
    """One phase.

    ``num_parameters``, ``layout_hash``: of what it trains. ``travelling_parameters``: how many go out with its orders.
    ``frozen_digest``: 32 bytes over the start weights that do not travel (``common.plan.start.frozen_digest``).
    """

    num_parameters: int
    layout_hash: str
    travelling_parameters: int
    frozen_digest: bytes


Shapes = tuple[PhaseShape, ...]
ShapesOf = Callable[[StudyPlan], Shapes]

"""What the plan's network makes of each phase, as numbers: all that checks and the protocol need to know of a network.

Layouts follow from the plan's own words (``common.networks.shapes``). The digest of start weights that never travel
takes PyTorch (200 MB of memory for as long as a process lives); using it does not. Whoever must stay small, like a
hospital's agent, asks a child process (``client.processes.shapes_beside``).
"""

from collections.abc import Callable
from dataclasses import dataclass

from common.networks.layouts import layout_of
from common.networks.shapes import network_parameters
from common.networks.shipped_weights import check_initialisation
from common.plan.plan import StudyPlan
from common.plan.task import SEEDED


@dataclass(frozen=True)
class PhaseLayout:
    """One phase.

    ``num_parameters``, ``layout_hash``: of what it trains. ``travelling_parameters``: how many go out with its orders.
    """

    num_parameters: int
    layout_hash: str
    travelling_parameters: int


@dataclass(frozen=True)
class PhaseShape(PhaseLayout):
    """A phase with ``frozen_digest``: 32 bytes over the start weights that do not travel (``common.plan.start``)."""

    frozen_digest: bytes


Layouts = tuple[PhaseLayout, ...]
Shapes = tuple[PhaseShape, ...]
ShapesOf = Callable[[StudyPlan], Shapes]


def phase_layouts(plan: StudyPlan) -> Layouts:
    """Return the layout of every phase of a plan, and check that its start weights fit; PyTorch is not needed.

    Raises: NetworkUnsuitableError, WeightsInvalidError.
    """
    parameters = plan_parameters(plan)
    if plan.network.initialisation != SEEDED:
        check_initialisation(dict(parameters), plan.network.initialisation)
    found = []
    for index, phase in enumerate(plan.phases):
        trained = layout_of(parameters, phase.trainable.value)
        travelling = layout_of(parameters, sorted({earlier.trainable.value for earlier in plan.phases[: index + 1]}))
        found.append(PhaseLayout(trained.num_parameters, trained.digest, travelling.num_parameters))
    return tuple(found)


def largest_layout(plan: StudyPlan) -> int:
    """Return the number of parameters of the phase that trains most. Raises: NetworkUnsuitableError."""
    parameters = plan_parameters(plan)
    return max(layout_of(parameters, phase.trainable.value).num_parameters for phase in plan.phases)


def plan_parameters(plan: StudyPlan) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return name and shape of each parameter of the plan's network. Raises: NetworkUnsuitableError."""
    return network_parameters(
        plan.network.name,
        dimensions=plan.task.dimensions,
        classes=len(plan.task.classes),
        width=plan.network.width,
        channels=plan.image.channels,
        features=plan.network.features,
        hidden_units=plan.network.hidden_units,
    )

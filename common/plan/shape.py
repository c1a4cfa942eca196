"""What the plan's network makes of each phase, as numbers: all that checks and the protocol need to know of a network.

Layouts follow from the plan's own words (``common.networks.shapes``). The digest of start weights that never travel
takes PyTorch (200 MB of memory for as long as a process lives); using it does not. Whoever must stay small, like a
hospital's agent, asks a child process (``client.processes.shapes_beside``).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from common.networks.errors import NetworkUnsuitableError
from common.networks.layouts import layout_of
from common.networks.ridge import MOST_FEATURES, moments_length
from common.networks.settings import NetworkSettings
from common.networks.shapes import parameters_of
from common.networks.shipped_weights import check_initialisation
from common.plan.phases import Method, Phase
from common.plan.plan import StudyPlan
from common.plan.task import SEEDED


@dataclass(frozen=True)
class PhaseLayout:
    """One phase.

    ``num_parameters``, ``layout_hash``: of what it trains. ``travelling_parameters``: how many go out with its orders.
    ``sum_length``: numbers of a sum that comes back: as many as it trains, but for sums that a head is solved from.
    """

    num_parameters: int
    layout_hash: str
    travelling_parameters: int
    sum_length: int


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
        length = sum_length(parameters, phase)
        found.append(PhaseLayout(trained.num_parameters, trained.digest, travelling.num_parameters, length))
    return tuple(found)


def longest_sum(plan: StudyPlan) -> int:
    """Return the numbers of the longest sum of any phase. Raises: NetworkUnsuitableError."""
    parameters = plan_parameters(plan)
    return max(sum_length(parameters, phase) for phase in plan.phases)


def sum_length(parameters: Iterable[tuple[str, tuple[int, ...]]], phase: Phase) -> int:
    """Return the numbers of a sum of ``phase``; ``parameters``: name and shape of each of the network's, in order.

    Raises: NetworkUnsuitableError for a method that needs what the network lacks.
    """
    shapes = dict(parameters)
    if phase.method is not Method.RIDGE:
        return layout_of(shapes.items(), phase.trainable.value).num_parameters
    norm, head = shapes.get("feature_norm.weight"), shapes.get("head.weight")
    if norm is None or head is None or head[1:] != norm:
        raise NetworkUnsuitableError("method = ridge needs a network with a feature norm and a linear head on it")
    if norm[0] > MOST_FEATURES:
        raise NetworkUnsuitableError(
            f"method = ridge takes at most {MOST_FEATURES} features, the network has {norm[0]}"
        )
    return moments_length(norm[0], head[0])


def plan_parameters(plan: StudyPlan) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return name and shape of each parameter of the plan's network. Raises: NetworkUnsuitableError."""
    return parameters_of(network_settings(plan))


def network_settings(plan: StudyPlan) -> NetworkSettings:
    """Return what the plan's network is built from. Raises: NetworkUnsuitableError."""
    return NetworkSettings(
        plan.network.name,
        dimensions=plan.task.dimensions,
        classes=len(plan.task.classes),
        width=plan.network.width,
        channels=plan.image.channels,
        features=plan.network.features,
        hidden_units=plan.network.hidden_units,
        projection=plan.network.projection,
        levels=plan.network.levels,
        prior_size=plan.prior_size,
    )

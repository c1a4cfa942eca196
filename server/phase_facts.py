"""What a phase of the plan is for the server: which weights travel, and every digest that its orders carry."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.errors import PlanInvalidError
from common.parameters import Layout, flatten, layout
from common.plan.fitting import phase_layout, travelling_layout
from common.plan.phases import Phase
from common.plan.plan import StudyPlan
from common.plan.protocol import privacy_digest, task_digest, vector_spec
from common.plan.schedule import count_layout
from common.plan.start import frozen_digest, start_network
from common.secagg.order import model_digest
from common.secagg.vector import VectorSpec

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PhaseFacts:
    """One phase.

    Shapes: trained, travels (all parameters,) bool: which of the network's parameters this phase trains, and which go
    out with its orders (those of earlier phases too), in their fixed order.
    """

    index: int
    phase: Phase
    trained: NDArray[np.bool_]
    travels: NDArray[np.bool_]
    vector: VectorSpec
    layout_digest: bytes
    frozen_digest: bytes
    task_digest: bytes
    privacy_digest: bytes

    def travelling(self, parameters: Vector) -> Vector:
        """Return a copy of the part of all parameters that goes out with an order, little-endian float32."""
        return np.ascontiguousarray(parameters[self.travels], dtype="<f4")

    def model_digest(self, travelling: Vector) -> bytes:
        """Return the digest of the model whose travelling part this is."""
        return model_digest(self.layout_digest, self.frozen_digest, travelling.data.cast("B"))


@dataclass(frozen=True, eq=False)
class StudyNetwork:
    """The plan's network: layout of all parameters, their public start values, and the phases."""

    everything: Layout
    start: Vector
    phases: tuple[PhaseFacts, ...]


def named_parameters(network: StudyNetwork, parameters: Vector) -> dict[str, Vector]:
    """Return all weights by parameter name, each in its shape (views)."""
    return {
        entry.name: parameters[entry.offset : entry.offset + entry.size].reshape(entry.shape)
        for entry in network.everything.entries
    }


def study_network(plan: StudyPlan) -> StudyNetwork:
    """Build the public start of a plan and the facts of its phases.

    Raises: PlanInvalidError if a layout hash is wrong; NetworkUnsuitableError, WeightsInvalidError, VectorRefusedError.
    """
    network = start_network(plan)
    everything = layout(network)
    phases = tuple(_phase_facts(plan, index, network, everything) for index in range(len(plan.phases)))
    return StudyNetwork(everything, flatten(network, everything).numpy().copy(), phases)


def _phase_facts(plan: StudyPlan, index: int, network: nn.Module, everything: Layout) -> PhaseFacts:
    phase = plan.phases[index]
    order, travelling = phase_layout(network, phase), travelling_layout(network, plan, index)
    if order.digest != phase.layout_hash:
        raise PlanInvalidError(f"phase {phase.name}: layout_hash does not fit the network; run `plan check`")
    spec = vector_spec(plan, body_length=order.num_parameters, meta_words=count_layout(plan).length)
    spec.check()
    return PhaseFacts(
        index=index,
        phase=phase,
        trained=_places(everything, order),
        travels=_places(everything, travelling),
        vector=spec,
        layout_digest=bytes.fromhex(order.digest),
        frozen_digest=frozen_digest(network, travelling),
        task_digest=task_digest(plan, phase),
        privacy_digest=privacy_digest(plan),
    )


def _places(everything: Layout, part: Layout) -> NDArray[np.bool_]:
    """Return which of all parameters lie in ``part``."""
    names = {entry.name for entry in part.entries}
    places = np.zeros(everything.num_parameters, np.bool_)
    for entry in everything.entries:
        places[entry.offset : entry.offset + entry.size] = entry.name in names
    return places

"""What a phase of the plan is for the server: which weights travel, and every digest that its orders carry."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from torch import nn

from common.networks.parameters import Layout, layout
from common.plan.errors import PlanInvalidError
from common.plan.fitting import lattice_step
from common.plan.network import phase_layout, plan_shape, travelling_layout
from common.plan.phases import Phase
from common.plan.plan import StudyPlan
from common.plan.protocol import privacy_digest, task_digest, vector_spec
from common.plan.schedule import count_layout
from common.plan.shape import plan_parameters, sum_length
from common.plan.start import frozen_digests, start_vector
from common.secagg.order import model_digest, model_digest_of
from common.secagg.vector import VectorSpec
from server.model.blocks import Vector, Weights, blocks, part_of, whole
from server.model.norm_bound import largest_norm

__all__ = ["PhaseFacts", "StudyNetwork", "Vector", "named_parameters", "study_network"]


@dataclass(frozen=True, eq=False)
class PhaseFacts:
    """One phase.

    ``trained``: where the parameters that it trains lie among all (one piece, because a part of a network is one
    module). ``travels``: the pieces that go out with its orders (those of earlier phases too), in their fixed order.
    """

    index: int
    phase: Phase
    trained: slice
    travels: tuple[slice, ...]
    vector: VectorSpec
    layout_digest: bytes
    frozen_digest: bytes
    task_digest: bytes
    privacy_digest: bytes

    @property
    def travelling_parameters(self) -> int:
        """How many parameters go out with an order."""
        return sum(piece.stop - piece.start for piece in self.travels)

    def travelling(self, parameters: Weights) -> Vector:
        """Return the part of all parameters that goes out with an order, little-endian float32.

        It is a view of an array where the part is one piece (as in most plans), else new; of parameters in a file
        nothing else is read.
        """
        pieces = [whole(part_of(parameters, piece)) for piece in self.travels]
        return np.ascontiguousarray(pieces[0] if len(pieces) == 1 else np.concatenate(pieces), dtype="<f4")

    def largest_norm(self, plan: StudyPlan, participants: Collection[str]) -> float:
        """Return the longest sum of honest sites in units of the plan's lattice (``server.model.norm_bound``)."""
        return largest_norm(plan, self.phase, participants, num_parameters=self.vector.body_length) / lattice_step(plan)

    def model_digest(self, travelling: Vector) -> bytes:
        """Return the digest of the model whose travelling part this is."""
        return model_digest(self.layout_digest, self.frozen_digest, travelling.data.cast("B"))

    def digest_of(self, parameters: Weights) -> bytes:
        """Return ``model_digest(travelling(parameters))``, read block by block."""
        pieces = [part_of(parameters, piece) for piece in self.travels]
        parts = (
            np.ascontiguousarray(each[block], "<f4").data.cast("B") for each in pieces for block in blocks(each.size)
        )
        return model_digest_of(self.layout_digest, self.frozen_digest, parts)


@dataclass(frozen=True, eq=False)
class StudyNetwork:
    """The plan's network: layout of all parameters, and the phases."""

    everything: Layout
    phases: tuple[PhaseFacts, ...]
    plan: StudyPlan

    @property
    def start(self) -> Vector:
        """The public start values (all parameters,), drawn anew at each call: nobody needs them after the first round.

        Raises: WeightsInvalidError.
        """
        return start_vector(self.plan).numpy()


def named_parameters(network: StudyNetwork, parameters: Vector) -> dict[str, Vector]:
    """Return all weights by parameter name, each in its shape (views)."""
    return {
        entry.name: parameters[entry.offset : entry.offset + entry.size].reshape(entry.shape)
        for entry in network.everything.entries
    }


def study_network(plan: StudyPlan) -> StudyNetwork:
    """Return the facts of a plan's phases; start weights are built only to hash those that never travel.

    Raises: PlanInvalidError if a layout hash is wrong; NetworkUnsuitableError, WeightsInvalidError, VectorRefusedError.
    """
    network = plan_shape(plan)
    everything, frozen = layout(network), frozen_digests(plan)
    phases = tuple(
        _phase_facts(plan, index, network, everything, frozen_digest) for index, frozen_digest in enumerate(frozen)
    )
    return StudyNetwork(everything, phases, plan)


def _phase_facts(
    plan: StudyPlan, index: int, network: nn.Module, everything: Layout, frozen_digest: bytes
) -> PhaseFacts:
    phase = plan.phases[index]
    order, travelling = phase_layout(network, phase), travelling_layout(network, plan, index)
    if order.digest != phase.layout_hash:
        raise PlanInvalidError(f"phase {phase.name}: layout_hash does not fit the network; run `plan check`")
    length = sum_length(plan_parameters(plan), phase)
    spec = vector_spec(plan, body_length=length, meta_words=count_layout(plan).length)
    spec.check()
    (trained,) = _pieces(everything, order)
    return PhaseFacts(
        index=index,
        phase=phase,
        trained=trained,
        travels=_pieces(everything, travelling),
        vector=spec,
        layout_digest=bytes.fromhex(order.digest),
        frozen_digest=frozen_digest,
        task_digest=task_digest(plan, phase),
        privacy_digest=privacy_digest(plan),
    )


def _pieces(everything: Layout, part: Layout) -> tuple[slice, ...]:
    """Return where ``part`` lies among all parameters, as few pieces as there are."""
    names, pieces = {entry.name for entry in part.entries}, list[slice]()
    for entry in everything.entries:
        if entry.name not in names:
            continue
        end = entry.offset + entry.size
        if pieces and pieces[-1].stop == entry.offset:
            pieces[-1] = slice(pieces[-1].start, end)
        else:
            pieces.append(slice(entry.offset, end))
    return tuple(pieces)

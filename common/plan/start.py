"""The public start of a study: the network and the weights that everybody builds for themselves, bit for bit."""

import hashlib

import torch
from torch import Tensor, nn

from common.networks.initialisation import load_initialisation
from common.networks.parameters import Layout, layout
from common.networks.registry import set_first_weights
from common.plan.network import (
    phase_layout,
    plan_network,
    plan_shape,
    travelling_layout,
)
from common.plan.plan import StudyPlan
from common.plan.shape import PhaseShape, Shapes, plan_parameters, sum_length
from common.plan.task import SEEDED


def start_network(plan: StudyPlan) -> nn.Module:
    """Build the plan's network with its start weights: seeded, then the named public initialisation where there is one.

    Raises: NetworkUnsuitableError, WeightsInvalidError.
    """
    network = plan_network(plan)
    if plan.network.initialisation != SEEDED:
        load_initialisation(network, plan.network.initialisation)
    return network


def start_vector(plan: StudyPlan) -> Tensor:
    """Return all start weights as one float32 vector (num_parameters,), drawn in place: no second copy is ever held.

    Raises: NetworkUnsuitableError, WeightsInvalidError.
    """
    network = plan_shape(plan)
    everything = layout(network)
    vector = torch.empty(everything.num_parameters)
    for entry in everything.entries:
        place, _, own = entry.name.rpartition(".")
        values = vector[entry.offset : entry.offset + entry.size].view(entry.shape)
        setattr(network.get_submodule(place), own, nn.Parameter(values, requires_grad=False))
    set_first_weights(network, plan.network.name, seed=plan.network.seed, zero_head=plan.starts_with_zero_head)
    if plan.network.initialisation != SEEDED:
        load_initialisation(network, plan.network.initialisation)
    return vector


def phase_shapes(plan: StudyPlan) -> Shapes:
    """Return what the network makes of every phase (``common.plan.shape``).

    Raises: NetworkUnsuitableError, WeightsInvalidError.
    """
    shape, frozen = plan_shape(plan), frozen_digests(plan)
    found = []
    for index, phase in enumerate(plan.phases):
        order, travelling = phase_layout(shape, phase), travelling_layout(shape, plan, index)
        length = sum_length(plan_parameters(plan), phase)
        counts = (order.num_parameters, order.digest, travelling.num_parameters, length)
        found.append(PhaseShape(*counts, frozen_digest=frozen[index]))
    return tuple(found)


def frozen_digests(plan: StudyPlan) -> tuple[bytes, ...]:
    """Return the ``frozen_digest`` of every phase; seeded weights are built only where some do not travel.

    Raises: NetworkUnsuitableError, WeightsInvalidError.
    """
    shape = plan_shape(plan)
    parts = [travelling_layout(shape, plan, index) for index in range(len(plan.phases))]
    all_travel = {part.num_parameters for part in parts} == {layout(shape).num_parameters}
    # a named initialisation is small, and a name that this version lacks must be refused before a study begins
    start = shape if all_travel and plan.network.initialisation == SEEDED else start_network(plan)
    return tuple(frozen_digest(start, part) for part in parts)


def frozen_digest(start: nn.Module, travelling: Layout) -> bytes:
    """Return SHA-256 (32 bytes) over the start weights that do not travel with an order; zeros where all do.

    It enters the model digest of every order, so a site with other frozen weights refuses instead of training another
    model. Weights are hashed as little-endian float32 in the order of ``common.networks.parameters``.
    """
    names = {entry.name for entry in travelling.entries}
    frozen = {name: parameter for name, parameter in start.named_parameters() if name not in names}
    if not frozen:
        return bytes(32)
    digest = hashlib.sha256()
    for name, parameter in frozen.items():
        digest.update(name.encode() + b"\0")
        values = parameter.detach().reshape(-1).float().cpu().numpy().astype("<f4", copy=False)
        digest.update(values.data)
    return digest.digest()

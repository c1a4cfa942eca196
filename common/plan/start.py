"""The public start of a study: the network and the weights that everybody builds for themselves, bit for bit."""

import hashlib

from torch import nn

from common.initialisation import load_initialisation
from common.parameters import Layout, flatten, layout
from common.plan.fitting import plan_network
from common.plan.plan import StudyPlan

SEEDED = "seeded"


def start_network(plan: StudyPlan) -> nn.Module:
    """Build the plan's network with its start weights: seeded, then the named public initialisation where there is one.

    Raises: NetworkUnsuitableError, WeightsInvalidError.
    """
    network = plan_network(plan)
    if plan.network.initialisation != SEEDED:
        load_initialisation(network, plan.network.initialisation)
    return network


def frozen_digest(start: nn.Module, travelling: Layout) -> bytes:
    """Return SHA-256 (32 bytes) over the start weights that do not travel with an order; zeros where all do.

    It enters the model digest of every order, so a site with other frozen weights refuses instead of training another
    model. Weights are hashed as little-endian float32 in the order of ``common.parameters``.
    """
    everything = layout(start)
    names = {entry.name for entry in travelling.entries}
    frozen = [entry for entry in everything.entries if entry.name not in names]
    if not frozen:
        return bytes(32)
    vector = flatten(start, everything).numpy().astype("<f4", copy=False)
    digest = hashlib.sha256()
    for entry in frozen:
        digest.update(entry.name.encode() + b"\0")
        digest.update(vector[entry.offset : entry.offset + entry.size].tobytes())
    return digest.digest()

"""A study of one site without a federation: phases of private training and the server's step, in one process.

It drives the production code (``client.learning.training``, ``common.networks.standardisation``) and adds only what the
server does with a sum: divide by the public expected batch, take a step, average the models.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.dicom.record import Stratum
from client.learning.mechanism import LatticeNoise
from client.learning.patients import Patients
from client.learning.private_training import PrivateTraining
from client.learning.training_settings import Method, Placement, TrainingSettings
from client.learning.views import WEAK, draw_views, view
from common.networks.parameters import flatten, load
from common.networks.standardisation import standardised


@dataclass(frozen=True)
class PooledPhase:
    """A phase: training settings, rounds, and the server's rule (learning rate, momentum, average of models).

    ``average_from``: the phase ends with the mean of the models from this share of its rounds on; 1 = the last model.
    """

    settings: TrainingSettings
    rounds: int
    learning_rate: float = 1.0
    momentum: float = 0.0
    average_from: float = 0.5


def run_phase(
    network: nn.Module,
    patients: Patients,
    phase: PooledPhase,
    *,
    noise: LatticeNoise | None,
    after_round: Callable[[int, Tensor], None] | None = None,
) -> None:
    """Train ``network`` in place through one phase; the result is the averaged model."""
    training = PrivateTraining(network, patients, phase.settings, noise=noise, patients_at_once=16)
    model = flatten(network, training.order)
    velocity, average, averaged = torch.zeros_like(model), torch.zeros_like(model), 0
    for round_number in range(1, phase.rounds + 1):
        update = training.train_round(round_number, model)
        mean = torch.from_numpy(update.vector).float() / phase.settings.expected_batch
        if phase.settings.method is Method.STANDARDISE:
            model = standardised(model, mean)
        else:
            velocity = phase.momentum * velocity + mean
            model = model - phase.learning_rate * velocity
        if round_number > phase.average_from * phase.rounds:
            average, averaged = average + model, averaged + 1
        if after_round is not None:
            after_round(round_number, model)
    keeps_last = phase.settings.method is Method.STANDARDISE or averaged == 0
    load(network, training.order, model if keeps_last else average / averaged)


def without_privacy(phase: PooledPhase) -> PooledPhase:
    """Return the phase with neither clip nor noise."""
    return replace(phase, settings=replace(phase.settings, placement=Placement.NONE, noise_multiplier=0.0))


def train_openly(network: nn.Module, patients: Patients, *, epochs: int, seed: int) -> nn.Module:
    """Train the whole network by Adam on the labelled patients' first scans, without privacy: the reference.

    Mini-batches of 64, weak views, a learning rate of 2e-3 that falls to 0 (one cycle).
    """
    generator = torch.Generator().manual_seed(seed)
    people = [patients.read(key).whole() for key in patients.keys(Stratum.LABELLED)]
    images, labels = torch.cat([p.images[:1] for p in people]), torch.cat([p.labels[:1] for p in people])
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=2e-3)
    steps = epochs * -(-len(labels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(labels), generator=generator), 64):
            draws = draw_views(len(rows), dimensions=images.ndim - 2, generator=generator)
            loss = functional.cross_entropy(network(view(images[rows], draws, WEAK)), labels[rows])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    return network

"""The steps that the training benchmark compares. Each object is called for one step on its own network."""

import importlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from client.learning.noise import PrivacyRandomness
from client.private_gradients.budget import Budget, Spending
from client.private_gradients.engine import PrivateGradient
from client.private_gradients.stacks import PatientStack
from client.private_gradients.verdict import RememberedVerdicts
from common.networks.parameters import flatten, layout, load

CLIPPING_NORM = 1.0
NOISE_MULTIPLIER = 1.0
LEARNING_RATE = 0.1

Criterion = Callable[..., Tensor]


class PlainStep:
    """Stochastic gradient descent on all scans at once, without privacy."""

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion) -> None:
        self._network, self._criterion = network, criterion
        self._images, self._labels = images.flatten(0, 1), labels.flatten()
        self._optimiser = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)

    def __call__(self) -> None:
        """Take one step."""
        self._optimiser.zero_grad()
        self._criterion(self._network(self._images), self._labels).mean().backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()


class OurStep:
    """Clip each patient's gradient, add noise on the lattice, divide by a public constant, update.

    The engine is chosen when this is made, as a hospital does before its first order; ``trial_s``: its processor time.
    """

    def __init__(
        self, network: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion, *, patients_per_stack: int
    ) -> None:
        self._network, self._criterion = network, criterion
        self._order = layout(network)
        self._gradient = PrivateGradient(network, self._order, None, RememberedVerdicts())
        self._randomness = PrivacyRandomness()
        weights = torch.full(labels.shape, 1 / labels.shape[1])
        chunks = [slice(start, start + patients_per_stack) for start in range(0, len(images), patients_per_stack)]
        self._stacks = [PatientStack(images[chunk], (labels[chunk],), weights[chunk]) for chunk in chunks]
        self._patients = len(images)
        began_s = time.process_time()
        first = next(iter(self._stacks[0].present()))
        self._gradient.measure(
            first, criterion, at_once=patients_per_stack, most_rows=labels.shape[1], spending=Spending(Budget())
        )
        self.trial_s = time.process_time() - began_s

    @property
    def engine(self) -> str:
        """Name of the engine that the choice by timing took."""
        return self._gradient.engine_names[0]

    def __call__(self) -> None:
        """Take one step."""
        total = self._gradient.clipped_sum(self._stacks, self._criterion, clipping_norm=CLIPPING_NORM)
        noise_stddev = NOISE_MULTIPLIER * CLIPPING_NORM
        noise = self._randomness.lattice_noise(len(total.values), noise_stddev=noise_stddev, step=total.step)
        noised = torch.from_numpy(noise).add_(total.values).double().mul_(total.step / self._patients)
        load(self._network, self._order, flatten(self._network, self._order).sub_(noised.float(), alpha=LEARNING_RATE))


class OpacusStep:
    """Opacus' hooks give a gradient for each scan; index_add sums them by patient; then clip, noise, update."""

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion) -> None:
        module = importlib.import_module("opacus.grad_sample").GradSampleModule
        self._network: Any = module(network, loss_reduction="sum")
        self._criterion = criterion
        self._images, self._labels = images.flatten(0, 1), labels.flatten()
        self._patients, self._scans = labels.shape
        self._owners = torch.arange(self._patients).repeat_interleave(self._scans)
        self._optimiser = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)

    def __call__(self) -> None:
        """Take one step."""
        self._optimiser.zero_grad()
        warnings.filterwarnings("ignore", message="Full backward hook")  # Opacus meets it at every first layer
        (self._criterion(self._network(self._images), self._labels).sum() / self._scans).backward()  # type: ignore[no-untyped-call]
        parameters = list(self._network.parameters())
        by_patient = [
            parameter.new_zeros(self._patients, *parameter.shape).index_add_(0, self._owners, parameter.grad_sample)
            for parameter in parameters
        ]
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in by_patient]).norm(dim=0)
        factors = (CLIPPING_NORM / (norms + 1e-6)).clamp(max=1.0)
        for parameter, gradient in zip(parameters, by_patient, strict=True):
            clipped = torch.einsum("p,p...->...", factors, gradient)
            noise = torch.normal(0.0, NOISE_MULTIPLIER * CLIPPING_NORM, clipped.shape)
            parameter.grad = (clipped + noise) / self._patients
            parameter.grad_sample = None
        self._optimiser.step()


class OpacusGhostStep:
    """Opacus' ghost clipping: norms without gradients where a layer allows it, then a second backward pass.

    It clips each scan, so it gives a patient's guarantee only where a patient has one scan.
    Source: Opacus 1.6, ``DPTensorFastGradientClipping``.
    """

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion) -> None:
        if labels.shape[1] != 1:
            raise ValueError(f"ghost clipping clips scans; a patient has {labels.shape[1]} of them here")
        samples = importlib.import_module("opacus.grad_sample").GradSampleModuleFastGradientClipping
        self._loss: Any = importlib.import_module(
            "opacus.utils.fast_gradient_clipping_utils"
        ).DPTensorFastGradientClipping
        private = importlib.import_module("opacus.optimizers").DPOptimizerFastGradientClipping
        self._network: Any = samples(network, loss_reduction="sum", max_grad_norm=CLIPPING_NORM)
        self._criterion, self._images, self._labels = criterion, images.flatten(0, 1), labels.flatten()
        self._optimiser: Any = private(
            torch.optim.SGD(network.parameters(), lr=LEARNING_RATE / len(images)),
            noise_multiplier=NOISE_MULTIPLIER,
            max_grad_norm=CLIPPING_NORM,
            expected_batch_size=None,
            loss_reduction="sum",
        )

    def __call__(self) -> None:
        """Take one step."""
        warnings.filterwarnings("ignore", message="Full backward hook")
        self._optimiser.zero_grad()
        self._network.enable_hooks()
        each = self._criterion(self._network(self._images), self._labels)
        self._loss(self._network, self._optimiser, each, loss_reduction="sum").backward()
        self._optimiser.step()

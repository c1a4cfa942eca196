"""The plan's network, with weights or without, and the layouts of its phases."""

from torch import nn

from common.networks.parameters import Layout, layout
from common.networks.registry import network_of, shape_of
from common.plan.phases import Phase
from common.plan.plan import StudyPlan
from common.plan.shape import network_settings


def plan_network(plan: StudyPlan) -> nn.Module:
    """Build the network of the plan with its seeded start weights (a named initialisation is loaded elsewhere).

    Raises: NetworkUnsuitableError.
    """
    return network_of(network_settings(plan), seed=plan.network.seed, zero_head=plan.starts_with_zero_head)


def plan_shape(plan: StudyPlan) -> nn.Module:
    """Build the network of the plan without weights (torch's meta device): for layouts, at no cost in memory.

    Raises: NetworkUnsuitableError.
    """
    return shape_of(network_settings(plan))


def phase_layout(network: nn.Module, phase: Phase) -> Layout:
    """Return the layout of the parameters a phase trains. Raises: NetworkUnsuitableError."""
    return layout(network, phase.trainable.value)


def travelling_layout(network: nn.Module, plan: StudyPlan, phase_index: int) -> Layout:
    """Return the layout of what goes out with an order of a phase: all that this and earlier phases train.

    Everything else is the public start, which each site builds for itself. Raises: NetworkUnsuitableError.
    """
    prefixes = {phase.trainable.value for phase in plan.phases[: phase_index + 1]}
    return layout(network, sorted(prefixes))

"""The book-keeping engine: one forward, one backward to the activations only, then each layer's gradients by patient.

The backward pass never computes the weight gradients of the whole batch; each layer's gradient is formed once, by
patient, from its input and the gradient of its output, and kept until it is clipped ("keep": the norm is taken from the
very tensors that are summed, which bfloat16 needs; recomputing them after clipping overshoots C by up to 1 %).
Source: Bu et al. 2022 (arXiv 2210.00038), book-keeping without ghost norms.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from client.private_gradients.layer_gradients import LAYERS
from client.private_gradients.lone_volumes import lone_volumes_by_onednn
from client.private_gradients.problem import Problem
from client.private_gradients.stacks import PatientStack
from client.private_gradients.taps import tapped


def unsupported_layers(problem: Problem) -> set[str]:
    """Return the type names of layers that own a trainable parameter and that this engine cannot handle.

    A subclass is not supported because its forward may differ (weight standardisation, for one).
    """
    return {type(layer).__name__ for layer in problem.trained_layers if type(layer) not in LAYERS}


def book_keeping_gradients(problem: Problem, stack: PatientStack) -> Tensor:
    """Return (patients, num_parameters) for networks whose trained layers are all in ``LAYERS``.

    The rows of a patient must stay together and in order along the first axis of every layer's input. A layer that is
    used twice adds up its gradients; one that the loss does not reach has zeros.
    Raises: NotImplementedError for other layers.
    """
    unsupported = unsupported_layers(problem)
    if unsupported:
        raise NotImplementedError(f"book-keeping does not know the layers {', '.join(sorted(unsupported))}")
    kept = _Kept(problem, stack.patients)
    token = torch.zeros((), device=problem.device, requires_grad=True)
    with (
        lone_volumes_by_onednn(problem.network.modules(), weights_too=False),
        tapped(problem.trained_layers, token, kept.output, kept.rows),
    ):
        loss = problem.loss(stack.flat())
    torch.autograd.grad(loss, token, allow_unused=True)
    return kept.all()


class _Kept:
    """The gradients of a stack, parameter by parameter as the backward pass reaches them."""

    def __init__(self, problem: Problem, patients: int) -> None:
        self._entries = {
            id(parameter): entry for parameter, entry in zip(problem.parameters, problem.order.entries, strict=True)
        }
        dtype = torch.promote_types(torch.float32, problem.parameters[0].dtype)
        shape = (patients, problem.order.num_parameters)
        self._gradients = torch.empty(shape, dtype=dtype, device=problem.device)
        self._unwritten = set(self._entries)

    def output(self, layer: nn.Module, inputs: Tensor, outer: Tensor) -> None:
        """Keep the gradients of a layer's parameters, computed from its input and the gradient of its output."""
        for parameter, parts in LAYERS[type(layer)](layer, inputs.to(outer.dtype), outer, len(self._gradients)):
            self._add(parameter, parts)

    def rows(self, parameter: nn.Parameter, by_row: Tensor) -> None:
        """Keep a parameter's gradient that is known row by row: (N, *shape)."""
        self._add(parameter, [by_row.view(len(self._gradients), -1, *by_row.shape[1:]).sum(1)])

    def all(self) -> Tensor:
        """Return (patients, num_parameters); parameters that the loss did not reach have zeros."""
        for unreached in self._unwritten:
            self._columns(unreached).zero_()
        return self._gradients

    def _add(self, parameter: nn.Parameter, parts: Sequence[Tensor]) -> None:
        """Write (first use of a parameter) or add its gradients; each part holds those of consecutive patients."""
        place = self._columns(id(parameter))
        first = id(parameter) in self._unwritten
        self._unwritten.discard(id(parameter))
        start = 0
        for part in parts:
            rows = place[start : start + len(part)]
            rows.copy_(part.flatten(1)) if first else rows.add_(part.flatten(1))
            start += len(part)

    def _columns(self, identity: int) -> Tensor:
        """Return the view of (patients, num_parameters) that belongs to the parameter of this ``id``."""
        entry = self._entries[identity]
        return self._gradients[:, entry.offset : entry.offset + entry.size]

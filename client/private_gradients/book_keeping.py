"""The book-keeping engine: one forward, one backward to the activations only, then each layer's gradients by patient.

The backward pass stops at the layers' outputs, so the weight gradients of the whole batch are never computed; each
layer's gradient is then formed once, by patient, from its input and the gradient of its output, and kept until it is
clipped ("keep": the norm is taken from the very tensors that are summed, which bfloat16 needs; recomputing them after
clipping overshoots C by up to 1 %). Source: Bu et al. 2022 (arXiv 2210.00038), book-keeping without ghost norms.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.private_gradients.layer_gradients import LAYERS
from client.private_gradients.problem import Problem
from client.private_gradients.stacks import PatientStack


@dataclass(frozen=True)
class Call:
    """One use of a layer in the forward pass. A layer that is used twice has two calls; their gradients add up."""

    layer: nn.Module
    inputs: Tensor
    outputs: Tensor


def unsupported_layers(problem: Problem) -> set[str]:
    """Return the type names of layers that own a trainable parameter and that this engine cannot handle.

    A subclass is not supported because its forward may differ (weight standardisation, for one).
    """
    trained = {id(parameter) for parameter in problem.parameters}
    return {
        type(layer).__name__
        for layer in problem.network.modules()
        if any(id(parameter) in trained for parameter in layer.parameters(recurse=False)) and type(layer) not in LAYERS
    }


def book_keeping_gradients(problem: Problem, stack: PatientStack) -> Tensor:
    """Return (patients, num_parameters) for networks whose trained layers are all in ``LAYERS``.

    The rows of a patient must stay together and in order along the first axis of every layer's input.
    """
    rows = stack.flat()
    with _recorded(problem) as calls:
        loss = problem.loss(rows)
    places = {id(parameter): entry for parameter, entry in zip(problem.parameters, problem.order.entries, strict=True)}
    dtype = torch.promote_types(torch.float32, problem.parameters[0].dtype)
    gradients = torch.zeros(stack.patients, problem.order.num_parameters, dtype=dtype, device=problem.device)
    if not calls:
        return gradients
    outer = torch.autograd.grad(loss, [call.outputs for call in calls], allow_unused=True)
    for call, gradient in zip(calls, outer, strict=True):
        if gradient is None:  # this use of the layer does not reach the loss
            continue
        inputs = call.inputs.to(gradient.dtype)
        for parameter, by_patient in LAYERS[type(call.layer)](call.layer, inputs, gradient, stack.patients):
            entry = places[id(parameter)]
            gradients[:, entry.offset : entry.offset + entry.size] += by_patient.flatten(1)
    return gradients


@contextmanager
def _recorded(problem: Problem) -> Iterator[list[Call]]:
    """Record the calls of every layer that owns a trained parameter, for the duration of one forward pass."""
    trained = {id(parameter) for parameter in problem.parameters}
    calls: list[Call] = []

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        calls.append(Call(layer, inputs[0].detach(), outputs))

    handles = [
        layer.register_forward_hook(record)
        for layer in problem.network.modules()
        if any(id(parameter) in trained for parameter in layer.parameters(recurse=False))
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()

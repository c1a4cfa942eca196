"""The book-keeping engine: one forward, one backward to the activations only, then each layer's gradients by patient.

The backward pass never computes the weight gradients of the whole batch; each layer's gradient is formed once, by
patient, from its input and the gradient of its output, and kept until it is clipped ("keep": the norm is taken from the
very tensors that are summed, which bfloat16 needs; recomputing them after clipping overshoots C by up to 1 %).
Source: Bu et al. 2022 (arXiv 2210.00038), book-keeping without ghost norms.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from client.private_gradients.layer_gradients import LAYERS
from client.private_gradients.problem import Problem
from client.private_gradients.stacks import PatientStack
from common.parameters import Entry


def unsupported_layers(problem: Problem) -> set[str]:
    """Return the type names of layers that own a trainable parameter and that this engine cannot handle.

    A subclass is not supported because its forward may differ (weight standardisation, for one).
    """
    return {type(layer).__name__ for layer in _trained_layers(problem) if type(layer) not in LAYERS}


def book_keeping_gradients(problem: Problem, stack: PatientStack) -> Tensor:
    """Return (patients, num_parameters) for networks whose trained layers are all in ``LAYERS``.

    The rows of a patient must stay together and in order along the first axis of every layer's input. A layer that is
    used twice adds up its gradients; one that the loss does not reach has zeros.
    """
    places = {id(parameter): entry for parameter, entry in zip(problem.parameters, problem.order.entries, strict=True)}
    dtype = torch.promote_types(torch.float32, problem.parameters[0].dtype)
    gradients = torch.empty(stack.patients, problem.order.num_parameters, dtype=dtype, device=problem.device)
    unwritten = set(places)

    def keep(layer: nn.Module, inputs: Tensor, outer: Tensor) -> None:
        by_patient = LAYERS[type(layer)](layer, inputs.to(outer.dtype), outer, stack.patients)
        for parameter, gradient in by_patient:
            place = _columns(gradients, places[id(parameter)])
            if id(parameter) in unwritten:
                unwritten.remove(id(parameter))
                place.copy_(gradient.flatten(1))
            else:
                place += gradient.flatten(1)

    token = torch.zeros((), device=problem.device, requires_grad=True)
    with _tapped(problem, token, keep):
        loss = problem.loss(stack.flat())
    torch.autograd.grad(loss, token, allow_unused=True)
    for parameter in unwritten:
        _columns(gradients, places[parameter]).zero_()
    return gradients


def _columns(gradients: Tensor, entry: Entry) -> Tensor:
    """Return the view of (patients, num_parameters) that belongs to one parameter."""
    return gradients[:, entry.offset : entry.offset + entry.size]


class _Tap(torch.autograd.Function):
    """The identity, which hands the gradient that passes through it to ``keep``.

    Its second input is a token that requires a gradient. Asking autograd for the token's gradient runs exactly the
    part of the backward pass that leads to taps: no weight gradient, nothing below the first trained layer; and each
    layer's output gradient is used while it is in the cache, then freed.
    """

    @staticmethod
    def forward(context: Any, outputs: Tensor, token: Tensor, keep: Callable[[Tensor], None]) -> Tensor:
        context.keep = keep
        context.token = token
        return outputs.view_as(outputs)

    @staticmethod
    def backward(context: Any, *outer: Tensor) -> Any:
        context.keep(outer[0])
        return outer[0], torch.zeros_like(context.token), None


@contextmanager
def _tapped(problem: Problem, token: Tensor, keep: Callable[[nn.Module, Tensor, Tensor], None]) -> Iterator[None]:
    """Tap the output of every trained layer for the duration of one forward pass."""

    def tap(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        kept = inputs[0].detach()
        tapped: Tensor = _Tap.apply(outputs, token, lambda outer: keep(layer, kept, outer))  # type: ignore[no-untyped-call]
        return tapped

    handles = [layer.register_forward_hook(tap) for layer in _trained_layers(problem)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _trained_layers(problem: Problem) -> list[nn.Module]:
    """Return the layers that own a trained parameter themselves."""
    trained = {id(parameter) for parameter in problem.parameters}
    return [
        layer
        for layer in problem.network.modules()
        if any(id(parameter) in trained for parameter in layer.parameters(recurse=False))
    ]

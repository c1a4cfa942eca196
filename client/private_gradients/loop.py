"""The reference engine: one plain backward pass for each patient."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from client.private_gradients.lone_volumes import lone_volumes_by_onednn
from client.private_gradients.problem import Problem
from client.private_gradients.stacks import PatientRows, PatientStack

SMALL: Final = 1 << 16  # numbers of one gradient


def loop_gradients(problem: Problem, stack: PatientStack) -> Tensor:
    """Return (present patients, num_parameters). Exact for every layer that autograd knows; patients never meet.

    Padding is left out altogether. Memory: one patient's activations, the result, and one layer's gradient.
    """
    present = list(stack.present())
    dtype = torch.promote_types(torch.float32, problem.parameters[0].dtype)
    gradients = torch.empty(len(present), problem.order.num_parameters, dtype=dtype, device=problem.device)
    with lone_volumes_by_onednn(problem.network.modules()):
        for row, rows in zip(gradients, present, strict=True):
            _write_gradient(problem, rows, row)
    return gradients


def _write_gradient(problem: Problem, rows: PatientRows, row: Tensor) -> None:
    """Write one patient's gradient to ``row`` (num_parameters,); what the loss does not reach becomes zero.

    Each parameter's gradient moves to its place as soon as the backward pass has it: no second copy of them all. Small
    ones are copied at the end, which takes half the time.
    """
    if len(row) <= SMALL:
        _write_small(problem, rows, row)
        return
    hooks, unreached = [], {}
    for parameter, entry in zip(problem.parameters, problem.order.entries, strict=True):
        place = row[entry.offset : entry.offset + entry.size].view(entry.shape)
        parameter.grad = None
        unreached[id(parameter)] = place
        hook = parameter.register_post_accumulate_grad_hook(partial(_move, unreached))  # type: ignore[no-untyped-call]
        hooks.append(hook)
    try:
        problem.loss(rows).backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
    for place in unreached.values():
        place.zero_()


def _write_small(problem: Problem, rows: PatientRows, row: Tensor) -> None:
    parameters = problem.parameters
    found: Sequence[Tensor | None] = torch.autograd.grad(problem.loss(rows), parameters, allow_unused=True)
    for entry, parameter, gradient in zip(problem.order.entries, parameters, found, strict=True):
        place = row[entry.offset : entry.offset + entry.size]
        place.copy_(torch.zeros_like(parameter).view(-1) if gradient is None else gradient.reshape(-1))


def _move(places: dict[int, Tensor], parameter: nn.Parameter | Tensor) -> None:
    places.pop(id(parameter)).copy_(parameter.grad)  # type: ignore[arg-type] # it has just been accumulated
    parameter.grad = None

"""The reference engine: one plain backward pass for each patient."""

from functools import partial

import torch
from torch import Tensor, nn

from client.private_gradients.problem import Problem
from client.private_gradients.stacks import PatientRows, PatientStack


def loop_gradients(problem: Problem, stack: PatientStack) -> Tensor:
    """Return (present patients, num_parameters). Exact for every layer that autograd knows; patients never meet.

    Padding is left out altogether. Memory: one patient's activations, the result, and one layer's gradient.
    """
    present = list(stack.present())
    dtype = torch.promote_types(torch.float32, problem.parameters[0].dtype)
    gradients = torch.empty(len(present), problem.order.num_parameters, dtype=dtype, device=problem.device)
    for row, rows in zip(gradients, present, strict=True):
        _write_gradient(problem, rows, row)
    return gradients


def _write_gradient(problem: Problem, rows: PatientRows, row: Tensor) -> None:
    """Write one patient's gradient to ``row`` (num_parameters,); what the loss does not reach becomes zero.

    Each parameter's gradient moves to its place as soon as the backward pass has it: no second copy of them all.
    """
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


def _move(places: dict[int, Tensor], parameter: nn.Parameter | Tensor) -> None:
    places.pop(id(parameter)).copy_(parameter.grad)  # type: ignore[arg-type] # it has just been accumulated
    parameter.grad = None

"""The reference engine: one plain backward pass for each patient."""

import torch
from torch import Tensor

from client.private_gradients.clipping import as_rows
from client.private_gradients.problem import Problem
from client.private_gradients.stacks import PatientRows, PatientStack


def loop_gradients(problem: Problem, stack: PatientStack) -> Tensor:
    """Return (present patients, num_parameters). Exact for every layer that autograd knows; patients never meet.

    Padding is left out altogether. Memory: one patient's activations at a time, and the stack's gradients.
    """
    gradients = [_gradient(problem, rows) for rows in stack.present()]
    return torch.cat(gradients) if gradients else torch.zeros(0, problem.order.num_parameters, device=problem.device)


def _gradient(problem: Problem, rows: PatientRows) -> Tensor:
    """Return one patient's gradient as (1, num_parameters); a parameter that the loss does not reach has zeros."""
    gradients = torch.autograd.grad(problem.loss(rows), problem.parameters, allow_unused=True, materialize_grads=True)
    return as_rows([gradient.unsqueeze(0) for gradient in gradients])

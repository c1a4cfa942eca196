"""The vectorised engine through ``torch.compile``: fused kernels for the gradients, and for nothing else.

Norms, clip and sum are never compiled, so whatever a compiler does, a patient's contribution stays within the clipping
norm. That it does not move one patient's gradient by another's values is tried on public random data, like every
engine (``choice``). What is compiled takes the parameters as inputs: one compilation serves the trial and all rounds.
"""

import copy
import logging
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from client.private_gradients.loop import loop_gradients
from client.private_gradients.problem import Problem
from client.private_gradients.stacks import PatientStack
from client.private_gradients.vectorised import StackGradients, in_order, stack_gradients

COMPILED: Final = "compiled"
BACKEND: Final = "inductor"  # needs a C++ compiler on a processor, Triton on a GPU

_log = logging.getLogger("fedward.site")


class CompiledGradients:
    """An engine for networks like that of ``problem``, with its criterion. Compiles when it is first called.

    ``failure``: name of what went wrong, empty while nothing did. ``trusted`` is set when the trial has shown that it
    works: should it fail later, the reference goes on in its place, with a warning.
    """

    def __init__(self, problem: Problem, *, backend: str | None = None) -> None:
        skeleton = replace(problem, network=copy.deepcopy(problem.network).to("meta"))
        self.failure, self.trusted = "", False
        self._backend = backend or BACKEND
        self._by_autocast: dict[bool, StackGradients] = {
            autocast: self._compiled(skeleton.with_autocast(autocast)) for autocast in (False, True)
        }

    def __call__(self, problem: Problem, stack: PatientStack) -> Tensor:
        """Return (patients, num_parameters).

        Raises: NotImplementedError if it cannot be compiled and is not trusted yet.
        """
        if not self.failure:
            try:
                return in_order(problem, stack, self._by_autocast[problem.autocast])
            except Exception as error:  # noqa: BLE001 (compilers raise anything; none of it is worth a round)
                self.failure = type(error).__name__
        if not self.trusted:
            raise NotImplementedError(f"torch.compile failed ({self.failure})")
        _log.warning("torch.compile failed (%s) after it had worked; the reference goes on, slower", self.failure)
        return loop_gradients(problem, stack)

    def _compiled(self, problem: Problem) -> StackGradients:
        gradients = stack_gradients(problem, problem.network)
        # Isolated: all sites and phases share one code object, and torch gives up after eight versions of one.
        compiled: StackGradients = torch.compile(  # type: ignore[call-overload]
            gradients, backend=self._backend, fullgraph=True, dynamic=False, isolate_recompiles=True
        )
        return compiled

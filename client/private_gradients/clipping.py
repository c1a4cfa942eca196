"""Clipping each patient's gradient as one vector, and adding the results up without losing the bound.

Where rounding could break |contribution| <= C, and what is done about each:

1. A float32 norm of a long vector comes out too small (torch 2.13, 11 M values: by 7.6e-4, measured), because small
   squares vanish beside a large running sum. Norms are taken over blocks of 4096 values and joined in float64: 3e-7.
2. Adding patients in float32 rounds relative to the running sum, which depends on the others. At most 16 patients are
   added in float32, groups of them in float64.
3. A matrix product may be allowed fewer bits (TF32): scaling and adding are done element by element.
4. What remains is below 1e-4, by which the clipping norm is lowered.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

MARGIN: Final = 1e-4
BLOCK: Final = 4096  # values whose squares are added in float32
GROUP: Final = 16  # patients that are added in float32: rounding <= 16^2 / 2 * 2^-24 C = 8e-6 C


class ClippedSum:
    """The sum of clipped gradients of one stratum in one step.

    Formal guarantee: each patient added changes ``total`` by a vector of norm at most ``clipping_norm``.

    | gradient of a patient        | contribution                                  |
    |------------------------------|-----------------------------------------------|
    | norm <= C (1 - 1e-4)         | the gradient itself                           |
    | norm larger, finite          | the gradient scaled to norm C (1 - 1e-4)      |
    | NaN, inf, or norm overflows  | 0, and no other patient's part is touched     |
    | zero (padding)               | 0                                             |

    Raises: ValueError unless 0 < clipping_norm < inf.
    """

    def __init__(self, num_parameters: int, clipping_norm: float, device: torch.device) -> None:
        if not 0 < clipping_norm < float("inf"):
            raise ValueError(f"clipping norm is {clipping_norm!r}; a positive finite number is needed")
        self._bound = clipping_norm * (1 - MARGIN)
        self.total = torch.zeros(num_parameters, dtype=torch.float64, device=device)

    def add(self, gradients: Tensor) -> None:
        """Clip and add ``gradients`` (patients, num_parameters), float32 or wider; rows are patients.

        ``gradients`` is overwritten: another matrix of this size would cost more than the clip itself.
        """
        factors, finite = self._factors(gradients)
        if not bool(finite.all()):  # 0 * NaN is NaN: such rows must go, not only be scaled by 0
            gradients = torch.where(finite[:, None], gradients, 0)
        for start in range(0, len(gradients), GROUP):
            scaled = gradients[start : start + GROUP].mul_(factors[start : start + GROUP, None])
            self.total += scaled.sum(0)  # no matrix product: where TF32 or bfloat16 is allowed it would round too much

    def _factors(self, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return (factors, finite), both (patients,): min(1, C' / norm), and whether the norm is finite."""
        norms = patient_norms(gradients)
        finite = torch.isfinite(norms)
        factors = torch.where(finite, (self._bound / norms).clamp(max=1.0), 0.0)
        return factors.to(gradients.dtype), finite


def patient_norms(gradients: Tensor) -> Tensor:
    """Return the Euclidean norm of each row in float64, within 1e-6: (patients, num_parameters) -> (patients,).

    Edge cases: a row with NaN gives NaN, with inf or with squares beyond float32 gives inf.
    """
    whole = gradients.shape[1] // BLOCK * BLOCK
    blocks = torch.linalg.vector_norm(gradients[:, :whole].reshape(len(gradients), whole // BLOCK, BLOCK), dim=2)
    rest = torch.linalg.vector_norm(gradients[:, whole:], dim=1, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(torch.cat([blocks, rest], dim=1).double(), dim=1)
    return norms


def as_rows(gradients: Sequence[Tensor]) -> Tensor:
    """Join per-patient gradients, each (patients, *shape), into one matrix (patients, num_parameters)."""
    rows = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
    return rows if rows.dtype == torch.float64 else rows.float()

"""Clipping each patient's gradient as one vector, and adding the results up without losing the bound.

    g_i -> round(g_i min(1, C' / |g_i|) / step)     integers, one vector a patient        sum: integer addition, exact

Where rounding could break |contribution| <= C, and what is done about each:

1. A float32 norm of a long vector comes out too small (torch 2.13, 11 M values: by 7.6e-4, measured), because small
   squares vanish beside a large running sum. Norms are taken over blocks of 4096 values and joined in float64: 3e-7.
2. A floating-point sum rounds relative to what is in it already, which depends on the others. Integers do not.
3. A matrix product may be allowed fewer bits (TF32): scaling is done element by element.
4. What remains is below 1e-4, by which the clipping norm is lowered to C'.
5. Rounding to the lattice adds at most step sqrt(d) / 2; whoever chooses the step charges it (docs/privacy.md).

Memory: one vector of 32-bit integers, whatever the number of patients; 64-bit ones where 32 could overflow.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from client.errors import TrainerFailedError
from client.private_gradients.lattice import require_clipping_norm

MARGIN: Final = 1e-4
BLOCK: Final = 4096  # values whose squares are added in float32
CPU_COLUMNS: Final = 1 << 16  # scaled, rounded and added while they are in the cache
GPU_COLUMNS: Final = 1 << 24
_ROOM: Final = float(2**31 - 1)


@dataclass(frozen=True)
class Piece:
    """Consecutive values of one patient's gradient, from place ``offset`` of the vector on.

    ``parts()`` walks through them: each part (values,), float32 or wider, follows the one before.
    It can be called twice and gives the same bits; what the second walk gives may be overwritten.
    """

    offset: int
    parts: Callable[[], Iterator[Tensor]]


class LatticeSum:
    """The sum of clipped gradients of one step, as integers in units of ``step``.

    Formal guarantee: each patient added changes ``values * step`` by a vector of norm at most C + step sqrt(d) / 2, and
    what the others add is the same integers with and without that patient.

    | gradient of a patient        | contribution, before it is rounded to the lattice |
    |------------------------------|---------------------------------------------------|
    | norm <= C (1 - 1e-4)         | the gradient itself                               |
    | norm larger, finite          | the gradient scaled to norm C (1 - 1e-4)          |
    | NaN, inf, or norm overflows  | 0, and no other patient's part is touched         |
    | zero (padding)               | 0                                                 |

    Attributes: step; values, int32 or int64 (num_parameters,) on ``device``.
    """

    def __init__(self, num_parameters: int, *, step: float, device: torch.device) -> None:
        self.step = step
        self.values = torch.zeros(num_parameters, dtype=torch.int32, device=device)
        self._largest = 0.0  # no coordinate can be larger, in steps

    @property
    def vector(self) -> Tensor:
        """The sum as real numbers: float64 (num_parameters,)."""
        return self.values.double() * self.step

    def add(self, gradients: Tensor, *, clipping_norm: float) -> None:
        """Clip and add ``gradients`` (patients, num_parameters), float32 or wider; rows are patients.

        ``gradients`` is overwritten: another matrix of this size would cost more than the clip itself.
        Raises: ValueError unless 0 < clipping_norm < inf.
        """
        require_clipping_norm(clipping_norm)
        factors, finite = _factors(patient_norms(gradients), clipping_norm * (1 - MARGIN))
        if not bool(finite.all()):  # 0 * NaN is NaN: such rows must go, not only be scaled by 0
            gradients[~finite] = 0
        self._make_room(len(gradients) * (clipping_norm / self.step + 1))
        self._add_scaled(gradients, factors / self.step, 0)

    def add_pieces(self, pieces: list[Piece], *, clipping_norm: float) -> None:
        """Clip and add one patient's gradient that is never whole in memory; ``pieces`` is emptied as they are used.

        Pieces must not overlap; places without a piece are zero. They are walked through twice: for the norm, then to
        scale and add. A norm bounds only what it was taken of, so each part must have the same norm again, to the bit.
        Raises: ValueError unless 0 < clipping_norm < inf; TrainerFailedError if a part has another norm the second
        time (a processor that does not repeat itself): the sum is then incomplete and must not be used.
        """
        require_clipping_norm(clipping_norm)
        norms = [[_norm(part) for part in piece.parts()] for piece in pieces]
        norm = math.hypot(*(part for parts in norms for part in parts))
        factors, finite = _factors(torch.tensor([norm], dtype=torch.float64), clipping_norm * (1 - MARGIN))
        if not bool(finite):
            pieces.clear()
            return
        self._make_room(clipping_norm / self.step + 1)
        while pieces:
            self._add_piece(pieces.pop(), (factors / self.step).to(self.values.device), norms.pop())

    def _add_piece(self, piece: Piece, scales: Tensor, norms: list[float]) -> None:
        """Scale and add the parts of a piece, each of which must have the norm that was found for it."""
        start = piece.offset
        for part, norm in zip(piece.parts(), norms, strict=True):
            if _norm(part) != norm:
                raise TrainerFailedError(
                    "a gradient came out different when it was computed again; this processor cannot train so large "
                    "a network privately with engine 'auto', set the engine to 'loop'"
                )
            self._add_scaled(part[None], scales, start)
            start += len(part)

    def _add_scaled(self, gradients: Tensor, scales: Tensor, start: int) -> None:
        """Scale, round and add the rows of ``gradients`` (patients, values), overwritten, at place ``start`` on."""
        scales = scales.to(gradients.dtype)[:, None]
        columns = GPU_COLUMNS if gradients.is_cuda else CPU_COLUMNS
        for first in range(0, gradients.shape[1], columns):
            block = gradients[:, first : first + columns]
            units = block.mul_(scales).round_().to(self.values.dtype)
            self.values[start + first : start + first + block.shape[1]] += units.sum(0, dtype=self.values.dtype)

    def _make_room(self, units: float) -> None:
        """Go over to 64-bit integers before a sum could leave 32 bits."""
        self._largest += units
        if self._largest > _ROOM and self.values.dtype == torch.int32:
            self.values = self.values.long()


def _factors(norms: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Return (factors, finite), both (patients,), float64 and bool: min(1, bound / norm), and whether it is finite."""
    finite = torch.isfinite(norms)
    return torch.where(finite, (bound / norms).clamp(max=1.0), 0.0), finite


def patient_norms(gradients: Tensor) -> Tensor:
    """Return the Euclidean norm of each row in float64, within 1e-6: (patients, num_parameters) -> (patients,).

    Edge cases: a row with NaN gives NaN, with inf or with squares beyond float32 gives inf.
    """
    whole = gradients.shape[1] // BLOCK * BLOCK
    blocks = torch.linalg.vector_norm(gradients[:, :whole].reshape(len(gradients), whole // BLOCK, BLOCK), dim=2)
    rest = torch.linalg.vector_norm(gradients[:, whole:], dim=1, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(torch.cat([blocks, rest], dim=1).double(), dim=1)
    return norms


def _norm(values: Tensor) -> float:
    """Return the norm of some values of one patient (values,), with the care of ``patient_norms``."""
    return float(patient_norms(values[None]))


def as_rows(gradients: Sequence[Tensor]) -> Tensor:
    """Join per-patient gradients, each (patients, *shape), into one matrix (patients, num_parameters)."""
    rows = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
    return rows if rows.dtype == torch.float64 else rows.float()

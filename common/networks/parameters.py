"""The fixed order between a network's parameters and one float32 vector.

The order is that of ``named_parameters()`` (the order in which the layers are written in the network's class), each
tensor row-major. Only the trainable part of a phase travels, because the noise grows with the square root of its size;
a ``Layout`` says which part that is, and its digest lets both sides refuse a vector of another layout.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.networks.errors import NetworkUnsuitableError, WeightsInvalidError
from common.networks.layouts import ALL, EVERYTHING, Entry, Layout, layout_of

__all__ = ["ALL", "EVERYTHING", "Entry", "Layout", "flatten", "layout", "load", "train_only"]

_BLOCK = 1 << 20


def layout(network: nn.Module, trainable: str | Sequence[str] = EVERYTHING) -> Layout:
    """Return the layout of the parameters that ``trainable`` selects.

    ``trainable``, errors: as ``layout_of``.
    """
    return layout_of(((name, tuple(parameter.shape)) for name, parameter in network.named_parameters()), trainable)


def flatten(network: nn.Module, order: Layout) -> Tensor:
    """Return the selected parameters as one new float32 vector (num_parameters,) on the processor.

    Raises: NetworkUnsuitableError if the network lacks a parameter of the layout or has it in another shape.
    """
    parameters = _parameters_of(network, order)
    return torch.cat([parameter.detach().reshape(-1).float().cpu() for parameter in parameters])


def load(network: nn.Module, order: Layout, vector: Tensor | NDArray[np.float32]) -> None:
    """Write ``vector`` (num_parameters,) into the selected parameters of ``network``; the others stay as they are.

    Edge cases: nothing is written unless everything fits. Memory: one tensor of the layout at a time.
    Raises: WeightsInvalidError for a wrong length, another type than float32, or a value that is not finite;
    NetworkUnsuitableError if the layout is of another network.
    """
    _refuse_bad_vector(order, vector)
    parameters = _parameters_of(network, order)
    with torch.no_grad():
        for entry, parameter in zip(order.entries, parameters, strict=True):
            part = vector[entry.offset : entry.offset + entry.size]
            # a copy of what came over the network, which torch takes only if it may be written to
            values = part if isinstance(part, Tensor) else torch.from_numpy(part.astype(np.float32))
            parameter.copy_(values.view(entry.shape))


def train_only(network: nn.Module, order: Layout) -> None:
    """Let gradients reach the parameters of ``order`` and no others."""
    names = {entry.name for entry in order.entries}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in names)


def _refuse_bad_vector(order: Layout, vector: Tensor | NDArray[np.float32]) -> None:
    if vector.dtype not in (torch.float32, np.float32):
        raise WeightsInvalidError(f"weights are of type {vector.dtype}; they must be float32")
    if vector.shape != (order.num_parameters,):
        raise WeightsInvalidError(
            f"weights have shape {tuple(vector.shape)}; this network's layout needs ({order.num_parameters},)"
        )
    if not all(_is_finite(vector[start : start + _BLOCK]) for start in range(0, len(vector), _BLOCK)):
        raise WeightsInvalidError("weights contain values that are not finite; they were not loaded")


def _is_finite(part: Tensor | NDArray[np.float32]) -> bool:
    return bool((torch.isfinite(part) if isinstance(part, Tensor) else np.isfinite(part)).all())


def _parameters_of(network: nn.Module, order: Layout) -> list[nn.Parameter]:
    parameters = dict(network.named_parameters())
    for entry in order.entries:
        if entry.name not in parameters or tuple(parameters[entry.name].shape) != entry.shape:
            raise NetworkUnsuitableError(f"the layout's '{entry.name}' {entry.shape} does not fit this network")
    return [parameters[entry.name] for entry in order.entries]

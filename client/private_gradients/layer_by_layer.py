"""One patient at a time without a whole gradient in memory: a weight's gradient is computed when it is asked for.

One forward, one backward to the activations only. Then, for each layer, the smaller of two things is kept:

    dW,  computed at once                  where weights are few beside the layer's input x and output gradient g
    (x, g),  and dW is computed again      where they are many: deep convolutions, wide linear layers

``LatticeSum.add_pieces`` asks twice, for the norm and for the sum; dW comes in parts of some output channels, so that
nothing of its size exists. Beside weights and sum there are activations, what is kept, and a few MiB.

Source: Bu et al. 2022 (arXiv 2210.00038), book-keeping. Theirs computes dW once more after the clip; here float32 and
equal norms of both walks, to the bit, keep the bound.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from client.private_gradients.clipping import LatticeSum, Piece
from client.private_gradients.forward_in_parts import CONVOLUTIONS, better_as_product, in_parts, parts_of, unfolded
from client.private_gradients.layer_gradients import LAYERS, padded
from client.private_gradients.lone_volumes import lone_volumes_by_onednn, weight_gradient
from client.private_gradients.problem import Problem
from client.private_gradients.stacks import PatientRows, PatientStack
from client.private_gradients.taps import tapped

Rows = Callable[[slice], Tensor]  # some rows of a parameter's gradient: (rows, *shape[1:])
Source = Callable[[], Rows]  # what is done once before rows are asked for, in each walk


class LayerByLayer:
    """The way to the sum for stacks of one patient, in float32 or wider, on a processor.

    It has no trial (``choice``): one patient has no neighbours. Agreement with the loop is what the tests show.
    """

    name: Final = "layer_by_layer"
    patients: Final = 1
    autocast: Final = False

    def add_to(self, total: LatticeSum, problem: Problem, stack: PatientStack, *, clipping_norm: float) -> None:
        """Add the patients' gradients, each clipped, to ``total``; padding is left out altogether."""
        for rows in stack.present():
            total.add_pieces(gradient_pieces(problem, rows), clipping_norm=clipping_norm)


def gradient_pieces(problem: Problem, rows: PatientRows) -> list[Piece]:
    """Return the gradient of one patient, a piece for each parameter that the loss reaches.

    A layer that is used twice, or a parameter of two layers, adds up its gradients part by part.
    Raises: KeyError for layers that are not in ``LAYERS`` (``book_keeping.unsupported_layers``).
    """
    sources = _Sources()
    token = torch.zeros((), device=problem.device, requires_grad=True)
    with (
        in_parts(problem.network.modules()),
        lone_volumes_by_onednn(problem.network.modules(), weights_too=False),
        tapped(problem.trained_layers, token, sources.output, sources.rows),
    ):
        loss = problem.loss(rows)
    torch.autograd.grad(loss, token, allow_unused=True)
    return [
        Piece(entry.offset, partial(_parts, sources.of[id(parameter)], entry.shape))
        for parameter, entry in zip(problem.parameters, problem.order.entries, strict=True)
        if id(parameter) in sources.of
    ]


def _parts(sources: list[Source], shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield a parameter's gradient in consecutive parts, each (values,): some of its output channels."""
    opened = [source() for source in sources]
    for part in parts_of(shape):
        total, *others = [rows(part) for rows in opened]
        for other in others:
            total = total + other
        yield total.to(torch.promote_types(torch.float32, total.dtype)).flatten()


class _Sources:
    """Where each parameter's gradient comes from, by the parameter's ``id``, as the backward pass reaches layers."""

    def __init__(self) -> None:
        self.of: dict[int, list[Source]] = {}

    def output(self, layer: Any, inputs: Tensor, outer: Tensor) -> None:
        """Keep a layer's gradients, or what they are computed from: its input and the gradient of its output."""
        inputs = inputs.to(outer.dtype)
        if not _computed_again(layer, inputs, outer):
            for parameter, (by_patient,) in LAYERS[type(layer)](layer, inputs, outer, 1):
                self._keep(parameter, by_patient[0])
            return
        self._add(layer.weight, partial(_PREPARE[type(layer)], layer, inputs, outer))
        if layer.bias is not None and layer.bias.requires_grad:
            channels = outer.movedim(-1 if type(layer) is nn.Linear else 1, 0)
            self._keep(layer.bias, channels.flatten(1).sum(1))

    def rows(self, parameter: nn.Parameter, by_row: Tensor) -> None:
        """Keep a parameter's gradient that is known row by row: (N, *shape)."""
        self._keep(parameter, by_row.sum(0))

    def _keep(self, parameter: nn.Parameter, values: Tensor) -> None:
        """Keep a gradient as it is; the clip may overwrite it."""
        self._add(parameter, lambda: values.__getitem__)

    def _add(self, parameter: nn.Parameter, source: Source) -> None:
        self.of.setdefault(id(parameter), []).append(source)


def _computed_again(layer: Any, x: Tensor, g: Tensor) -> bool:
    """Say whether input and output gradient are smaller than the weight's gradient, and it can be had in parts."""
    return _divisible(layer) and x.numel() + g.numel() < layer.weight.numel()


def _divisible(layer: Any) -> bool:
    return type(layer) in _PREPARE and getattr(layer, "groups", 1) == 1 and layer.weight.requires_grad is True


def _linear_rows(layer: nn.Linear, x: Tensor, g: Tensor) -> Rows:
    """dW[rows] = g[:, rows]^T x, where rows and positions of the input are one axis."""
    inner, outer = x.reshape(-1, layer.in_features), g.reshape(-1, layer.out_features).t()
    return lambda part: outer[part] @ inner


def _convolution_rows(layer: Any, x: Tensor, g: Tensor) -> Rows:
    """dW[rows] of a convolution without groups: a product with the unfolded input, or its own backward pass."""
    if better_as_product(layer, len(g) * math.prod(g.shape[2:])):
        inner, outer = unfolded(layer, x).movedim(1, 0).flatten(1).t(), g.flatten(2).movedim(1, 0).flatten(1)
        return lambda part: outer[part] @ inner
    x, padding = padded(layer, x)
    geometry = (list(layer.stride), padding, list(layer.dilation), False, [0] * len(padding), 1)
    weight = layer.weight.detach()
    return lambda part: weight_gradient(x, g[:, part], weight[part], geometry)


_PREPARE: Final[dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Rows]]] = {
    nn.Linear: _linear_rows,
    **dict.fromkeys(CONVOLUTIONS, _convolution_rows),
}

"""Where book-keeping listens: what goes into each trained layer, and the gradient of what comes out.

A tap is the identity in the forward pass. Its second input is a token that requires a gradient: asking autograd for the
token's gradient runs exactly the part of the backward pass that leads to taps, so no weight gradient of the whole batch
and nothing below the first trained layer is computed. Each output's gradient is used while it is in the cache.

GroupNorm has a tap of its own, because its backward pass computes the sums that its scale and shift need anyway:

    (N, channels, L) with G groups  is read as  (1, N channels, L) with N G groups,  scale and shift repeated N times

changes no statistic, but the gradients of scale and shift then come out row by row, without another pass.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# keep_output(layer, input of the layer, gradient of its output); keep_rows(parameter, gradient of each row (N, *shape))
KeepOutput = Callable[[nn.Module, Tensor, Tensor], None]
KeepRows = Callable[[nn.Parameter, Tensor], None]


@contextmanager
def tapped(layers: Sequence[nn.Module], token: Tensor, keep_output: KeepOutput, keep_rows: KeepRows) -> Iterator[None]:
    """Tap ``layers`` for the duration of one forward pass; what is kept arrives in the backward pass."""

    def tap(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        kept = inputs[0].detach()
        tapped: Tensor = _Output.apply(outputs, token, lambda outer: keep_output(layer, kept, outer))  # type: ignore[no-untyped-call]
        return tapped

    norms = [layer for layer in layers if type(layer) is nn.GroupNorm and "forward" not in vars(layer)]
    handles = [layer.register_forward_hook(tap) for layer in layers if layer not in norms]
    try:
        for norm in norms:
            vars(norm)["forward"] = _norm_forward(norm, token, keep_output, keep_rows)  # hides the class's own
        yield
    finally:
        for handle in handles:
            handle.remove()
        for norm in norms:
            vars(norm).pop("forward", None)


class _Output(torch.autograd.Function):
    """The identity, which hands the gradient that passes through it to ``keep``."""

    @staticmethod
    def forward(context: Any, outputs: Tensor, token: Tensor, keep: Callable[[Tensor], None]) -> Tensor:
        context.keep = keep
        context.token = token
        return outputs.view_as(outputs)

    @staticmethod
    def backward(context: Any, *outer: Tensor) -> Any:
        context.keep(outer[0])
        return outer[0], torch.zeros_like(context.token), None


def _norm_forward(
    layer: nn.GroupNorm, token: Tensor, keep_output: KeepOutput, keep_rows: KeepRows
) -> Callable[[Tensor], Tensor]:
    """Return a forward of GroupNorm with its own tap; mixed types (autocast) take the general one."""

    def forward(x: Tensor) -> Tensor:
        if x.dtype != layer.weight.dtype:
            kept = x.detach()
            outputs = nn.GroupNorm.forward(layer, x)
            general: Tensor = _Output.apply(outputs, token, lambda outer: keep_output(layer, kept, outer))  # type: ignore[no-untyped-call]
            return general
        normalised: Tensor = _Norm.apply(x.contiguous(), token, layer, keep_rows)  # type: ignore[no-untyped-call]
        return normalised

    return forward


class _Norm(torch.autograd.Function):
    """GroupNorm, whose backward pass hands each row's gradient of scale and shift to ``keep``."""

    @staticmethod
    def forward(context: Any, x: Tensor, token: Tensor, layer: nn.GroupNorm, keep: KeepRows) -> Tensor:
        rows, positions = x.shape[0], math.prod(x.shape[2:])
        sizes = (rows, layer.num_channels, positions, layer.num_groups)
        outputs, mean, rstd = torch.native_group_norm(x, layer.weight, layer.bias, *sizes, layer.eps)
        context.save_for_backward(x, mean, rstd)
        context.layer, context.keep, context.token = layer, keep, token
        return outputs

    @staticmethod
    def backward(context: Any, *outer: Tensor) -> Any:
        x, mean, rstd = context.saved_tensors
        layer: nn.GroupNorm = context.layer
        rows, channels, positions = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        as_one = (1, rows * channels, positions)
        inner, scale, shift = torch.ops.aten.native_group_norm_backward(
            outer[0].contiguous().view(as_one),
            x.view(as_one),
            mean.view(1, -1),
            rstd.view(1, -1),
            layer.weight.detach().repeat(rows),
            1,
            rows * channels,
            positions,
            rows * layer.num_groups,
            [context.needs_input_grad[0], True, True],
        )
        for parameter, gradient in ((layer.weight, scale), (layer.bias, shift)):
            if parameter.requires_grad:
                context.keep(parameter, gradient.view(rows, channels))
        return None if inner is None else inner.view_as(x), torch.zeros_like(context.token), None, None

"""The parameters' gradient of one layer, patient by patient, from its input and the gradient of its output.

Legend:  P patients, R rows of a patient, N = P R rows, L positions of the output, D = channels times kernel size
    x (N, channels, *size) input       g (N, outputs, *size) gradient of the output
    convolution:   dW_p = sum over rows r of p:  G_r U_r^T     G_r (outputs, L), U_r (D, L) the unfolded input
    linear:        dW_p = sum over rows and positions:  g x^T
    normalisation: dscale_p = sum (x_hat * g),  dshift_p = sum g

Each function returns (parameter, gradient) for the parameters that are trained; a gradient is a sequence of tensors,
each (some consecutive patients, *shape), so that nothing is copied only to be in one piece.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.private_gradients.lone_volumes import weight_gradient

ByPatient = list[tuple[nn.Parameter, Sequence[Tensor]]]

# Three exact ways to a convolution's gradient. On a processor (measured, 1 and 4 rows a patient): some patients in one
# grouped convolution where each one's work is small, because calls cost (eight at a time: larger copies leave the
# cache); unfolding for 1x1, where it is free; one patient at a time elsewhere. On a GPU unfolding, because calls cost
# most of all, unless the unfolded input were larger than this.
CPU_GROUPED_WEIGHTS: Final = 80_000
CPU_GROUPED_PATIENTS: Final = 8
CPU_GROUPED_POSITIONS: Final = 256
GPU_UNFOLDED_BYTES: Final = 1 << 30


def linear(layer: Any, x: Tensor, g: Tensor, patients: int) -> ByPatient:
    """Gradient of ``nn.Linear``; every axis between the first and the last is a position."""
    x, g = x.reshape(patients, -1, x.shape[-1]), g.reshape(patients, -1, g.shape[-1])
    return _trained(
        (layer.weight, lambda: [torch.bmm(g.transpose(1, 2), x)]),
        (layer.bias, lambda: [g.sum(1)]),
    )


def group_norm(layer: Any, x: Tensor, g: Tensor, patients: int) -> ByPatient:
    """Gradient of ``nn.GroupNorm``'s scale and shift."""
    product = functional.group_norm(x, layer.num_groups, eps=layer.eps).mul_(g)  # x_hat * g, without another tensor
    return _trained(
        (layer.weight, lambda: _by_patient(product, patients)),
        (layer.bias, lambda: _by_patient(g, patients)),
    )


def layer_norm(layer: Any, x: Tensor, g: Tensor, patients: int) -> ByPatient:
    """Gradient of ``nn.LayerNorm``'s scale and shift."""
    x_hat = functional.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    shape = (patients, -1, *layer.normalized_shape)
    return _trained(
        (layer.weight, lambda: [(x_hat * g).reshape(shape).sum(1)]),
        (layer.bias, lambda: [g.reshape(shape).sum(1)]),
    )


def convolution(layer: Any, x: Tensor, g: Tensor, patients: int) -> ByPatient:
    """Gradient of ``nn.Conv1d`` to ``nn.Conv3d``: any padding mode, stride, dilation and groups."""
    return _trained(
        (layer.weight, lambda: _convolution_weight(layer, x, g, patients)),
        (layer.bias, lambda: _by_patient(g, patients)),
    )


def transposed_convolution(layer: Any, x: Tensor, g: Tensor, patients: int) -> ByPatient:
    """Gradient of ``nn.ConvTranspose1d`` to ``nn.ConvTranspose3d``: a convolution in which x and g change roles."""
    return _trained(
        (layer.weight, lambda: _one_by_one(layer, x, g, patients, padding=list(layer.padding), transposed=True)),
        (layer.bias, lambda: _by_patient(g, patients)),
    )


def _convolution_weight(layer: Any, x: Tensor, g: Tensor, patients: int) -> list[Tensor]:
    """Choose the fastest of three exact ways; the tests check them against each other."""
    x, padding = padded(layer, x)
    positions = math.prod(g.shape[2:])
    unfolded_bytes = x.shape[0] * x.shape[1] * math.prod(layer.kernel_size) * positions * x.element_size()
    if math.prod(layer.kernel_size) == 1 or (x.is_cuda and unfolded_bytes <= GPU_UNFOLDED_BYTES):
        return _unfolded(layer, x, g, patients, padding=padding)
    if layer.weight.numel() <= CPU_GROUPED_WEIGHTS and positions <= CPU_GROUPED_POSITIONS:
        return _grouped(layer, x, g, patients, padding=padding)
    return _one_by_one(layer, x, g, patients, padding=padding, transposed=False)


def padded(layer: Any, x: Tensor) -> tuple[Tensor, list[int]]:
    """Return the convolution's input and the zero padding still to be done; other modes become part of the input."""
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return x, list(layer.padding)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    sides = layer._reversed_padding_repeated_twice  # noqa: SLF001 (the layer's own rule)
    return functional.pad(x, sides, mode=mode), [0] * len(layer.kernel_size)


def _grouped(layer: Any, x: Tensor, g: Tensor, patients: int, *, padding: list[int]) -> list[Tensor]:
    """One weight-only convolution_backward for up to eight: patients become groups of channels, rows stay the batch."""
    rows = x.shape[0] // patients
    parts = []
    for start in range(0, patients, CPU_GROUPED_PATIENTS):
        count = min(CPU_GROUPED_PATIENTS, patients - start)
        taken = slice(start * rows, (start + count) * rows)
        xs, gs = (t[taken].reshape(count, rows, *t.shape[1:]).transpose(0, 1).flatten(1, 2) for t in (x, g))
        shape_only = x.new_empty(count * layer.weight.shape[0], *layer.weight.shape[1:])
        geometry = (list(layer.stride), padding, list(layer.dilation), False, [0] * len(padding), count * layer.groups)
        weight = torch.ops.aten.convolution_backward(gs, xs, shape_only, None, *geometry, [False, True, False])[1]
        parts.append(weight.reshape(count, *layer.weight.shape))
    return parts


def _one_by_one(
    layer: Any, x: Tensor, g: Tensor, patients: int, *, padding: list[int], transposed: bool
) -> list[Tensor]:
    """One weight-only convolution_backward for each patient."""
    weight = layer.weight.detach().to(x.dtype)
    output_padding = list(layer.output_padding) if transposed else [0] * len(padding)
    geometry = (list(layer.stride), padding, list(layer.dilation), transposed, output_padding, layer.groups)
    return [
        weight_gradient(xp, gp, weight, geometry).unsqueeze(0)
        for xp, gp in zip(x.chunk(patients), g.chunk(patients), strict=True)
    ]


def _unfolded(layer: Any, x: Tensor, g: Tensor, patients: int, *, padding: list[int]) -> list[Tensor]:
    """dW_p = sum_r G_r U_r^T as one batched product for each row place, groups folded into the batch."""
    groups, rows = layer.groups, x.shape[0] // patients
    u = unfold(x, layer.kernel_size, stride=layer.stride, padding=padding, dilation=layer.dilation)
    u = u.reshape(patients, rows, groups, -1, u.shape[-1]).transpose(0, 1).flatten(1, 2)  # (R, P groups, D, L)
    g = g.reshape(patients, rows, groups, g.shape[1] // groups, -1).transpose(0, 1).flatten(1, 2)
    total = torch.bmm(g[0], u[0].transpose(1, 2))
    for row in range(1, rows):
        total = torch.baddbmm(total, g[row], u[row].transpose(1, 2))
    return [total.reshape(patients, *layer.weight.shape)]


def unfold(x: Tensor, kernel: tuple[int, ...], *, stride: Any, padding: list[int], dilation: Any) -> Tensor:
    """Unfold (N, channels, *size) of any dimension into (N, channels * prod(kernel), L), like ``functional.unfold``."""
    dimensions = len(kernel)
    if dimensions == 2:
        return functional.unfold(x, kernel, dilation, tuple(padding), stride)
    x = functional.pad(x, [side for amount in reversed(padding) for side in (amount, amount)])
    for axis in range(dimensions):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        x = x.unfold(2 + axis, reach, stride[axis])[..., :: dilation[axis]]
    axes = range(2, 2 + dimensions)
    x = x.permute(0, 1, *[axis + dimensions for axis in axes], *axes)
    return x.reshape(x.shape[0], x.shape[1] * math.prod(kernel), -1)


def _by_patient(values: Tensor, patients: int) -> list[Tensor]:
    """Add up the rows and positions of each patient: (N, channels, *size) -> (P, channels)."""
    return [values.reshape(patients, -1, values.shape[1], math.prod(values.shape[2:])).sum((1, 3))]


def _trained(*gradients: tuple[nn.Parameter | None, Callable[[], list[Tensor]]]) -> ByPatient:
    """Compute the gradients of those parameters that exist and are trained."""
    return [
        (parameter, gradient())
        for parameter, gradient in gradients
        if parameter is not None and parameter.requires_grad
    ]


LAYERS: Final[dict[type[nn.Module], Callable[[Any, Tensor, Tensor, int], ByPatient]]] = {
    nn.Linear: linear,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.ConvTranspose1d: transposed_convolution,
    nn.ConvTranspose2d: transposed_convolution,
    nn.ConvTranspose3d: transposed_convolution,
}

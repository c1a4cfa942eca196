"""One volume at a time by oneDNN: PyTorch gives it a convolution of volumes only in company, or from a size on.

    torch 2.13, 3-D, float32:  slow_conv3d  where the batch is one and channels * depth * height <= 20480

One patient at a time is such a batch. oneDNN is up to nine times as fast there (16 -> 32 channels at 32x32x32, a core:
97 ms forward and 198 backward become 11 and 43, measured), and gives one volume the bits that it has beside others.
Only what is differentiated once, plainly, takes this way: no ``torch.func``, no ``torch.compile``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

VOLUMES: Final = 5  # axes of (1, channels, depth, height, width)
LARGEST_LEFT_OUT: Final = 20_480  # channels * depth * height; beyond, PyTorch takes oneDNN by itself

# stride, padding, dilation, transposed, output padding, groups: as ``convolution_backward`` takes them
Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]


@contextmanager
def lone_volumes_by_onednn(layers: Iterable[nn.Module], *, weights_too: bool = True) -> Iterator[None]:
    """Let the convolutions of volumes among ``layers`` run by oneDNN meanwhile, where PyTorch would not.

    ``weights_too``: False where no gradient of weights is wanted from autograd. Everything else is done as before:
    other layers, sizes, types and devices, bfloat16.
    """
    chosen = [layer for layer in layers if type(layer) is nn.Conv3d and "forward" not in vars(layer)]
    try:
        for layer in chosen:
            vars(layer)["forward"] = _forward(layer, weights_too=weights_too)  # hides the class's own
        yield
    finally:
        for layer in chosen:
            vars(layer).pop("forward", None)


def convolved(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the layer's output with these weights, some of its own or all: rows of channels to rows of outputs.

    Differentiable once.
    """
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if not plain or not _left_out(x, weight, groups=layer.groups):
        outputs: Tensor = layer._conv_forward(x, weight, bias)  # noqa: SLF001 (padding modes)
        return outputs
    geometry = (list(layer.stride), list(layer.padding), list(layer.dilation), False, [0] * 3, 1)
    by_onednn: Tensor = _Convolution.apply(x, weight, bias, geometry)  # type: ignore[no-untyped-call]
    return by_onednn


def weight_gradient(x: Tensor, g: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the gradient of a convolution's weight, from its input and the gradient of its output.

    Shapes: x (rows, channels, *size), g (rows, outputs, *size), weight as the layer has it; the result like ``weight``.
    """
    found: Tensor = _gradients(x, g, weight, geometry, wanted=(False, True, False))[1]
    return found


def _gradients(x: Tensor, g: Tensor, weight: Tensor, geometry: Geometry, *, wanted: Sequence[bool]) -> Any:
    """Return the gradients of input, weight and bias, None for what is not wanted."""
    alone = not geometry[3] and _left_out(x, weight, groups=geometry[-1])
    if alone:
        x, g = x.contiguous().to_mkldnn(), g.contiguous().to_mkldnn()  # so PyTorch has no choice
    sizes = [g.shape[1]] if wanted[2] else None
    inner, *others = torch.ops.aten.convolution_backward(g, x, weight, sizes, *geometry, list(wanted))
    return inner.to_dense() if alone and wanted[0] else inner, *others


def _left_out(x: Tensor, weight: Tensor, *, groups: int) -> bool:
    """Say whether PyTorch would leave oneDNN out although it can do this convolution."""
    return (
        x.dim() == VOLUMES
        and len(x) == 1
        and groups == 1
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and (max(weight.shape[3:]) > 1 or torch.get_num_threads() > 1)
        and 0 < x[0, ..., 0].numel() <= LARGEST_LEFT_OUT
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and not torch.is_autocast_enabled("cpu")
    )


def _forward(layer: Any, *, weights_too: bool) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        weight, bias = layer.weight, layer.bias
        if not weights_too:
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        return convolved(layer, x, weight, bias)

    return forward


class _Convolution(torch.autograd.Function):
    """oneDNN's convolution of one volume; its gradient is oneDNN's too."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        stride, padding, dilation, *_ = geometry
        context.save_for_backward(x, weight)
        context.geometry = geometry
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, 1)

    @staticmethod
    def backward(context: Any, *outer: Tensor) -> Any:
        x, weight = context.saved_tensors
        return *_gradients(x, outer[0], weight, context.geometry, wanted=context.needs_input_grad[:3]), None

"""How many multiplications a node takes for one image, from its shapes alone: a bound on time, and a forecast of it."""

import math
from collections.abc import Sequence
from typing import Final

from onnx import NodeProto

Shape = tuple[int, ...]
# A value takes a processor as long as so many multiplications, where its library computes it one by one (measured with
# onnxruntime 1.31 on a core, rounded up).
_SLOW: Final = 500
_SLOW_VALUES: Final = frozenset(
    {"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "GridSample", "Mod", "Pow", "Sin", "Sinh", "Tan"}
)
_LESS_SLOW: Final = 50
_LESS_SLOW_VALUES: Final = frozenset(
    {
        "ArgMax", "ArgMin", "Celu", "CumSum", "Elu", "Erf", "Exp", "Gather", "GatherElements", "GatherND", "Gelu",
        "HardSigmoid", "Log", "LogSoftmax", "Mish", "ReduceLogSumExp", "Resize", "ScatterElements", "ScatterND", "Selu",
        "Sigmoid", "Softmax", "Softplus", "Swish", "Tanh",
    }
)  # fmt: skip
_OF_NEIGHBOURS: Final = frozenset({"AveragePool", "LRN", "LpPool", "MaxPool"})


def multiply_adds(node: NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Return an upper estimate of multiplications and additions of ``node``; shapes include a batch of one."""
    made = sum(math.prod(shape) for shape in outputs)
    taken = max((math.prod(shape) for shape in inputs), default=0)
    kind = node.op_type
    if kind == "Conv":
        return made * math.prod(inputs[1][1:])
    if kind == "ConvTranspose":
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if kind in ("Gemm", "MatMul"):
        return made * max(inputs[0][-2:], default=1)  # Gemm may take its first matrix the other way round
    if kind == "Einsum":
        return _einsum(node, inputs)
    if kind in _OF_NEIGHBOURS:
        return made * _neighbours(node)
    return _of_a_value(kind, taken) * max(made, taken, widened(node, inputs, outputs))


def _of_a_value(kind: str, taken: int) -> int:
    """How many multiplications a value takes as long as."""
    if kind == "TopK":
        return _LESS_SLOW * max(1, taken.bit_length())
    return _SLOW if kind in _SLOW_VALUES else _LESS_SLOW if kind in _LESS_SLOW_VALUES else 1


def widened(node: NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Return how many values Resize holds between two sides that it changes one after the other; else 0."""
    if node.op_type != "Resize" or len(inputs[0]) != len(outputs[0]):
        return 0
    return math.prod(max(sides) for sides in zip(inputs[0], outputs[0], strict=True))


def _neighbours(node: NodeProto) -> int:
    """How many values of its input each value of a pool, or of LRN, is made of."""
    attributes = {each.name: each for each in node.attribute}
    sizes = [attributes["size"].i] if node.op_type == "LRN" else attributes["kernel_shape"].ints
    return math.prod(abs(size) for size in sizes)  # a runtime refuses what is below 1


def _einsum(node: NodeProto, inputs: Sequence[Shape]) -> int:
    """The product of all indices; of those behind an ellipsis, which have no letter, of every input's own."""
    equation = next((each.s.decode("ascii", "replace") for each in node.attribute if each.name == "equation"), "")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if "..." in equation or [len(term) for term in terms] != [len(shape) for shape in inputs]:
        return math.prod(math.prod(shape) for shape in inputs)
    sizes = {
        letter: size
        for term, shape in zip(terms, inputs, strict=True)
        for letter, size in zip(term, shape, strict=True)
    }
    return math.prod(sizes.values())

"""How many multiplications a node takes for one image, from its shapes alone: a bound on time, and a forecast of it."""

import math
from collections.abc import Sequence
from typing import Final

from onnx import NodeProto

Shape = tuple[int, ...]
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
    return made * _neighbours(node) if kind in _OF_NEIGHBOURS else max(made, taken)


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

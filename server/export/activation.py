"""Where in an image a class is seen: a class activation map, exact for what a linear head makes of spatial means.

Features that are spatial means of feature maps x_j(p), and a linear head behind a layer norm of the image (mean m,
deviation s, scale g, shift b), give the logit of class c as

    sum_j w_cj (g_j (mean_p x_j(p) - m) / s + b_j) / sqrt(F) + bias_c
  = mean_p [ sum_j w_cj g_j (x_j(p) - m) / (s sqrt(F)) ] + sum_j w_cj b_j / sqrt(F) + bias_c

so the bracket with the constants is a map whose mean is the logit (Zhou et al. 2016, for all levels at once). Behind a
hidden layer the head's gradient at this image stands for w (Selvaraju et al. 2017), without constants. Levels of
another size than the encoder's map are brought to it: means over blocks, repetition, or interpolation where neither
fits.

Which map a feature is the mean of is read from the encoder's own graph; where it cannot be, there is no map of classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from common.encoders.card import EncoderCard
from common.encoders.sizes import Shape, Sizes
from common.networks.feature_head import FeatureHead, HiddenHead

ACTIVATION: Final = "activation"
ENCODER: Final = "encoder/"
PLACE: Final = "activation/"
_KEEP_VALUES: Final = frozenset({"Flatten", "Identity", "Reshape", "Squeeze"})


@dataclass(frozen=True)
class Shown:
    """Nodes and constants that make ``activation`` (batch, classes, *grid)."""

    nodes: list[NodeProto]
    constants: list[TensorProto]
    grid: Shape


class _Page:
    """Nodes and constants as they are written down."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [PLACE + name], **attributes))
        return PLACE + name

    def constant(self, name: str, value: Any, kind: type = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), PLACE + name))
        return PLACE + name


def activation_nodes(
    sizes: Sizes, graph: GraphProto, card: EncoderCard, outputs: Sequence[str], head: nn.Module, *, features: str
) -> Shown | None:
    """Return what makes the activation maps; None where there is no map, or features are no spatial means of it.

    Nor are projected ones.
    ``graph``: of the encoder, its names under ``encoder/``. ``features``: the tensor that the head takes.
    """
    grid = next((output.shape[1:] for output in card.outputs if output.kind == "map"), None)
    if grid is None or not isinstance(head, FeatureHead) or head.projection is not None:
        return None
    made_by = {name: node for node in graph.node for name in node.output}
    sources: list[str] = []
    for name in outputs:
        found = _means(ENCODER + name, made_by, sizes)
        if found is None:
            return None
        sources += found
    page = _Page()
    levels = [_on_grid(page, name, _shape(sizes, name)[2:], grid, number) for number, name in enumerate(sources)]
    joined = page.node("Concat", levels, "levels", axis=1)
    flat_shape = page.constant("flat_shape", [0, head.feature_norm.num_channels, math.prod(grid)], np.int64)
    maps, values = _normalised(page, page.node("Reshape", [joined, flat_shape], "flat"), features, head)
    seen = _weighted(page, maps, values, head)
    classes = int(_last(head).out_features)
    shape = page.constant("shape", [0, classes, *grid], np.int64)
    page.nodes.append(helper.make_node("Reshape", [seen, shape], [ACTIVATION], name=ACTIVATION))
    return Shown(page.nodes, page.constants, tuple(grid))


def _means(name: str, made_by: Mapping[str, NodeProto], sizes: Sizes) -> list[str] | None:
    """Return the feature maps whose spatial means a vector is, in its order; None where it is anything else."""
    node = made_by.get(name)
    if node is None:
        return None
    if node.op_type == "Concat":
        parts = [_means(part, made_by, sizes) for part in node.input]
        return None if None in parts else [source for part in parts if part is not None for source in part]
    if node.op_type in _KEEP_VALUES and len(_shape(sizes, name)) <= len(_shape(sizes, node.input[0])):
        return _means(node.input[0], made_by, sizes)
    return [node.input[0]] if _is_spatial_mean(node, sizes) else None


def _is_spatial_mean(node: NodeProto, sizes: Sizes) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    dimensions = len(_shape(sizes, node.input[0]))
    stored = sizes.constants.get(node.input[1].removeprefix(ENCODER)) if len(node.input) > 1 else None
    axes = next((list(each.ints) for each in node.attribute if each.name == "axes"), None)
    found = [int(axis) for axis in stored] if stored is not None else axes
    return found is not None and sorted(axis % dimensions for axis in found) == list(range(2, dimensions))


def _shape(sizes: Sizes, name: str) -> Shape:
    return sizes.shapes[name.removeprefix(ENCODER)]


def _on_grid(page: _Page, name: str, size: Shape, grid: Shape, number: int) -> str:
    """Bring one level to the grid; its mean stays the same where one size divides the other."""
    if size == grid:
        return name
    if all(have % want == 0 for have, want in zip(size, grid, strict=True)):
        block = [have // want for have, want in zip(size, grid, strict=True)]
        return page.node("AveragePool", [name], f"level_{number}", kernel_shape=block, strides=block)
    fits = all(want % have == 0 for have, want in zip(size, grid, strict=True))
    spare = 0.0 if fits else 1e-3  # a size is rounded down, and a quotient may lie below the number it should be
    factors = [1, 1, *((want + spare) / have for have, want in zip(size, grid, strict=True))]
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    inputs = [name, "", page.constant(f"factors_{number}", factors)]
    return page.node("Resize", inputs, f"level_{number}", **(nearest if fits else {"mode": "linear"}))


def _normalised(page: _Page, maps: str, features: str, head: FeatureHead) -> tuple[str, str]:
    """Return the maps (batch, features, places), and the features, less the image's mean over its deviation."""
    count = head.feature_norm.num_channels
    average = page.constant("average", np.full((count, 1), 1 / count))
    mean = page.node("MatMul", [features, average], "mean")
    centred = page.node("Sub", [features, mean], "centred")
    squares = page.node("Mul", [centred, centred], "squares")
    variance = page.node("MatMul", [squares, average], "variance")
    deviation = page.node(
        "Sqrt", [page.node("Add", [variance, page.constant("eps", [head.feature_norm.eps])], "not_zero")], "deviation"
    )
    axis = page.constant("places", [2], np.int64)
    wide_mean, wide_deviation = (
        page.node("Unsqueeze", [name, axis], f"{name.removeprefix(PLACE)}_wide") for name in (mean, deviation)
    )
    less = page.node("Sub", [maps, wide_mean], "maps_centred")
    return page.node("Div", [less, wide_deviation], "maps"), page.node("Div", [centred, deviation], "values")


def _weighted(page: _Page, maps: str, values: str, head: FeatureHead) -> str:
    """Return the sum of the normalised maps by class, (batch, classes, places)."""
    root = math.sqrt(head.feature_norm.num_channels)
    scale, shift = _array(head.feature_norm.weight) / root, _array(head.feature_norm.bias) / root
    if isinstance(head.head, HiddenHead):
        return page.node("MatMul", [_gradient(page, values, scale, shift, head.head), maps], "seen")
    last = _last(head)
    weight = _array(last.weight)
    seen = page.node("MatMul", [page.constant("weight", weight * scale), maps], "seen")
    constants = weight @ shift + _array(last.bias)
    return page.node("Add", [seen, page.constant("constants", constants[:, np.newaxis])], "seen_whole")


def _gradient(
    page: _Page, values: str, scale: NDArray[np.float64], shift: NDArray[np.float64], head: HiddenHead
) -> str:
    """Return the gradient of the logits of each image by its normalised features, (batch, classes, features)."""
    first, last = _array(head.hidden.weight), _array(head.output.weight)
    sums = page.node("MatMul", [values, page.constant("hidden_weight", (first * scale).T)], "hidden_sums")
    bias = page.constant("hidden_bias", first @ shift + _array(head.hidden.bias))
    hidden = page.node("Add", [sums, bias], "hidden")
    gate = page.node("Sigmoid", [hidden], "gate")  # SiLU(h) = h gate; its slope: gate (1 + h (1 - gate))
    rest = page.node("Mul", [hidden, page.node("Sub", [page.constant("one", [1.0]), gate], "shut")], "rest")
    slope = page.node("Mul", [gate, page.node("Add", [rest, PLACE + "one"], "rest_and_one")], "slope")
    wide = page.node("Unsqueeze", [slope, page.constant("classes", [1], np.int64)], "slope_wide")
    by_class = page.node("Mul", [wide, page.constant("output_weight", last)], "by_class")
    return page.node("MatMul", [by_class, page.constant("hidden_scaled", first * scale)], "gradient")


def _last(head: FeatureHead) -> nn.Linear:
    last = head.head.output if isinstance(head.head, HiddenHead) else head.head
    assert isinstance(last, nn.Linear)  # noqa: S101 (for the types)
    return last


def _array(parameter: Tensor) -> NDArray[np.float64]:
    return parameter.detach().double().numpy()

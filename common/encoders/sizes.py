"""How large everything becomes that an encoder computes for one image, found without computing it.

One walk through the nodes with ONNX's own rules of shapes. Where a shape follows from arithmetic on constants, which
exporters leave in a file, that arithmetic is done here, on small tensors only. A tensor whose size depends on values of
the image, or cannot be told, is refused: then nothing bounds the memory of whoever runs the file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper, numpy_helper
from onnx.checker import ValidationError
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError, infer_node_outputs

from common.encoders.card import EncoderCard
from common.encoders.checking import LARGEST_AT_ONCE_BYTES
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.encoders.form import BEYOND, ELEMENTS, shown
from common.encoders.operators import FOLDED
from common.encoders.work import multiply_adds, widened

LARGEST_TENSOR_BYTES: Final = 1 << 30
MOST_MULTIPLY_ADDS: Final = 5_000_000_000_000  # for one image: minutes; the largest vision transformers take 2e12
VALUE_BYTES: Final = 4  # of the input
MOST_FACTORS: Final = 2  # of an Einsum
SMALL: Final = 4096  # numbers of a constant that is computed here
MOST_COMPUTED: Final = 20_000  # nodes; exporters of large networks leave some thousand
HALVES: Final = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
SINGLE_BYTES: Final = 4
DIVISIONS: Final = ("Div", "Mod")
WHOLE: Final = (TensorProto.INT32, TensorProto.INT64)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """``outputs``: shape of each output of the file with its batch of one; ``bytes_at_once``: beside the weights.

    ``shapes``: of every tensor; ``constants``: small ones, of those that follow from no image.
    """

    outputs: Mapping[str, Shape]
    bytes_at_once: int
    multiply_adds: int
    shapes: Mapping[str, Shape]
    constants: Mapping[str, NDArray[Any]]


class _Walk:
    """What is known of each tensor so far."""

    def __init__(self, model: ModelProto, image: Shape) -> None:
        self.graph = model.graph
        self.opsets = list(model.opset_import)
        self.version = self.opsets[0].version
        self.types: dict[str, TypeProto] = {}
        self.values: dict[str, NDArray[Any]] = {}  # small constants
        self.constant: set[str] = set()
        self.computed = 0
        for tensor in self.graph.initializer:
            self._define(tensor.name, helper.make_tensor_type_proto(tensor.data_type, tensor.dims), is_constant=True)
            if math.prod(tensor.dims) <= SMALL:
                self.values[tensor.name] = numpy_helper.to_array(tensor)
        for value in self.graph.input:
            if value.name not in self.types:
                self._define(value.name, helper.make_tensor_type_proto(TensorProto.FLOAT, image), is_constant=False)

    def _define(self, name: str, kind: TypeProto, *, is_constant: bool) -> None:
        if not name or name in self.types:
            raise EncoderInvalidError(f"tensor {shown(name)} has no name, or is made twice", EncoderFault.GRAPH)
        self.types[name] = kind
        if is_constant:
            self.constant.add(name)

    def shape(self, name: str) -> Shape:
        return tuple(dim.dim_value for dim in self.types[name].tensor_type.shape.dim)

    def bytes_of(self, name: str) -> int:
        kind = self.types[name].tensor_type.elem_type
        return math.prod(self.shape(name)) * ELEMENTS[kind][0] + self.single_bytes(name)

    def single_bytes(self, name: str) -> int:
        """Return what single precision takes beside numbers of half: a processor's runtime computes in it."""
        return SINGLE_BYTES * math.prod(self.shape(name)) * (self.types[name].tensor_type.elem_type in HALVES)

    def scratch_bytes(self, node: NodeProto) -> int:
        """Return what a runtime takes for ``node`` beside its tensors.

        The columns of a transposed convolution; the picture between two sides that Resize changes one after the other.
        """
        if node.op_type == "Resize":
            return 2 * VALUE_BYTES * widened(node, [self.shape(node.input[0])], [self.shape(node.output[0])])
        if node.op_type != "ConvTranspose":
            return 0
        image, weight = self.shape(node.input[0]), self.shape(node.input[1])
        return math.prod(weight[1:]) * math.prod(image[2:]) * ELEMENTS[TensorProto.FLOAT][0]

    def step(self, node: NodeProto) -> int:
        """Find out what ``node`` makes; return its multiply-adds."""
        inputs = [name for name in node.input if name]
        if not all(name in self.types for name in inputs):
            raise EncoderInvalidError(
                f"a node {shown(node.op_type)} uses what no node before it makes", EncoderFault.GRAPH
            )
        is_constant = all(name in self.constant for name in inputs)
        if node.op_type == "Einsum" and len(inputs) > MOST_FACTORS:
            raise EncoderInvalidError(
                f"a node 'Einsum' multiplies {len(inputs)} tensors, which makes others between; the limit is "
                f"{MOST_FACTORS}",
                EncoderFault.GRAPH,
            )
        if node.op_type in DIVISIONS:
            self._check_divisor(node)
        made = self._inferred(node)
        for name in node.output:
            if name:
                self._check_made(node, made.get(name))
                self._define(name, made[name], is_constant=is_constant)
        self._keep_values(node)
        shapes = [self.shape(name) if name else () for name in node.input]
        return multiply_adds(node, shapes, [self.shape(name) for name in node.output if name])

    def _check_divisor(self, node: NodeProto) -> None:
        """Refuse to divide whole numbers by what may be -1 (or 0): the least one by -1 ends a runtime's process."""
        if not all(self.types[name].tensor_type.elem_type in WHOLE for name in node.input):
            return
        divisor = self.values.get(node.input[-1])
        if divisor is None or bool(np.isin(divisor, (-1, 0)).any()):
            raise EncoderInvalidError(
                f"a node {shown(node.op_type)} divides whole numbers by what is, or may be, 0 or -1",
                EncoderFault.GRAPH,
            )

    def _inferred(self, node: NodeProto) -> dict[str, TypeProto]:
        known = {name: numpy_helper.from_array(self.values[name], name) for name in node.input if name in self.values}
        types = {name: self.types[name] for name in node.input if name}
        try:
            schema = onnx.defs.get_schema(node.op_type, self.version, "")
            return infer_node_outputs(schema, node, types, known, opset_imports=self.opsets)
        except (InferenceError, ValidationError, onnx.defs.SchemaError, ValueError, RuntimeError, KeyError):
            raise EncoderInvalidError(
                f"a node {shown(node.op_type)} breaks the rules of its operator (opset {self.version})",
                EncoderFault.GRAPH,
            ) from None

    def _check_made(self, node: NodeProto, kind: TypeProto | None) -> None:
        tensor = None if kind is None else kind.tensor_type
        if tensor is None or not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
            raise EncoderInvalidError(
                f"the size of what a node {shown(node.op_type)} makes cannot be told from the file; export it with a "
                "fixed input size",
                EncoderFault.SHAPE_UNKNOWN,
            )
        if tensor.elem_type not in ELEMENTS:
            raise EncoderInvalidError(
                f"a node {shown(node.op_type)} makes elements of type {tensor.elem_type}, which is not allowed",
                EncoderFault.ELEMENT_TYPE,
            )
        dims = [dim.dim_value for dim in tensor.shape.dim]
        if min(dims, default=0) < 0:
            raise EncoderInvalidError(
                f"a node {shown(node.op_type)} makes a tensor of no size that can be: {str(dims)[:60]}",
                EncoderFault.MEMORY,
            )
        size = min(math.prod(dims) * ELEMENTS[tensor.elem_type][0], BEYOND)
        if size > LARGEST_TENSOR_BYTES:
            raise EncoderInvalidError(
                f"a node {shown(node.op_type)} makes {size} bytes for one image, the limit is {LARGEST_TENSOR_BYTES}",
                EncoderFault.MEMORY,
            )

    def _keep_values(self, node: NodeProto) -> None:
        """Compute the result of a node where it is small and follows from shapes and small constants."""
        outputs = [name for name in node.output if name]
        if any(math.prod(self.shape(name)) > SMALL for name in outputs):
            return
        if node.op_type in ("Shape", "Size"):
            self._keep(node.output[0], self._of_shape(node), is_constant=True)
        elif node.op_type in FOLDED and all(name in self.values for name in node.input if name):
            for name, value in zip(outputs, self._computed(node, outputs), strict=True):
                self._keep(name, value, is_constant=True)

    def _keep(self, name: str, value: Any, *, is_constant: bool) -> None:
        array = np.asarray(value)
        if array.shape != self.shape(name):
            raise EncoderInvalidError("a constant has another shape than its operator's rule says", EncoderFault.GRAPH)
        self.values[name] = array
        if is_constant:
            self.constant.add(name)

    def _of_shape(self, node: NodeProto) -> NDArray[np.int64]:
        shape = self.shape(node.input[0])
        if node.op_type == "Size":
            return np.array(math.prod(shape), np.int64)
        ends = {each.name: each.i for each in node.attribute}
        return np.array(shape[ends.get("start", 0) : ends.get("end", len(shape))], np.int64)

    def _computed(self, node: NodeProto, outputs: list[str]) -> list[Any]:
        self.computed += 1
        if self.computed > MOST_COMPUTED:
            raise EncoderInvalidError(
                f"more than {MOST_COMPUTED} nodes compute constants; export it with constants folded", EncoderFault.WORK
            )
        names = list(dict.fromkeys(name for name in node.input if name))
        graph = GraphProto(node=[node])
        graph.input.extend(ValueInfoProto(name=name, type=self.types[name]) for name in names)
        graph.output.extend(ValueInfoProto(name=name, type=self.types[name]) for name in outputs)
        try:
            found = ReferenceEvaluator(graph, opsets={"": self.version}).run(None, {n: self.values[n] for n in names})
        except Exception:  # noqa: BLE001 (whatever its arithmetic throws on whatever a file holds)
            raise EncoderInvalidError(
                f"a constant node {shown(node.op_type)} cannot be computed", EncoderFault.GRAPH
            ) from None
        return list(found)


def load_what_loads_late() -> None:
    """Have ONNX load all that it loads at first use, for a process that soon can open nothing more."""
    made = helper.make_tensor_value_info("made", TensorProto.FLOAT, [])
    node = helper.make_node("Constant", [], ["made"], value_float=1.0)
    ReferenceEvaluator(helper.make_graph([node], "", [], [made]), opsets={"": 17}).run(None, {})


def sizes_of(model: ModelProto, card: EncoderCard) -> Sizes:
    """Return the sizes of a file whose form was checked, for one image of the card's size.

    Raises: EncoderInvalidError.
    """
    walk = _Walk(model, (1, *card.input_shape))
    wanted = {output.name for output in model.graph.output}
    last_use = {name: place for place, node in enumerate(model.graph.node) for name in node.input}
    alive = VALUE_BYTES * math.prod((1, *card.input_shape))
    most = alive = alive + sum(walk.single_bytes(tensor.name) for tensor in model.graph.initializer)
    work = 0
    for place, node in enumerate(model.graph.node):
        work += walk.step(node)
        made = [name for name in node.output if name]
        alive += sum(walk.bytes_of(name) for name in made)
        most = max(most, alive + walk.scratch_bytes(node))
        ended = {name for name in (*node.input, *made) if name and last_use.get(name, place) <= place}
        # what follows from constants alone is computed once, before the first image, and kept
        alive -= sum(walk.bytes_of(name) for name in ended if name not in wanted and name not in walk.constant)
        _check_bounds(most, work)
    missing = wanted - set(walk.types)
    if missing:
        raise EncoderInvalidError(f"output {shown(min(missing))} is made by no node", EncoderFault.OUTPUT)
    for value in (*model.graph.value_info, *model.graph.output):
        _check_declared(walk, value)
    shapes = {name: walk.shape(name) for name in walk.types}
    return Sizes({name: shapes[name] for name in wanted}, most, work, shapes, walk.values)


def _check_declared(walk: _Walk, value: ValueInfoProto) -> None:
    """Refuse a shape that the file declares and that is another: a runtime may plan its memory by it."""
    declared = value.type.tensor_type
    if value.name not in walk.types or not declared.HasField("shape"):
        return
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in declared.shape.dim]
    found = walk.shape(value.name)
    fits = len(dims) == len(found) and all(dim in (None, size) for dim, size in zip(dims, found, strict=True))
    if not fits or declared.elem_type != walk.types[value.name].tensor_type.elem_type:
        raise EncoderInvalidError(
            f"it declares another shape for {shown(value.name)} than its nodes give with a batch of one",
            EncoderFault.GRAPH,
        )


def _check_bounds(bytes_at_once: int, work: int) -> None:
    if bytes_at_once > LARGEST_AT_ONCE_BYTES:
        raise EncoderInvalidError(
            f"one image takes {min(bytes_at_once, BEYOND)} bytes beside the weights, "
            f"the limit is {LARGEST_AT_ONCE_BYTES}",
            EncoderFault.MEMORY,
        )
    if work > MOST_MULTIPLY_ADDS:
        raise EncoderInvalidError(
            f"one image takes {min(work, BEYOND)} multiplications, the limit is {MOST_MULTIPLY_ADDS}", EncoderFault.WORK
        )

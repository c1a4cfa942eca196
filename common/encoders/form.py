"""The form of an encoder's file: versions, names, tensors and operators, before anything is computed from it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.encoders.operators import (
    ALLOWED,
    CONTROL_FLOW,
    FIRST_IR,
    FIRST_OPSET,
    LAST_IR,
    LAST_OPSET,
    STANDARD_DOMAINS,
    YES_OR_NO,
)

MOST_NODES: Final = 20_000  # the largest vision transformers have some thousand; a runtime's time grows with the square
MOST_DIMENSIONS: Final = 16  # of a tensor
BEYOND: Final = 1 << 62  # a number that a sentence can show, for whatever is larger
MOST_ATTRIBUTES: Final = 64  # of one node
MOST_EDGES: Final = 1024  # inputs or outputs of one node
LONGEST_NAME: Final = 1024
LONGEST_TEXT: Final = 256 * 1024  # exporters put a stack trace into a node's remarks

# element type -> bytes, and the field that holds its values where ``raw_data`` does not
ELEMENTS: Final[Mapping[int, tuple[int, str]]] = {
    TensorProto.FLOAT: (4, "float_data"), TensorProto.DOUBLE: (8, "double_data"),
    TensorProto.FLOAT16: (2, "int32_data"), TensorProto.BFLOAT16: (2, "int32_data"),
    TensorProto.INT8: (1, "int32_data"), TensorProto.INT16: (2, "int32_data"),
    TensorProto.INT32: (4, "int32_data"), TensorProto.INT64: (8, "int64_data"), TensorProto.UINT8: (1, "int32_data"),
    TensorProto.UINT16: (2, "int32_data"), TensorProto.UINT32: (4, "uint64_data"),
    TensorProto.UINT64: (8, "uint64_data"), TensorProto.BOOL: (1, "int32_data"),
}  # fmt: skip
_VALUES: Final = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_NUMBERS: Final = {
    AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING, AttributeProto.TENSOR, AttributeProto.FLOATS,
    AttributeProto.INTS, AttributeProto.STRINGS, AttributeProto.TENSORS,
}  # fmt: skip


def shown(text: str | bytes) -> str:
    """Return a name from a file as a sentence may quote it: bounded, and without what nobody sees."""
    return ascii(text if isinstance(text, str) else text.decode("utf-8", "replace"))[:60]


def check_form(model: ModelProto) -> None:
    """Check everything that can be told from each part of the file alone. Raises: EncoderInvalidError."""
    if not FIRST_IR <= model.ir_version <= LAST_IR:
        raise EncoderInvalidError(
            f"its IR version is {model.ir_version}, {FIRST_IR} to {LAST_IR} are known", EncoderFault.FORMAT
        )
    _check_opset(model)
    if model.functions:
        raise EncoderInvalidError(
            f"it brings {len(model.functions)} functions of its own; export it with standard operators alone",
            EncoderFault.FUNCTION,
        )
    if model.training_info or model.graph.quantization_annotation:
        raise EncoderInvalidError(
            "it has parts for training or quantising; export it for inference", EncoderFault.FORMAT
        )
    if model.graph.sparse_initializer:
        raise EncoderInvalidError("it has sparse tensors; store its weights in full", EncoderFault.SPARSE)
    _check_texts([model.producer_name, model.producer_version, model.domain, model.doc_string], LONGEST_TEXT)
    _check_entries(model.metadata_props)
    _check_graph(model.graph)


def _check_opset(model: ModelProto) -> None:
    others = sorted({each.domain for each in model.opset_import} - set(STANDARD_DOMAINS))
    if others:
        raise EncoderInvalidError(
            f"it imports operators of {shown(others[0])}; only the standard ones are allowed: export it with those, "
            "and leave out imports that nothing uses",
            EncoderFault.CUSTOM_DOMAIN,
        )
    versions = [each.version for each in model.opset_import]
    if len(versions) != 1 or not FIRST_OPSET <= versions[0] <= LAST_OPSET:
        raise EncoderInvalidError(
            f"its operators are of version {versions[:3]}, one from {FIRST_OPSET} to {LAST_OPSET} is needed",
            EncoderFault.FORMAT,
        )


def _check_graph(graph: GraphProto) -> None:
    if not 1 <= len(graph.node) <= MOST_NODES:
        raise EncoderInvalidError(
            f"it has {len(graph.node)} nodes, from 1 to {MOST_NODES} are allowed", EncoderFault.GRAPH
        )
    _check_texts([graph.name, graph.doc_string], LONGEST_TEXT)
    _check_entries(graph.metadata_props)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_texts([value.name], LONGEST_NAME)
        _check_texts([value.doc_string], LONGEST_TEXT)
        _check_entries(value.metadata_props)
    for tensor in graph.initializer:
        check_tensor(tensor)
    for node in graph.node:
        _check_node(node)


def _check_node(node: NodeProto) -> None:
    if node.domain not in STANDARD_DOMAINS:
        raise EncoderInvalidError(
            f"operator {shown(node.op_type)} is of {shown(node.domain)}; only the standard ones are allowed",
            EncoderFault.CUSTOM_DOMAIN,
        )
    graphs = any(each.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for each in node.attribute)
    if node.op_type in CONTROL_FLOW or graphs:
        raise EncoderInvalidError(
            f"operator {shown(node.op_type)} is control flow, whose work has no bound; export the network by tracing",
            EncoderFault.CONTROL_FLOW,
        )
    if node.op_type not in ALLOWED:
        raise EncoderInvalidError(
            f"operator {shown(node.op_type)} is not one that an encoder may have", EncoderFault.OPERATOR
        )
    if max(len(node.input), len(node.output)) > MOST_EDGES or len(node.attribute) > MOST_ATTRIBUTES:
        raise EncoderInvalidError(f"a node {shown(node.op_type)} has too many inputs or attributes", EncoderFault.GRAPH)
    _check_texts([node.name, node.overload, *node.input, *node.output], LONGEST_NAME)
    _check_texts([node.doc_string], LONGEST_TEXT)
    _check_entries(node.metadata_props)
    for attribute in node.attribute:
        _check_attribute(node, attribute)


def _check_attribute(node: NodeProto, attribute: AttributeProto) -> None:
    if attribute.type in (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS):
        raise EncoderInvalidError("it has sparse tensors; store its weights in full", EncoderFault.SPARSE)
    # what an attribute holds beside the field that its type names would be looked at by nobody
    fields = {field.name for field, _ in attribute.ListFields()} - {"name", "type", "doc_string"}
    if attribute.type not in _NUMBERS or attribute.ref_attr_name or len(fields) > 1:
        raise EncoderInvalidError(
            f"attribute {shown(attribute.name)} of {shown(node.op_type)} is of a kind that is not allowed",
            EncoderFault.GRAPH,
        )
    if attribute.name in YES_OR_NO and attribute.i not in (0, 1):
        raise EncoderInvalidError(
            f"attribute {shown(attribute.name)} of {shown(node.op_type)} is {attribute.i}, it must be 0 or 1",
            EncoderFault.GRAPH,
        )
    _check_texts([attribute.name, attribute.s, *attribute.strings], LONGEST_NAME)
    _check_texts([attribute.doc_string], LONGEST_TEXT)
    for tensor in _tensors(attribute):
        check_tensor(tensor)


def _tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors


def check_tensor(tensor: TensorProto) -> None:
    """Check that a stored tensor has a plain type, lies in the file, and that its values are as many as it claims.

    Raises: EncoderInvalidError.
    """
    if tensor.external_data or tensor.data_location != TensorProto.DEFAULT:
        raise EncoderInvalidError(
            f"tensor {shown(tensor.name)} lies in another file; store the weights inside this one",
            EncoderFault.EXTERNAL_DATA,
        )
    _check_texts([tensor.name], LONGEST_NAME)
    _check_texts([tensor.doc_string], LONGEST_TEXT)
    _check_entries(tensor.metadata_props)
    if tensor.data_type not in ELEMENTS:
        raise EncoderInvalidError(
            f"tensor {shown(tensor.name)} has elements of type {tensor.data_type}, which is not allowed",
            EncoderFault.ELEMENT_TYPE,
        )
    width, field = ELEMENTS[tensor.data_type]
    stored = {name: len(getattr(tensor, name)) for name in _VALUES if len(getattr(tensor, name))}
    if tensor.HasField("raw_data"):
        stored["raw_data"] = len(tensor.raw_data)
    if len(tensor.dims) > MOST_DIMENSIONS or min(tensor.dims, default=1) < 0:  # before their product, which takes time
        raise EncoderInvalidError(
            f"tensor {shown(tensor.name)} has {len(tensor.dims)} dimensions, or one below 0", EncoderFault.TENSOR_SIZE
        )
    count = math.prod(tensor.dims)
    needed = {"raw_data": count * width, field: count}
    fits = all(stored.get(name, 0) in (0, needed.get(name, 0)) for name in stored) and len(stored) <= 1
    if tensor.HasField("segment") or not fits or (count and not stored):
        raise EncoderInvalidError(
            f"tensor {shown(tensor.name)} claims {min(count, BEYOND)} numbers and does not hold them",
            EncoderFault.TENSOR_SIZE,
        )


def _check_entries(entries: Iterable[Any]) -> None:
    for entry in entries:
        _check_texts([entry.key], LONGEST_NAME)
        _check_texts([entry.value], LONGEST_TEXT)


def _check_texts(texts: Iterable[str | bytes], longest: int) -> None:
    for text in texts:
        if len(text) > longest:
            raise EncoderInvalidError(
                f"a text of {len(text)} characters is in it, the limit is {longest}", EncoderFault.TEXT_TOO_LONG
            )

"""A plan on a public encoder as one ONNX file, which onnxruntime alone runs: preparation, encoder, head, probabilities.

    images (batch, plan's channels, *size) in [0, 1]
      -> one channel three times, where the encoder takes three; the card's mapping of values
      -> the encoder, its nodes under ``encoder/``; the plan's outputs, joined
      -> the trained head under ``head/`` -> ``logits`` -> ``probabilities``, the first output
      -> ``activation``, the second, where it can be told (``server.export.activation``)

The batch is what the encoder's file allows: 1 where it was exported so. The operators are of the encoder's version.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, compose, helper, numpy_helper
from torch import nn

from common.encoders.card import EncoderCard
from common.encoders.sizes import sizes_of
from common.plan.plan import StudyPlan
from server.errors import StudyFolderInvalidError
from server.export.activation import ACTIVATION, activation_nodes
from server.export.tracing import INPUT, LAST_TRACED_OPSET, LOGITS, PROBABILITIES, probabilities_of, traced

ENCODER, HEAD = "encoder/", "head/"
LARGEST_FILE_BYTES: Final = (1 << 31) - (1 << 20)  # protobuf's own limit, with room for the head


@dataclass(frozen=True, eq=False)
class EncoderFile:
    """A public encoder whose file was checked against its card, in memory."""

    card: EncoderCard
    content: bytes


def whole_model(plan: StudyPlan, head: nn.Module, encoder: EncoderFile) -> ModelProto:
    """Return the merged model. Raises: StudyFolderInvalidError where it would be larger than ONNX allows."""
    named = plan.network.encoder
    if named is None or len(encoder.content) > LARGEST_FILE_BYTES:
        raise StudyFolderInvalidError("encoder and head together are larger than the 2 GiB that an ONNX file may have")
    plain = ModelProto.FromString(encoder.content)
    sizes = sizes_of(plain, encoder.card)
    version = plain.opset_import[0].version
    inside = compose.add_prefix(plain, ENCODER, inplace=True)
    outside = compose.add_prefix(traced(head, plan.input_shape, opset=min(version, LAST_TRACED_OPSET)), HEAD)
    graph = GraphProto(name=plan.study.name)
    nodes, constants = _prepared(plan, encoder.card)
    nodes += inside.graph.node
    nodes.append(helper.make_node("Concat", [ENCODER + name for name in named.outputs], [HEAD + INPUT], axis=1))
    nodes += outside.graph.node
    nodes.append(helper.make_node("Identity", [HEAD + LOGITS], [LOGITS]))
    nodes.append(probabilities_of(plan, LOGITS))
    batch = _batch(inside, encoder.card)
    outputs = [_declared(PROBABILITIES, batch, len(plan.task.classes))]
    shown = activation_nodes(sizes, inside.graph, encoder.card, named.outputs, head, features=HEAD + INPUT)
    if shown is not None:
        nodes += shown.nodes
        constants += shown.constants
        outputs.append(_declared(ACTIVATION, batch, len(plan.task.classes), *shown.grid))
    graph.node.extend(nodes)
    graph.initializer.extend([*inside.graph.initializer, *outside.graph.initializer, *constants])
    graph.input.append(_declared(INPUT, batch, *plan.image.input_shape))
    graph.output.extend([*outputs, _declared(LOGITS, batch, len(plan.task.classes))])
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", version)],
        ir_version=max(plain.ir_version, 8),
        producer_name="fedward",
    )


def _prepared(plan: StudyPlan, card: EncoderCard) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return what leads from a prepared image to what the encoder was trained on."""
    shape = (1, card.channels, *(1 for _ in card.size_px))
    constants = [
        numpy_helper.from_array(np.asarray(values, np.float32).reshape(shape), f"prepared/{name}")
        for name, values in (("scale", card.mapping.scale), ("offset", card.mapping.offset))
    ]
    image, nodes = INPUT, []
    if plan.image.channels != card.channels:
        image = "prepared/channels"
        nodes.append(helper.make_node("Concat", [INPUT] * card.channels, [image], axis=1))
    nodes.append(helper.make_node("Mul", [image, "prepared/scale"], ["prepared/scaled"]))
    nodes.append(helper.make_node("Add", ["prepared/scaled", "prepared/offset"], [ENCODER + card.input_name]))
    return nodes, constants


def _batch(encoder: ModelProto, card: EncoderCard) -> int | str:
    given = next(value for value in encoder.graph.input if value.name == ENCODER + card.input_name)
    first = given.type.tensor_type.shape.dim[0]
    return 1 if first.HasField("dim_value") else "batch"


def _declared(name: str, *dims: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)

"""A network of ours as an ONNX graph, by tracing, and the probabilities that follow its logits."""

import io
import warnings
from typing import Final

import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from torch import nn

from common.plan.plan import StudyPlan
from common.plan.task import TaskKind

INPUT, LOGITS, PROBABILITIES = "images", "logits", "probabilities"
OPSET: Final = 17
LAST_TRACED_OPSET: Final = 20  # of torch's tracing exporter
TRACED_IMAGES: Final = 2  # one could be mistaken for a fixed batch


def traced(module: nn.Module, shape: tuple[int, ...], *, opset: int = OPSET) -> ModelProto:
    """Return ``module`` as a graph from ``images`` (batch, *shape) to ``logits``."""
    content = io.BytesIO()
    batch = {0: "batch"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the shapes' own arithmetic, which is fixed, and of the exporter's age
        torch.onnx.export(
            module,
            (torch.zeros(TRACED_IMAGES, *shape),),
            content,  # type: ignore[arg-type] # its type leaves out buffers, which this exporter takes
            input_names=[INPUT],
            output_names=[LOGITS],
            dynamic_axes={INPUT: batch, LOGITS: batch},
            opset_version=opset,
            dynamo=False,
        )
    return onnx.load_from_string(content.getvalue())


def probabilities_of(plan: StudyPlan, logits: str) -> NodeProto:
    """Return the node that makes ``probabilities``: each class by itself where several may hold, else of all one."""
    if plan.task.kind is TaskKind.MULTI_LABEL:
        return helper.make_node("Sigmoid", [logits], [PROBABILITIES], name=PROBABILITIES)
    return helper.make_node("Softmax", [logits], [PROBABILITIES], name=PROBABILITIES, axis=1)


def probabilities_value(logits: ValueInfoProto) -> ValueInfoProto:
    """Return the declaration of ``probabilities``, of the shape of the logits."""
    dims = [dim.dim_param or dim.dim_value for dim in logits.type.tensor_type.shape.dim]
    return helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, dims)

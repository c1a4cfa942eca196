"""The exported network for other runtimes (ONNX): prepared images in, named class probabilities out.

Our networks have no control flow that depends on values, so a trace is the whole network; the tests compare scores with
torch's on other images and batch sizes. A plan on a public encoder gives one file with the encoder in it.
"""

import json
from collections.abc import Mapping

import onnx
import torch
from onnx import ModelProto
from torch import nn

from common.networks.parameters import load
from common.plan.plan import StudyPlan
from common.plan.start import start_network
from server.export.tracing import probabilities_of, probabilities_value, traced
from server.export.whole import EncoderFile, whole_model
from server.model.blocks import Vector
from server.model.phase_facts import StudyNetwork


def onnx_file(
    plan: StudyPlan,
    network: StudyNetwork,
    parameters: Vector,
    metadata: Mapping[str, str],
    *,
    encoder: EncoderFile | None = None,
) -> bytes:
    """Return the plan's network with ``parameters`` as an ONNX file: the same bytes for the same model.

    Shapes: images (batch, channels, *size) float32, prepared as the plan's image settings say -> ``logits`` as
    ``common.networks.registry`` gives them, and ``probabilities`` of the same shape, by class in the order of
    ``classes`` in the metadata. ``metadata``: shown by ONNX tools; what was done to an image before is added to it.
    ``encoder``: of a plan that names one; the outputs are then those of ``server.export.whole``.
    """
    module = start_network(plan)
    load(module, network.everything, torch.from_numpy(parameters))
    model = _own_model(plan, module.eval()) if encoder is None else whole_model(plan, module.eval(), encoder)
    described = {"classes": json.dumps(plan.task.classes), "preparation": plan.image.model_dump_json()}
    onnx.helper.set_model_props(model, dict(sorted({**metadata, **described}.items())))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _own_model(plan: StudyPlan, module: nn.Module) -> ModelProto:
    model = traced(module, plan.input_shape)
    logits = model.graph.output[0]
    model.graph.node.append(probabilities_of(plan, logits.name))
    model.graph.output.append(probabilities_value(logits))
    return model

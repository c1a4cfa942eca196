"""The exported network for other runtimes (ONNX): images in, logits out, any number of images at once.

Written with torch's exporter by tracing: our networks have no control flow that depends on values, so a trace is the
whole network; the tests compare scores with torch's on other images and batch sizes.
"""

import io
import warnings
from collections.abc import Mapping
from typing import Final

import onnx
import torch
from torch import nn

from common.networks.parameters import load
from common.plan.plan import StudyPlan
from common.plan.start import start_network
from server.model.blocks import Vector
from server.model.phase_facts import StudyNetwork

INPUT, OUTPUT = "images", "logits"
OPSET: Final = 17
TRACED_IMAGES: Final = 2  # one could be mistaken for a fixed batch


def onnx_file(plan: StudyPlan, network: StudyNetwork, parameters: Vector, metadata: Mapping[str, str]) -> bytes:
    """Return the plan's network with ``parameters`` as an ONNX file: the same bytes for the same model.

    Shapes: images (batch, channels, *size) float32, prepared as the plan's image settings say -> logits as
    ``common.networks.registry`` gives them. ``metadata``: shown by ONNX tools.
    """
    module = start_network(plan)
    load(module, network.everything, torch.from_numpy(parameters))
    model = onnx.load_from_string(_traced(module.eval(), plan.input_shape))
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _traced(module: nn.Module, shape: tuple[int, ...]) -> bytes:
    content = io.BytesIO()
    batch = {0: "batch"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the shapes' own arithmetic, which is fixed, and of the exporter's age
        torch.onnx.export(
            module,
            (torch.zeros(TRACED_IMAGES, *shape),),
            content,  # type: ignore[arg-type] # its type leaves out buffers, which this exporter takes
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: batch, OUTPUT: batch},
            opset_version=OPSET,
            dynamo=False,
        )
    return content.getvalue()

"""A small encoder that nobody trained, with its card: for tests and rehearsals, where a real one would be too large."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from common.encoders.card import EncoderCard, EncoderOutput, GreyMapping, card_text

OPSET: Final = 17
WIDTHS: Final = (4, 8)  # of the two stages; ``levels`` joins their means


@dataclass(frozen=True)
class MadeUpEncoder:
    """Two files beside each other, and what they say."""

    file: Path
    card_file: Path
    card: EncoderCard


def made_up_encoder(folder: Path, *, size_px: tuple[int, ...] = (16, 16), channels: int = 1) -> MadeUpEncoder:
    """Write ``encoder.onnx`` and ``encoder.toml`` to ``folder``: outputs ``levels`` (12 numbers) and ``map``."""
    model = made_up_model((channels, *size_px))
    content = model.SerializeToString(deterministic=True)
    card = card_of(content, size_px=size_px, channels=channels)
    file, card_file = folder / "encoder.onnx", folder / "encoder.toml"
    file.write_bytes(content)
    card_file.write_text(card_text(card), encoding="utf-8")
    return MadeUpEncoder(file, card_file, card)


def made_up_model(shape: tuple[int, ...]) -> ModelProto:
    """Return two strided convolutions with ReLU, drawn from a fixed seed; the batch may have any size."""
    generator = np.random.Generator(np.random.Philox(17))
    nodes, weights, levels, name = [], [], [], "image"
    channels, axes = shape[0], list(range(2, 1 + len(shape)))
    for stage, width in enumerate(WIDTHS):
        kernel = (width, channels, *(3 for _ in axes))
        values = generator.normal(0, (2 / np.prod(kernel[1:])) ** 0.5, kernel).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"weight_{stage}"))
        pads, strides = [1] * 2 * len(axes), [2] * len(axes)
        nodes.append(helper.make_node("Conv", [name, f"weight_{stage}"], [f"c{stage}"], pads=pads, strides=strides))
        name = "map" if stage == len(WIDTHS) - 1 else f"stage_{stage}"
        nodes.append(helper.make_node("Relu", [f"c{stage}"], [name]))
        nodes.append(helper.make_node("ReduceMean", [name], [f"mean_{stage}"], axes=axes, keepdims=0))
        levels.append(f"mean_{stage}")
        channels = width
    nodes.append(helper.make_node("Concat", levels, ["levels"], axis=1))
    graph = helper.make_graph(
        nodes,
        "made up",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *shape])],
        [
            helper.make_tensor_value_info("levels", TensorProto.FLOAT, ["batch", sum(WIDTHS)]),
            helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", channels, *_small(shape)]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    checker.check_model(model, full_check=True)
    return model


def card_of(content: bytes, *, size_px: tuple[int, ...] = (16, 16), channels: int = 1) -> EncoderCard:
    """Return the card of a made-up encoder's file, or of a file that claims to be one."""
    map_shape = (WIDTHS[-1], *_small((channels, *size_px)))
    return EncoderCard(
        format="fedward-encoder/1",
        name="made-up",
        version="1",
        source="drawn from a fixed seed by simulation.drawing.made_up_encoder",
        licence="Apache-2.0",
        training_data="none: nobody trained it",
        intended_use="tests and rehearsals",
        file=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        input_name="image",
        size_px=size_px,
        channels=channels,  # type: ignore[arg-type] # 1 or 3; the card says so to whoever gives another
        mapping=GreyMapping(scale=(2.0,) * channels, offset=(-1.0,) * channels),
        outputs=(
            EncoderOutput(name="levels", kind="vector", shape=(sum(WIDTHS),)),
            EncoderOutput(name="map", kind="map", shape=map_shape),
        ),
    )


def _small(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width after the stages."""
    sizes = shape[1:]
    for _ in WIDTHS:
        sizes = tuple((size + 1) // 2 for size in sizes)
    return sizes

"""An encoder at work: each image alone, the same features every time, nothing but finite numbers."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load_from_string, numpy_helper

from client.features.encoder import Encoder
from common.encoders.card import EncoderCard, EncoderOutput, GreyMapping
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.encoders.inspecting import inspect
from simulation.drawing.made_up_encoder import card_of


@pytest.fixture(scope="module")
def opened(encoder) -> Encoder:
    return Encoder(encoder.file, encoder.card)


def images(count: int, channels: int = 3, seed: int = 1):
    return np.random.default_rng(seed).random((count, channels, 16, 16), np.float32)


def test_features_of_an_image_are_the_same_alone_and_beside_others(opened):
    many = images(7)
    together = opened.features(many, ["levels"])
    assert together.shape == (7, 12)
    assert together.std(axis=0).max() > 0
    for place in (0, 3, 6):
        assert opened.features(many[place : place + 1], ["levels"])[0].tobytes() == together[place].tobytes()
    assert opened.features(many[::-1], ["levels"])[::-1].tobytes() == together.tobytes()


def test_a_grey_image_is_three_equal_channels(opened):
    grey = images(2, channels=1)
    alike = opened.features(np.repeat(grey, 3, axis=1), ["levels"])
    assert opened.features(grey, ["levels"]).tobytes() == alike.tobytes()


def test_values_are_mapped_as_the_card_says(encoder, opened):
    mapping = GreyMapping(scale=(1.0,) * 3, offset=(0.0,) * 3)
    plain = Encoder(encoder.file, encoder.card.model_copy(update={"mapping": mapping}))
    some = images(1)
    assert opened.features(some, ["levels"]).tobytes() == plain.features(some * 2 - 1, ["levels"]).tobytes()


@pytest.mark.parametrize("wrong", [images(1).astype(np.float64), images(1)[:, :2], images(1)[..., :8], images(1)[0]])
def test_images_of_another_shape_or_type_are_refused(opened, wrong):
    with pytest.raises(ValueError, match="the encoder takes"):
        opened.features(wrong, ["levels"])


def test_another_file_than_the_cards_is_not_loaded(encoder, tmp_path):
    changed = bytearray(encoder.file.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "other.onnx").write_bytes(changed)
    with pytest.raises(EncoderInvalidError) as refused:
        Encoder(tmp_path / "other.onnx", encoder.card)
    assert refused.value.fault is EncoderFault.OTHER_FILE


def rewritten(encoder, tmp_path: Path, change) -> tuple[Path, EncoderCard]:
    model = load_from_string(encoder.file.read_bytes())
    change(model.graph)
    content = model.SerializeToString()
    (tmp_path / "changed.onnx").write_bytes(content)
    card = encoder.card.model_copy(update={"file": hashlib.sha256(content).hexdigest(), "bytes": len(content)})
    return tmp_path / "changed.onnx", card


def test_features_that_are_not_finite_are_an_error(encoder, tmp_path):
    def logarithm_of_zero(graph):
        graph.node[-1].output[0] = "joined"
        graph.node.append(helper.make_node("Log", ["joined"], ["levels"]))

    path, card = rewritten(encoder, tmp_path, logarithm_of_zero)
    dark = np.zeros((1, 3, 16, 16), np.float32)
    with pytest.raises(EncoderInvalidError) as refused:
        Encoder(path, card).features(dark, ["levels"])
    assert refused.value.fault is EncoderFault.NOT_FINITE


def test_what_fails_of_one_image_alone_is_told_from_what_always_fails(encoder, tmp_path, monkeypatch):
    def row_of_the_brightness(graph):  # row 900 of 10 rows, of an image that is white all over
        graph.initializer.append(numpy_helper.from_array(np.zeros((10, 12), np.float32), "table"))
        graph.initializer.append(numpy_helper.from_array(np.array(15, np.float32), "rows"))
        graph.node[-1].output[0] = "joined"
        graph.node.append(helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0))
        graph.node.append(helper.make_node("Mul", ["mean", "rows"], ["scaled"]))
        graph.node.append(helper.make_node("Cast", ["scaled"], ["row"], to=TensorProto.INT64))
        graph.node.append(helper.make_node("Gather", ["table", "row"], ["chosen"]))
        graph.node.append(helper.make_node("Add", ["joined", "chosen"], ["levels"]))

    opened = Encoder(*rewritten(encoder, tmp_path, row_of_the_brightness))
    assert opened.works()
    with pytest.raises(EncoderInvalidError) as refused:
        opened.features(np.ones((1, 3, 16, 16), np.float32), ["levels"])
    assert refused.value.fault is EncoderFault.RUN
    assert opened.works()
    monkeypatch.setattr(opened, "_session", None)
    assert not opened.works()


def test_an_encoder_whose_output_is_not_what_the_card_says_is_not_used(encoder):
    wrong = encoder.card.model_copy(update={"outputs": (EncoderOutput(name="levels", kind="vector", shape=(11,)),)})
    with pytest.raises(EncoderInvalidError) as refused:
        Encoder(encoder.file, wrong)
    assert refused.value.fault is EncoderFault.OUTPUT


def test_a_file_that_the_runtime_cannot_load_is_one_sentence(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(EncoderInvalidError) as refused:
        Encoder(tmp_path / "no.onnx", card_of(b"no model"))
    assert refused.value.fault is EncoderFault.RUN


def test_a_real_encoder_agrees_with_its_card_and_itself(shared_data):
    file = shared_data / "encoders" / "efficientnet-lite0-128.onnx"
    if not file.exists():
        pytest.skip("no encoder in shared/data: it is not part of the repository")
    made = card_of(b"-", size_px=(128, 128), channels=3)
    outputs = (
        EncoderOutput(name="levels", kind="vector", shape=(816,)),
        EncoderOutput(name="map", kind="map", shape=(1280, 4, 4)),
    )
    content = file.read_bytes()
    facts = {"file": hashlib.sha256(content).hexdigest(), "bytes": len(content), "outputs": outputs}
    card = made.model_copy(update=facts)
    assert inspect(content, card).outputs == {"levels": (1, 816), "map": (1, 1280, 4, 4)}
    opened = Encoder(file, card)
    some = np.random.default_rng(1).random((3, 1, 128, 128), np.float32)
    together = opened.features(some, ["levels"])
    assert opened.features(some[2:], ["levels"]).tobytes() == together[2:].tobytes()

"""The exported model of a plan on a public encoder: one file, from image to probabilities, by onnxruntime alone."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from client.features.encoder import Encoder
from common.networks.parameters import layout, load
from common.plan.reading import parse_plan
from common.plan.start import start_network
from server.export.onnx import onnx_file
from server.export.whole import EncoderFile
from server.model.phase_facts import StudyNetwork
from simulation.drawing.made_up_encoder import card_of, made_up_encoder

CASES = {
    "grey, three channels, linear": ((16, 16), 1, 3, 0),
    "colour, hidden layer": ((16, 16), 3, 3, 6),
    "one channel": ((24, 16), 1, 1, 0),
    "volumes": ((16, 16, 16), 1, 1, 0),
}


def plan_on(small_document, card, channels, hidden_units, kind="classification"):
    document = small_document(["north", "south", "west"], "distributed")
    named = {"card": card.digest(), "file": card.file, "outputs": ["levels"], "features": 12}
    document["network"] = {"name": "encoder", "hidden_units": hidden_units, "encoder": named}
    document["task"] |= {"dimensions": len(card.size_px), "kind": kind}
    document["image"] |= {"size_px": list(card.size_px), "channels": channels}
    if channels == 3:
        document["image"] |= {"intensity": "luminance"}
    if len(card.size_px) == 3:
        document["image"] |= {"spacing_mm": [1.0] * 3}
    return parse_plan(document, "test")


def exported(plan, encoder):
    everything = layout(start_network(plan))
    vector = np.random.default_rng(1).normal(size=everything.num_parameters).astype(np.float32)
    file = EncoderFile(encoder.card, encoder.file.read_bytes())
    content = onnx_file(plan, StudyNetwork(everything, vector, ()), vector, {"study": "s"}, encoder=file)
    head = start_network(plan).eval()
    load(head, everything, torch.from_numpy(vector))
    return content, head


def run(content, images):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images}), strict=True))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_file_gives_what_encoder_and_head_give_apart(small_document, tmp_path, case):
    size_px, channels, taken, hidden_units = case
    encoder = made_up_encoder(tmp_path, size_px=size_px, channels=taken)
    plan = plan_on(small_document, encoder.card, channels, hidden_units)
    content, head = exported(plan, encoder)
    images = np.random.default_rng(2).random((3, channels, *size_px), np.float32)
    found = run(content, images)
    assert list(found) == ["probabilities", "activation", "logits"]
    features = Encoder(encoder.file, encoder.card).features(images, ["levels"])
    logits = head(torch.from_numpy(features)).detach()
    scale = float(logits.abs().max())
    assert np.abs(found["logits"] - logits.numpy()).max() <= 1e-5 * scale
    assert np.abs(found["probabilities"] - logits.softmax(1).numpy()).max() <= 1e-5
    classes, grid = len(plan.task.classes), encoder.card.output("map").shape[1:]
    assert found["activation"].shape == (3, classes, *grid)
    if not hidden_units:
        assert (
            np.abs(found["activation"].mean(axis=tuple(range(2, 2 + len(grid)))) - logits.numpy()).max() <= 1e-4 * scale
        )


def test_projected_features_give_the_same_answers_and_no_map(small_document, tmp_path):
    encoder = made_up_encoder(tmp_path)
    plan = plan_on(small_document, encoder.card, 1, 0)
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"projection": 8})})
    content, head = exported(plan, encoder)
    images = np.random.default_rng(2).random((2, 1, 16, 16), np.float32)
    features = Encoder(encoder.file, encoder.card).features(images, ["levels"])
    found = run(content, images)
    assert list(found) == ["probabilities", "logits"]
    torch.testing.assert_close(torch.from_numpy(found["logits"]), head(torch.from_numpy(features)).detach())


def test_behind_a_hidden_layer_the_map_is_weighted_by_the_heads_gradient(small_document, tmp_path):
    encoder = made_up_encoder(tmp_path)
    content, head = exported(plan_on(small_document, encoder.card, 1, 5), encoder)
    images = np.random.default_rng(2).random((2, 1, 16, 16), np.float32)
    features = torch.from_numpy(Encoder(encoder.file, encoder.card).features(images, ["levels"]))
    normalised = torch.nn.functional.layer_norm(features, [12]).requires_grad_()
    scaled = (normalised * head.feature_norm.weight + head.feature_norm.bias) / 12**0.5
    logits = head.head(scaled)
    gradient = torch.stack(
        [torch.autograd.grad(logits[:, c].sum(), normalised, retain_graph=True)[0] for c in (0, 1)], 1
    )
    expected = torch.einsum("bcf,bf->bc", gradient, normalised).detach().numpy()
    assert np.abs(run(content, images)["activation"].mean((2, 3)) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_file_names_its_classes_and_how_an_image_is_prepared(small_document, tmp_path):
    encoder = made_up_encoder(tmp_path)
    plan = plan_on(small_document, encoder.card, 1, 0)
    content, _ = exported(plan, encoder)
    said = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    assert json.loads(said["classes"]) == list(plan.task.classes)
    assert json.loads(said["preparation"])["size_px"] == [16, 16]
    assert said["study"] == "s"
    assert exported(plan, encoder)[0] == content


def test_of_several_labels_each_has_its_own_probability(small_document, tmp_path):
    encoder = made_up_encoder(tmp_path)
    content, _ = exported(plan_on(small_document, encoder.card, 1, 0, "multi_label"), encoder)
    found = run(content, np.random.default_rng(2).random((1, 1, 16, 16), np.float32))
    assert np.abs(found["probabilities"] - 1 / (1 + np.exp(-found["logits"]))).max() <= 1e-6


def rewritten(encoder, change, **facts):
    """The same encoder after ``change``, with a card that fits."""
    model = onnx.load_from_string(encoder.file.read_bytes())
    change(model.graph)
    encoder.file.write_bytes(model.SerializeToString())
    made = card_of(encoder.file.read_bytes())
    return type(encoder)(encoder.file, encoder.card_file, made.model_copy(update=facts))


def no_means(graph):
    graph.node[-1].output[0] = "joined"
    graph.node.append(helper.make_node("Sigmoid", ["joined"], ["levels"]))


def test_features_that_are_no_spatial_means_give_no_map(small_document, tmp_path):
    encoder = rewritten(made_up_encoder(tmp_path), no_means)
    content, _ = exported(plan_on(small_document, encoder.card, 1, 0), encoder)
    assert list(run(content, np.zeros((1, 1, 16, 16), np.float32))) == ["probabilities", "logits"]


def test_an_encoder_without_a_map_gives_none(small_document, tmp_path):
    made = made_up_encoder(tmp_path)
    encoder = rewritten(made, lambda graph: graph.output.pop(), outputs=made.card.outputs[:1])
    content, _ = exported(plan_on(small_document, encoder.card, 1, 0), encoder)
    assert list(run(content, np.zeros((1, 1, 16, 16), np.float32))) == ["probabilities", "logits"]


def test_a_real_encoder_becomes_one_file_with_a_map_of_classes(small_document, shared_data, tmp_path):
    file = shared_data / "encoders" / "efficientnet-lite0-128.onnx"
    if not file.exists():
        pytest.skip("no encoder in shared/data: it is not part of the repository")
    content = file.read_bytes()
    made = made_up_encoder(tmp_path, size_px=(128, 128), channels=3)
    vector, shown = made.card.outputs
    outputs = (vector.model_copy(update={"shape": (816,)}), shown.model_copy(update={"shape": (1280, 4, 4)}))
    card = card_of(content, size_px=(128, 128), channels=3).model_copy(update={"outputs": outputs})
    encoder = type(made)(file, made.card_file, card)
    document = plan_on(small_document, made.card, 1, 0).model_dump(mode="json")
    document["network"]["encoder"] |= {"card": card.digest(), "file": card.file, "features": 816}
    plan = parse_plan(document, "test")
    merged, head = exported(plan, encoder)
    images = np.random.default_rng(2).random((1, 1, 128, 128), np.float32)
    found = run(merged, images)
    logits = head(torch.from_numpy(Encoder(file, card).features(images, ["levels"]))).detach().numpy()
    assert np.abs(found["logits"] - logits).max() <= 1e-4 * np.abs(logits).max()
    assert found["activation"].shape == (1, len(plan.task.classes), 4, 4)
    assert np.abs(found["activation"].mean((2, 3)) - logits).max() <= 1e-3 * np.abs(logits).max()


def test_a_network_of_ours_gives_logits_and_probabilities(small_document):
    plan = parse_plan(small_document(["north", "south", "west"], "distributed"), "test")
    everything = layout(start_network(plan))
    vector = np.random.default_rng(1).normal(size=everything.num_parameters).astype(np.float32) / 5
    content = onnx_file(plan, StudyNetwork(everything, vector, ()), vector, {})
    found = run(content, np.random.default_rng(2).random((2, *plan.image.input_shape), np.float32))
    assert list(found) == ["logits", "probabilities"]
    expected = torch.from_numpy(found["logits"]).softmax(1).numpy()
    assert np.abs(found["probabilities"] - expected).max() <= 1e-6

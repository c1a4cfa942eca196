"""What ``fedward-server export`` releases: ONNX gives torch's scores, and the card is signed by the coordinator."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from common.encoders.errors import EncoderInvalidError
from common.encoders.shelf import EncoderShelf
from common.networks.parameters import layout, load
from common.plan.reading import parse_plan
from common.plan.start import start_network
from common.trust.errors import KeyInvalidError
from common.trust.identity import create_signing_key, read_signing_key
from common.trust.release import NETWORK, READABLE, SIGNATURE, WEIGHTS, verify_card, verify_file
from server.__main__ import app
from server.export.onnx import onnx_file
from server.federation.folder import FederationFolder
from server.model.phase_facts import StudyNetwork
from server.study.folder import open_study
from server.study.progress import current_state, open_journal
from simulation.drawing.made_up_encoder import made_up_encoder

SHORT = {"rounds": 2, "maximum_attempts": 9}


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def federation(make_federation):
    made = make_federation(short=SHORT)
    made.run()
    return made


def scores(content, images):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


NETWORKS = {
    "an image classifier": ({"name": "small_cnn"}, "classification", 2, [16, 16]),
    "a classifier of volumes": ({"name": "small_cnn"}, "classification", 3, [8, 8, 8]),
    "a residual network": ({"name": "residual", "width": 8}, "multi_label", 2, [16, 16]),
    "a segmentation network": ({"name": "unet", "width": 8}, "segmentation", 2, [32, 32]),
    "a deeper segmentation network": ({"name": "unet", "width": 4, "levels": 5}, "segmentation", 2, [32, 32]),
    "an image classifier in colour": ({"name": "small_cnn"}, "classification", 2, [16, 16]),
    "a segmentation network in colour": ({"name": "unet", "width": 8}, "segmentation", 2, [32, 32]),
}


@pytest.mark.parametrize(("case", "settings"), NETWORKS.items())
def test_onnx_gives_the_logits_of_torch_for_any_number_of_images(small_document, case, settings):
    network, kind, dimensions, size = settings
    document = small_document(["north", "south", "west"], "distributed")
    document["network"] = document["network"] | network
    document["task"] |= {"kind": kind, "dimensions": dimensions}
    document["image"] |= {"size_px": size} | ({"spacing_mm": [1.0] * 3} if dimensions == 3 else {})
    if case.endswith("in colour"):
        document["image"] |= {"channels": 3, "intensity": "luminance"}
    plan = parse_plan(document, "test")
    everything = layout(start_network(plan))
    vector = (np.random.default_rng(1).normal(size=everything.num_parameters) / 5).astype(np.float32)
    content = onnx_file(plan, StudyNetwork(everything, vector, ()), vector, {"study": "s"})
    module = start_network(plan).eval()
    load(module, everything, torch.from_numpy(vector))
    for count in (1, 5):
        images = torch.randn(count, *plan.image.input_shape, generator=torch.Generator().manual_seed(count))
        expected = module(images).detach().numpy()
        assert np.abs(scores(content, images) - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max()), case


def test_the_release_is_whole_and_signed_and_the_same_each_time(federation):
    target, key = federation.path / "released", federation.path / "coordinator.key"
    call("export", federation.study, "--output", target, "--key", key, "--json")
    coordinator = read_signing_key(key).public_key()
    card = verify_card((target / "model-card.json").read_bytes(), (target / SIGNATURE).read_bytes(), coordinator)
    assert set(card["files"]) == {WEIGHTS, NETWORK, READABLE}
    for name in card["files"]:
        verify_file(card, name, (target / name).read_bytes())
    before = {file.name: file.read_bytes() for file in target.iterdir()}
    call("export", federation.study, "--output", target, "--key", key)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before


def test_the_exported_network_is_the_final_model(federation):
    call("export", federation.study)
    study = open_study(federation.study)
    state = current_state(study, open_journal(study))
    module = start_network(study.plan).eval()
    load(module, study.network.everything, torch.from_numpy(state.parameters))
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    onnx = (federation.study / "model" / NETWORK).read_bytes()
    assert np.abs(scores(onnx, images) - module(images).detach().numpy()).max() <= 1e-5


def test_the_card_names_the_digests_that_the_model_is_bound_to(federation):
    call("export", federation.study)
    card = json.loads((federation.study / "model" / "model-card.json").read_text())
    study = open_study(federation.study)
    assert card["plan_digest"] == study.plan.digest()
    assert card["roster_digest"] == study.roster.digest()
    facts = study.network.phases[0]
    assert card["digests"]["task"] == {facts.phase.name: facts.task_digest.hex()}
    assert card["digests"]["privacy"] == {facts.phase.name: facts.privacy_digest.hex()}
    assert len(card["digests"]["data"]) == 64


def test_without_the_coordinators_key_the_card_is_unsigned_and_an_old_signature_goes(federation):
    key = federation.path / "coordinator.key"
    call("export", federation.study, "--key", key)
    signature = federation.study / "model" / SIGNATURE
    assert signature.exists()
    assert "nobody signed" in call("export", federation.study)
    assert not signature.exists()


def test_another_coordinators_key_is_refused(federation):
    other = federation.path / "other.key"
    create_signing_key(other)
    with pytest.raises(KeyInvalidError, match="not the key of the coordinator"):
        call("export", federation.study, "--key", other)


def test_a_study_on_a_public_encoder_is_released_whole_with_the_encoders_card(
    make_federation, small_document, tmp_path
):
    encoder = made_up_encoder(tmp_path, size_px=(8, 8))
    named = {"card": encoder.card.digest(), "file": encoder.card.file, "outputs": ["levels"], "features": 12}
    document = small_document([f"site-{number}" for number in range(1, 5)], "distributed")
    document["network"] = {"name": "encoder", "encoder": named}
    document["phases"] = [document["phases"][1] | SHORT]
    federation = make_federation(document=document)
    federation.run()
    with pytest.raises(EncoderInvalidError, match="not_here"):
        call("export", federation.study, "--folder", federation.path)
    EncoderShelf(FederationFolder(federation.path).encoders).add(encoder.file, encoder.card, limit_bytes=1 << 20)
    card = json.loads(call("export", federation.study, "--folder", federation.path, "--json"))
    assert card["encoder"]["digest"] == encoder.card.digest()
    assert card["encoder"]["licence"] == "Apache-2.0"
    released = federation.study / "model"
    assert "nobody trained it" in (released / READABLE).read_text()
    session = onnxruntime.InferenceSession((released / NETWORK).read_bytes(), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["probabilities", "activation", "logits"]

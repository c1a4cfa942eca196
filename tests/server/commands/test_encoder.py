"""encoder: a coordinator adds a public encoder, and a plan can name it."""

import json
import tomllib

import pytest
from typer.testing import CliRunner

from common.encoders.errors import EncoderInvalidError
from common.plan.errors import PlanInvalidError
from common.plan.reading import read_plan
from common.plan.shape import phase_layouts
from common.trust.hash_chain import HashChain
from server.__main__ import app
from server.encoders.offers import OfferedEncoders
from server.federation.admission import AUDIT_NAME
from server.federation.folder import FederationFolder
from simulation.drawing.made_up_encoder import made_up_encoder


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return made_up_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = FederationFolder(tmp_path_factory.mktemp("coordinator") / "federation")
    call("init", made.path, "--federation", "lungs", "--address", "fl.example.org:8443")
    return made


def test_an_added_encoder_is_offered_shown_and_named_by_a_plan(folder, encoder):
    where = ("--folder", folder.path)
    said = json.loads(call("encoder", "add", encoder.file, "--card", encoder.card_file, *where, "--json"))
    assert (said["digest"], said["offered"]) == (encoder.card.digest(), True)
    shown = call("encoder", "show", encoder.card.digest()[:12], *where)
    section = tomllib.loads(shown[shown.index("[network]") :])["network"]["encoder"]
    assert section == {
        "card": encoder.card.digest(),
        "file": encoder.card.file,
        "outputs": ["levels"],
        "features": 12,
    }
    assert [each["offered"] for each in json.loads(call("encoder", "list", *where, "--json"))["encoders"]] == [True]
    assert OfferedEncoders(folder.encoders).card_of(encoder.card.digest()) == encoder.card
    chain = HashChain(folder.audit, AUDIT_NAME)
    assert [link.entry for link in chain.links()][-1]["what"] == "encoder added"
    chain.close()


def test_an_encoder_whose_licence_forbids_it_is_not_offered(folder, encoder):
    call("encoder", "add", encoder.file, "--card", encoder.card_file, "--by-hand", "--folder", folder.path)
    assert OfferedEncoders(folder.encoders).card_of(encoder.card.digest()) is None
    shown = json.loads(call("encoder", "show", encoder.card.digest(), "--folder", folder.path, "--json"))
    assert shown["offered"] is False


def test_another_file_than_the_cards_is_not_added(folder, encoder, tmp_path):
    (tmp_path / "other.onnx").write_bytes(b"another")
    with pytest.raises(EncoderInvalidError, match="other_file"):
        call("encoder", "add", tmp_path / "other.onnx", "--card", encoder.card_file, "--folder", folder.path)


@pytest.fixture
def plan_on(plan_text, tmp_path):
    """Write an unsigned plan on the encoder of a card."""

    def make(card, features=12):
        section = (
            f'[network]\nname = "encoder"\n\n[network.encoder]\ncard = "{card.digest()}"\nfile = "{card.file}"\n'
            f'outputs = ["levels"]\nfeatures = {features}\n'
        )
        start, rest = plan_text.index("[network]"), plan_text[plan_text.index("[network]") + 1 :]
        text = plan_text[:start] + section + rest[rest.index("\n[") :]
        file = tmp_path / "study.toml"
        file.write_text(text.replace("size_px = [64, 64]", "size_px = [16, 16]"))
        before = read_plan(file)
        layout = phase_layouts(before)[0].layout_hash
        file.write_text(file.read_text().replace(before.phases[0].layout_hash, layout))
        return file

    return make


def test_plan_check_shows_the_card_and_compares_the_plan_with_it(plan_on, encoder, tmp_path):
    file = plan_on(encoder.card)
    unseen = json.loads(call("plan", "check", file, "--draft", "--json"))
    assert "encoder" not in unseen
    assert any("--card" in warning for warning in unseen["warnings"])
    shown = json.loads(call("plan", "check", file, "--draft", "--card", encoder.card_file, "--json"))
    assert shown["encoder"]["training_data"] == "none: nobody trained it"
    assert "none: nobody trained it" in call("plan", "check", file, "--draft", "--card", encoder.card_file)
    with pytest.raises(PlanInvalidError, match="features is 13"):
        call("plan", "check", plan_on(encoder.card, features=13), "--draft", "--card", encoder.card_file)


def test_plan_check_finds_the_card_in_the_federation_that_the_plan_lies_in(plan_on, encoder, tmp_path):
    study = tmp_path / "studies" / "lungs"
    study.mkdir(parents=True)
    file = plan_on(encoder.card).rename(study / "study.toml")
    (tmp_path / "encoders").mkdir()
    for name, content in (
        (f"{encoder.card.file}.onnx", encoder.file),
        (f"{encoder.card.file}.toml", encoder.card_file),
    ):
        (tmp_path / "encoders" / name).write_bytes(content.read_bytes())
    assert json.loads(call("plan", "check", file, "--draft", "--json"))["encoder"]["digest"] == encoder.card.digest()

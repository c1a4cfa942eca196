"""Encoders over the gateway: offered ones, to admitted sites, in blocks; and a hospital that believes digests alone."""

import json
import shutil

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from onnx import numpy_helper
from typer.testing import CliRunner

from client.__main__ import app
from client.features.encoder_fetching import fetch_card, fetch_file
from client.installation.audit_log import audit_links
from client.installation.config import default_site_config
from common.encoders.card import card_text
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.encoders.shelf import EncoderShelf
from common.encoders.travel import (
    BLOCK_BYTES,
    BLOCK_PATH,
    CARD_PATH,
    block_length,
    block_question,
    card_question,
    read_block_question,
)
from common.errors import DiskFullError
from common.files import write_new
from server.encoders.offers import OfferedEncoders
from server.federation.kit_making import make_kit
from simulation.drawing.made_up_encoder import MadeUpEncoder, card_of, made_up_encoder, made_up_model

from .conftest import headers_of

LIMIT = 1 << 30


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> MadeUpEncoder:
    """An encoder of three blocks."""
    folder = tmp_path_factory.mktemp("large")
    model = made_up_model((1, 16, 16))
    model.graph.initializer.append(numpy_helper.from_array(np.arange(9 << 18, dtype=np.float32), "unused"))
    content = model.SerializeToString()
    made = MadeUpEncoder(folder / "large.onnx", folder / "large.toml", card_of(content))
    made.file.write_bytes(content)
    made.card_file.write_text(card_text(made.card))
    assert block_length(made.card.bytes, 2) > 0 == block_length(made.card.bytes, 3)
    return made


@pytest.fixture(scope="module")
def kept_back(tmp_path_factory) -> MadeUpEncoder:
    """An encoder that is there and not offered."""
    return made_up_encoder(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def offering(open_house, large, kept_back):
    federation, _ = open_house
    offers = OfferedEncoders(federation.folder.encoders)
    offers.folder.mkdir()
    for made in (large, kept_back):
        shutil.copy(made.file, offers.shelf.file(made.card.file))
        shutil.copy(made.card_file, offers.shelf.card_file(made.card.file))
    offers.offer(large.card, is_offered=True)
    return federation


def posted(federation, path, body, key=None):
    with federation.client() as client:
        return client.post(path, content=body, headers=headers_of(key or federation.node_keys["east"]))


def test_an_offered_encoder_comes_card_first_and_in_blocks(offering, large):
    card = posted(offering, CARD_PATH, card_question(large.card.digest()))
    assert (card.status_code, card.content) == (200, large.card.canonical())
    blocks = [posted(offering, BLOCK_PATH, block_question(large.card.file, number)) for number in range(3)]
    assert [int(block.headers["content-length"]) for block in blocks[:2]] == [BLOCK_BYTES] * 2
    assert b"".join(block.content for block in blocks) == large.file.read_bytes()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (CARD_PATH, card_question("0" * 64), 404),
        (CARD_PATH, b"../../coordinator.key", 400),
        (CARD_PATH, b"", 400),
        (BLOCK_PATH, block_question("0" * 64, 0), 404),
        (BLOCK_PATH, b"../../coordinator.key 0", 400),
        (BLOCK_PATH, b"0" * 64 + b" -1", 400),
        (BLOCK_PATH, b"0" * 64 + b" 9999999", 400),
        (BLOCK_PATH, b"0" * 200, 413),
    ],
)
def test_whatever_is_not_offered_or_not_asked_for_properly_is_refused(offering, path, body, status):
    assert posted(offering, path, body).status_code == status


def test_what_is_kept_back_is_not_there_for_hospitals(offering, kept_back, large):
    assert posted(offering, CARD_PATH, card_question(kept_back.card.digest())).status_code == 404
    assert posted(offering, BLOCK_PATH, block_question(kept_back.card.file, 0)).status_code == 404
    assert posted(offering, BLOCK_PATH, block_question(large.card.file, 3)).status_code == 404


def test_a_stranger_gets_no_encoder(offering, large):
    stranger = ec.generate_private_key(ec.SECP384R1())
    assert posted(offering, CARD_PATH, card_question(large.card.digest()), stranger).status_code == 401


@pytest.fixture
def hospital(north, offering):
    """A hospital that joined the federation of this gateway."""
    pem = offering.node_keys["north"].private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_new(north.node_key, pem, 0o600)
    north.kit.write_bytes(make_kit(offering.folder, offering.config))
    north.config.write_text(default_site_config("north"))
    return north


def test_a_hospital_fetches_an_encoder_by_the_digest_in_a_plan(hospital, large):
    words = ["encoder", "fetch", large.card.digest(), "--site-folder", str(hospital.path), "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert json.loads(done.stdout)["digest"] == large.card.digest()
    assert hospital.encoder(large.card.file).read_bytes() == large.file.read_bytes()
    assert list(audit_links(hospital))[-1].entry["what"] == "encoder added"
    assert not list(hospital.encoders.glob("*.part"))


class Coordinator:
    """What a hospital is answered; lies as told, and breaks off before block ``breaks_at``."""

    def __init__(self, made, *, breaks_at=9, lie=lambda content: content, card=None):
        self.content, self.card, self.lie, self.breaks_at = made.file.read_bytes(), card or made.card, lie, breaks_at
        self.asked = []

    def ask(self, path, question, most_bytes):
        if path == CARD_PATH:
            return self.card.canonical()
        _, number = read_block_question(question)
        if number >= self.breaks_at:
            raise EncoderInvalidError("broke off", EncoderFault.NOT_FETCHED)
        self.asked.append(number)
        start = number * BLOCK_BYTES
        return self.lie(self.content[start : start + block_length(self.card.bytes, number)])


def test_after_a_break_only_what_lacks_is_fetched(large, tmp_path):
    shelf, seen = EncoderShelf(tmp_path / "encoders"), []
    with pytest.raises(EncoderInvalidError, match="broke off"):
        fetch_file(shelf, large.card, Coordinator(large, breaks_at=2).ask, limit_bytes=LIMIT, progress=seen.append)
    with (tmp_path / "encoders" / f"{large.card.file}.part").open("ab") as part:
        part.write(b"half a block")  # as a lost machine leaves it
    again = Coordinator(large)
    fetch_file(shelf, large.card, again.ask, limit_bytes=LIMIT, progress=seen.append)
    assert again.asked == [2]
    assert seen == [0, BLOCK_BYTES, 2 * BLOCK_BYTES, 2 * BLOCK_BYTES, large.card.bytes]
    assert shelf.named(card=large.card.digest(), file=large.card.file) == large.card


def test_another_content_is_thrown_away(large, tmp_path):
    shelf = EncoderShelf(tmp_path / "encoders")
    lying = Coordinator(large, lie=lambda content: content[:-1] + b"\1")
    with pytest.raises(EncoderInvalidError) as refused:
        fetch_file(shelf, large.card, lying.ask, limit_bytes=LIMIT, progress=lambda _: None)
    assert refused.value.fault is EncoderFault.OTHER_FILE
    assert shelf.cards() == ([], [])
    assert not list(shelf.folder.glob("*.part"))


@pytest.mark.parametrize("lie", [lambda content: content[:-1], lambda content: content + b"\0", lambda _: b""])
def test_a_block_of_another_length_is_refused(large, tmp_path, lie):
    with pytest.raises(EncoderInvalidError) as refused:
        fetch_file(
            EncoderShelf(tmp_path),
            large.card,
            Coordinator(large, lie=lie).ask,
            limit_bytes=LIMIT,
            progress=lambda _: None,
        )
    assert refused.value.fault is EncoderFault.NOT_FETCHED


def test_another_card_than_the_one_asked_for_is_refused(large):
    other = Coordinator(large, card=large.card.model_copy(update={"licence": "MIT"}))
    with pytest.raises(EncoderInvalidError) as refused:
        fetch_card(large.card.digest(), other.ask)
    assert refused.value.fault is EncoderFault.CARD


def test_nothing_is_asked_for_that_is_beyond_the_policy_or_the_disk(large, tmp_path, monkeypatch):
    coordinator = Coordinator(large)
    with pytest.raises(EncoderInvalidError, match="limit in policy"):
        fetch_file(EncoderShelf(tmp_path), large.card, coordinator.ask, limit_bytes=1000, progress=lambda _: None)
    vast = large.card.model_copy(update={"bytes": (1 << 31) - 1})
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFullError, match="make room first"):
        fetch_file(EncoderShelf(tmp_path), vast, coordinator.ask, limit_bytes=1 << 31, progress=lambda _: None)
    assert coordinator.asked == []

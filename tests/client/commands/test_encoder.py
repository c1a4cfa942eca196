"""encoder: a hospital takes in a public encoder, looks at it, and checks it again."""

import json
import shutil
import stat

import pytest

from client.consent.policy import read_policy
from client.installation.audit_log import audit_links
from common.encoders.card import card_text
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.encoders.shelf import EncoderShelf
from common.errors import OutputExistsError
from simulation.drawing.made_up_encoder import MadeUpEncoder, made_up_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> MadeUpEncoder:
    return made_up_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def call(site_command, north):
    return lambda command, *words: site_command("encoder", command, *words, "--site-folder", north.path)


@pytest.fixture
def kept(north, encoder):
    """The site as `add` leaves it."""
    north.encoders.mkdir(mode=0o700)
    shutil.copy(encoder.file, north.encoder(encoder.card.file))
    shutil.copy(encoder.card_file, north.encoders / f"{encoder.card.file}.toml")
    return north


def test_an_encoder_that_was_carried_here_is_checked_kept_and_noted(call, north, encoder):
    said = json.loads(call("add", encoder.file, "--card", encoder.card_file, "--json"))
    assert (said["digest"], said["licence"]) == (encoder.card.digest(), "Apache-2.0")
    assert said["multiply_adds"] > 0
    kept = north.encoder(encoder.card.file)
    assert kept.read_bytes() == encoder.file.read_bytes()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (kept, north.encoders)] == [0o600, 0o700]
    assert EncoderShelf(north.encoders).named(card=encoder.card.digest(), file=encoder.card.file) == encoder.card
    entry = list(audit_links(north))[-1].entry
    assert (entry["what"], entry["encoder"]) == ("encoder added", encoder.card.digest())


def test_a_site_without_encoders_says_so(call):
    assert json.loads(call("list", "--json")) == {"encoders": [], "broken": []}


def test_cards_are_shown_listed_and_files_verified(call, kept, encoder):
    shown = json.loads(call("show", encoder.card.digest()[:8], "--json"))
    assert json.loads(call("list", "--json"))["encoders"] == [shown]
    assert "none: nobody trained it" in call("show", encoder.card.file[:8])
    assert encoder.card.digest()[:12] in call("list")
    assert json.loads(call("verify", encoder.card.digest(), "--json"))["verified"] is True


def test_a_file_that_was_changed_on_the_disk_is_found(call, kept, encoder):
    file = kept.encoder(encoder.card.file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(EncoderInvalidError) as refused:
        call("verify", encoder.card.digest())
    assert refused.value.fault is EncoderFault.OTHER_FILE


def test_the_policy_bounds_what_is_taken_in(call, north, encoder):
    assert read_policy(north.policy).largest_encoder_bytes == 1_500_000_000
    north.policy.write_text('format = "fedward-policy/1"\nlargest_encoder_bytes = 1000\n')
    with pytest.raises(EncoderInvalidError, match="the limit is 1000") as refused:
        call("add", encoder.file, "--card", encoder.card_file)
    assert refused.value.fault is EncoderFault.TOO_LARGE
    assert not north.encoders.exists()


def test_another_card_for_the_same_file_is_a_decision(call, kept, encoder, tmp_path):
    other = encoder.card.model_copy(update={"licence": "MIT"})
    (tmp_path / "other.toml").write_text(card_text(other))
    with pytest.raises(OutputExistsError, match="--replace"):
        call("add", encoder.file, "--card", tmp_path / "other.toml")
    call("add", encoder.file, "--card", tmp_path / "other.toml", "--replace")
    with pytest.raises(EncoderInvalidError, match="another card than the plan names"):
        EncoderShelf(kept.encoders).named(card=encoder.card.digest(), file=encoder.card.file)


def test_what_is_broken_in_the_folder_is_told_and_the_rest_is_listed(call, kept, encoder):
    (kept.encoders / "other.toml").write_text("name = 1")
    (kept.encoders / f"{'0' * 64}.toml").write_text(card_text(encoder.card))
    listed = json.loads(call("list", "--json"))
    assert [each["digest"] for each in listed["encoders"]] == [encoder.card.digest()]
    assert len(listed["broken"]) == 2


@pytest.mark.parametrize("beginning", ["", "ab", "0" * 64])
def test_a_digest_that_names_no_encoder_is_refused(call, kept, beginning):
    with pytest.raises(EncoderInvalidError) as refused:
        call("show", beginning)
    assert refused.value.fault is EncoderFault.NOT_HERE

"""approve, for a plan on a public encoder: the card is read by whoever decides, and the policy bounds the file."""

from io import StringIO

import pytest
from rich.console import Console

from client.consent.errors import PolicyRefusedError
from client.consent.plan_page import print_plan
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.encoders.shelf import EncoderShelf
from common.plan.errors import PlanInvalidError
from common.plan.reading import read_plan
from common.plan.shape import phase_layouts
from common.plan.signing import sign_plan
from simulation.drawing.made_up_encoder import MadeUpEncoder, made_up_encoder

from .conftest import SIDE


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> MadeUpEncoder:
    return made_up_encoder(tmp_path_factory.mktemp("encoder"), size_px=(SIDE, SIDE), channels=3)


def on_encoder(text: str, card) -> str:
    """The same plan, with a head on the encoder in the place of its network."""
    start, rest = text.index("[network]"), text[text.index("[network]") + 1 :]
    after = rest.index("\n[")
    section = (
        f'[network]\nname = "encoder"\n\n[network.encoder]\ncard = "{card.digest()}"\nfile = "{card.file}"\n'
        'outputs = ["levels"]\nfeatures = 12\n'
    )
    return text[:start] + section + rest[after:]


@pytest.fixture
def signed(plan_file, encoder, coordinator_key, tmp_path):
    """Write the plan on the encoder, with some words replaced, and the layout that follows."""

    def make(old="", new=""):
        file = tmp_path / f"on-encoder-{len(new)}.toml"
        text = on_encoder(plan_file.read_text(encoding="utf-8"), encoder.card).replace(old, new)
        file.write_text(text, encoding="utf-8")
        before = read_plan(file)
        hashed = text.replace(before.phases[0].layout_hash, phase_layouts(before)[0].layout_hash)
        file.write_text(hashed, encoding="utf-8")
        sign_plan(read_plan(file), file, coordinator_key)
        return file

    return make


@pytest.fixture
def plan(signed):
    return signed()


@pytest.fixture
def equipped(stocked, encoder):
    """A site that took the encoder in."""
    EncoderShelf(stocked.encoders).add(encoder.file, encoder.card, limit_bytes=1 << 20)
    return stocked


def test_the_card_is_read_before_anybody_approves(asked, equipped, plan, encoder):
    shown = asked("approve", plan, "--site-folder", equipped.path)
    assert (shown["encoder"]["digest"], shown["encoder"]["licence"]) == (encoder.card.digest(), "Apache-2.0")
    page = StringIO()
    print_plan(shown, Console(file=page, width=200))
    for words in (
        "The public encoder, by its card",
        "none: nobody trained it",
        "a linear head on 12 features",
        "4 weak",
    ):
        assert words in page.getvalue()


def test_without_the_encoder_the_sentence_says_how_to_get_it(site_command, stocked, plan, encoder):
    with pytest.raises(EncoderInvalidError, match=f"encoder fetch {encoder.card.digest()}") as refused:
        site_command("approve", plan, "--site-folder", stocked.path)
    assert refused.value.fault is EncoderFault.NOT_HERE


def test_a_policy_made_stricter_later_binds_an_encoder_that_is_here(site_command, equipped, plan):
    equipped.policy.write_text('format = "fedward-policy/1"\nlargest_encoder_bytes = 1000\n')
    with pytest.raises(PolicyRefusedError, match="largest_encoder_bytes"):
        site_command("approve", plan, "--site-folder", equipped.path)


def test_a_plan_that_counts_other_features_than_the_card_is_refused(site_command, equipped, signed):
    with pytest.raises(PlanInvalidError, match="features is 13"):
        site_command("approve", signed("features = 12", "features = 13"), "--site-folder", equipped.path)

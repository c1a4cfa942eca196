"""What was simulated becomes the plan of real hospitals: their counts, their promise, their keys."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from common.plan.reading import read_plan
from common.plan.signing import signature_path
from common.trust.identity import public_bytes
from server.commands.plan import checked_summary
from server.study.plan_template import new_plan_text
from simulation.__main__ import app
from simulation.errors import ScenarioInvalidError

HOSPITALS = ("east", "north", "south", "west")


class OfFour:
    """A roster as the template asks it."""

    sites = HOSPITALS

    def digest(self):
        return "a" * 64


@pytest.fixture
def draft(tmp_path):
    key = Ed25519PrivateKey.generate().public_key()
    patients = [f"{name}={80 + place},{900 + place}" for place, name in enumerate(HOSPITALS)]
    file = tmp_path / "study.toml"
    file.write_text(new_plan_text("lungs-2026", OfFour(), patients, order_key=key, epsilon=4.0, rounds=50))
    assert read_plan(file).study.order_key == base64.b64encode(public_bytes(key)).decode()
    return file


def plan(*arguments):
    result = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_the_plan_of_a_scenario_is_written_for_the_hospitals_of_a_draft(draft):
    before = draft.read_text()
    old = read_plan(draft)
    assert json.loads(plan("pneumonia-4-hospitals", draft, "--json"))["study"] == "lungs-2026"
    new = read_plan(draft)
    assert (new.study, new.sites, new.privacy) == (old.study, old.sites, old.privacy)
    thresholds = {"exclude": {"coordinate_range"}}
    assert new.secure_aggregation.model_dump(**thresholds) == old.secure_aggregation.model_dump(**thresholds)
    assert [phase.name for phase in new.phases] == ["standardise", "head"]
    assert new.image.size_px == (28, 28)
    assert draft.with_name("study.toml.before").read_text() == before
    assert checked_summary(new, "study.toml")["privacy"]["bought"] is not None


def test_a_scenario_with_another_kind_of_noise_is_refused_and_the_draft_left_alone(draft):
    before = draft.read_text()
    with pytest.raises(ScenarioInvalidError, match=r"study\.privacy\.noise is none, the draft's is distributed"):
        plan("pneumonia-without-privacy", draft)
    assert draft.read_text() == before


def test_a_signed_plan_is_not_written_over(draft):
    signature_path(draft).write_text("signed")
    with pytest.raises(ScenarioInvalidError, match="is signed; make another study"):
        plan("pneumonia-4-hospitals", draft)

"""What a report says of a study's public encoder."""

import pytest

from common.plan.reading import parse_plan
from simulation.drawing.made_up_encoder import card_of
from simulation.report.encoder_words import encoder_rows
from simulation.report.facts import RunFacts


@pytest.fixture
def facts(plan_document):
    def make(card, *, shown):
        plan_document["network"] = {
            "name": "encoder",
            "encoder": {"card": card.digest(), "file": card.file, "outputs": ["levels"], "features": 12},
        }
        plan = parse_plan(plan_document, "test")
        return RunFacts(plan, (), {}, None, (), 0.0, is_finished=True, version="0", encoder=shown)

    return make


def test_the_card_is_in_the_report_and_cannot_write_html(facts):
    card = card_of(b"-").model_copy(update={"licence": "<script>", "training_data": "public images"})
    ((name, text),) = encoder_rows(facts(card, shown=card))
    assert name == "Public encoder"
    for words in ("made-up, 1", "licence: &lt;script&gt;", "trained on: public images", "12 features", card.digest()):
        assert words in text


def test_without_its_card_the_report_still_names_its_digest(facts):
    card = card_of(b"-")
    ((_, text),) = encoder_rows(facts(card, shown=None))
    assert card.digest() in text
    assert "licence" not in text


def test_a_study_without_an_encoder_has_no_such_row(plan_document):
    plan = parse_plan(plan_document, "test")
    assert encoder_rows(RunFacts(plan, (), {}, None, (), 0.0, is_finished=True, version="0")) == []

"""What the report says of a study's public encoder: its card, as the hospitals' staff read it."""

from html import escape

from common.encoders.showing import card_rows, encoder_facts
from simulation.report.facts import RunFacts

SHOWN = ("name", "licence", "trained on", "intended use")


def encoder_rows(facts: RunFacts) -> list[tuple[str, str]]:
    """Return one row for a study on a public encoder, none for any other."""
    named = facts.plan.network.encoder
    if named is None:
        return []
    words = f"frozen; a head on {named.features} features ({', '.join(named.outputs)}), computed once of each scan"
    card = dict(card_rows(encoder_facts(facts.encoder))) if facts.encoder else {}
    parts = [f"{name}: {escape(card[name])}" for name in SHOWN if card]
    return [("Public encoder", "<br>".join([*parts, escape(words), f"card <code>{named.card}</code>"]))]

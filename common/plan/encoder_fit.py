"""Whether an encoder's card is the one that a plan names, and takes the images that the plan prepares."""

from collections.abc import Iterator

from common.encoders.card import EncoderCard
from common.plan.errors import PlanInvalidError
from common.plan.plan import StudyPlan


def check_encoder_fits(plan: StudyPlan, card: EncoderCard, source: str) -> None:
    """Refuse a plan whose ``network.encoder`` says something else than ``card``.

    Raises: PlanInvalidError with place, value and what the card says; EncoderInvalidError for outputs that it lacks.
    """
    for complaint in _complaints(plan, card):
        raise PlanInvalidError(f"{source}: {complaint}")


def _complaints(plan: StudyPlan, card: EncoderCard) -> Iterator[str]:
    encoder = plan.network.encoder
    if encoder is None:
        return
    if encoder.card != card.digest():
        yield (
            f"network.encoder.card is {encoder.card[:12]}…, the card of {card.name} {card.version} is "
            f"{card.digest()[:12]}…; take the card that the plan names"
        )
    if encoder.file != card.file:
        yield f"network.encoder.file is {encoder.file[:12]}…, the card of {card.name} says {card.file[:12]}…"
    length = card.features_of(encoder.outputs)
    if encoder.features != length:
        named = ", ".join(encoder.outputs)
        yield f"network.encoder.features is {encoder.features}, {named} of {card.name} have {length}; write that"
    if plan.image.size_px != card.size_px:
        sides = " x ".join(map(str, card.size_px))
        yield (
            f"image.size_px is {' x '.join(map(str, plan.image.size_px))}, the encoder {card.name} takes {sides}; "
            f"write {list(card.size_px)}"
        )
    if plan.image.channels > card.channels:
        yield f"image.channels is {plan.image.channels}, the encoder {card.name} takes grey images; remove channels"

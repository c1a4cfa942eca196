"""The public encoder that a plan names, compared with its card where that is at hand."""

from pathlib import Path
from typing import Any

from common.encoders.card import EncoderCard, read_card
from common.encoders.shelf import EncoderShelf
from common.encoders.showing import encoder_facts
from common.plan.encoder_fit import check_encoder_fits
from common.plan.errors import PlanInvalidError
from common.plan.plan import StudyPlan
from server.federation.folder import FederationFolder


def show_encoder(summary: dict[str, Any], plan: StudyPlan, file: Path, card_file: Path | None) -> None:
    """Compare the plan with the card of its encoder and add what the card says; or a warning that nobody has it.

    Raises: PlanInvalidError where they differ, EncoderInvalidError for another card than the plan names.
    """
    named = plan.network.encoder
    if named is None:
        if card_file is not None:
            raise PlanInvalidError(f"{file}: --card has a meaning only for a plan with [network.encoder]")
        return
    card = read_card(card_file) if card_file is not None else _card_near(file, card=named.card, digest=named.file)
    if card is None:
        summary["warnings"].append(
            "the card of the plan's public encoder is not here, so nobody compared the plan with it: give --card, or "
            "take the encoder in with `fedward-server encoder add`"
        )
        return
    check_encoder_fits(plan, card, str(file))
    summary["encoder"] = encoder_facts(card)


def shelf_near(file: Path) -> EncoderShelf:
    """Return the encoders of the federation folder that is here, or that the file lies in; an empty shelf without."""
    shelves = [EncoderShelf(FederationFolder(place).encoders) for place in (Path(), *file.resolve().parents[:4])]
    return next((shelf for shelf in shelves if shelf.folder.is_dir()), shelves[0])


def _card_near(file: Path, *, card: str, digest: str) -> EncoderCard | None:
    for place in (Path(), *file.resolve().parents[:4]):
        shelf = EncoderShelf(FederationFolder(place).encoders)
        if shelf.card_file(digest).exists():
            return shelf.named(card=card, file=digest)
    return None

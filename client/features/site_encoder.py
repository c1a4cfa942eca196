"""The encoder that a plan names, among the files of this site."""

from pathlib import Path

from client.installation.folder import SiteFolder
from common.encoders.card import EncoderCard
from common.encoders.shelf import EncoderShelf
from common.plan.encoder_fit import check_encoder_fits
from common.plan.plan import StudyPlan


def site_encoder(folder: SiteFolder, plan: StudyPlan) -> tuple[Path, EncoderCard] | None:
    """Return file and card of the plan's encoder; None for a plan without one. The file itself is not read here.

    Raises: EncoderInvalidError when it is not here; PlanInvalidError, EncoderInvalidError when plan and card differ.
    """
    encoder = plan.network.encoder
    if encoder is None:
        return None
    shelf = EncoderShelf(folder.encoders)
    card = shelf.named(card=encoder.card, file=encoder.file)
    check_encoder_fits(plan, card, "the plan")
    return shelf.file(encoder.file), card

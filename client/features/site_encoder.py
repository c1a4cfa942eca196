"""The encoder that a plan names, among the files of this site."""

from pathlib import Path

from client.features.errors import FeaturesMissingError
from client.installation.folder import SiteFolder
from common.encoders.card import EncoderCard, read_card
from common.plan.encoder_fit import check_encoder_fits
from common.plan.plan import StudyPlan


def site_encoder(folder: SiteFolder, plan: StudyPlan) -> tuple[Path, EncoderCard] | None:
    """Return file and card of the plan's encoder; None for a plan without one. The file itself is not read here.

    Raises: FeaturesMissingError when it is not here; PlanInvalidError, EncoderInvalidError when plan and card differ.
    """
    encoder = plan.network.encoder
    if encoder is None:
        return None
    file = folder.encoder(encoder.file)
    card_file = file.with_suffix(".toml")
    if not file.is_file() or not card_file.is_file():
        raise FeaturesMissingError(
            f"the plan trains on features of the encoder {encoder.file[:12]}…, which is not here; get its file and "
            "card from the coordinator, then `fedward-site encoder add FILE --card CARD`"
        )
    card = read_card(card_file)
    check_encoder_fits(plan, card, "the plan")
    return file, card

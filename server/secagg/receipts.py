"""What became of one message of a site: taken, refused by a check, or the site's own refusal."""

from dataclasses import dataclass

from common.secagg.refusals import Check
from common.secagg.stages import ServerStage


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one incoming message: taken (``check`` is None), or refused by a check and forgotten.

    ``site_id`` is the name in the message; it is proven only if the message was taken.
    """

    site_id: str
    check: Check | None

    @property
    def is_taken(self) -> bool:
        """Whether the message counts."""
        return self.check is None


@dataclass(frozen=True, slots=True)
class SiteRefusal:
    """A site's signed refusal: the stage it came in, the check, and the site it names, if any."""

    stage: ServerStage
    check: Check
    about: str

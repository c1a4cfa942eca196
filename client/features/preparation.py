"""What decides the features of a scan: the images they are made of, the encoder, what is taken of it, and the views."""

import hashlib
from typing import Annotated, Final

from pydantic import Field

from client.dicom.settings import settings_for
from common.plan.part import PlanPart
from common.plan.plan import StudyPlan
from common.plan.task import OutputName, PublicEncoder, Sha256
from common.trust.canonical import canonical_bytes

# Goes up whenever the same scan may give other features: views, order of operations, resizing.
FEATURES_VERSION: Final = 1


class Preparation(PlanPart):
    """Two studies with the same preparation read the same features.

    ``images``: digest of what a cache is made for (``client.dicom.settings``). The rest: as in ``PublicEncoder``.
    """

    images: Sha256
    card: Sha256
    file: Sha256
    outputs: Annotated[tuple[OutputName, ...], Field(min_length=1)]
    features: int
    views: int
    version: int = FEATURES_VERSION

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one scan's features: (rows, features), the unchanged scan's row first."""
        return 1 + self.views, self.features

    def digest(self) -> str:
        """Return SHA-256 (hex) over the canonical form: what stored features are bound to."""
        return hashlib.sha256(b"fedward features/1\0" + canonical_bytes(self.model_dump(mode="json"))).hexdigest()


def preparation_of(plan: StudyPlan) -> Preparation | None:
    """Return what a plan's features are made by; None for a plan whose network takes images."""
    encoder: PublicEncoder | None = plan.network.encoder
    if encoder is None:
        return None
    return Preparation(
        images=settings_for(plan.task, plan.image).digest().hex(),
        card=encoder.card,
        file=encoder.file,
        outputs=encoder.outputs,
        features=encoder.features,
        views=encoder.views,
    )

"""Settings of one site that change how fast it works, and nothing that leaves it."""

from dataclasses import dataclass, field

from client.installation.config import SpeedSection
from client.private_gradients.settings import MOST_PATIENTS, EngineName, SpeedSettings


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What the site chooses for itself.

    ``device``: torch device of training. ``patients_at_once``: bounds memory. ``masking_threads``: of the vector.
    ``gradients``: engine of the private gradients, bfloat16, ``torch.compile`` (``client.private_gradients``).
    ``limit``: patients side by side for whom this machine was found to have memory.
    """

    device: str = "cpu"
    patients_at_once: int = 16
    masking_threads: int = 1
    gradients: SpeedSettings = field(default_factory=SpeedSettings)
    limit: int = MOST_PATIENTS


def speed_of(section: SpeedSection) -> Speed:
    """Return the speed that a site's ``site.toml`` asks for."""
    return Speed(
        device=section.device,
        patients_at_once=section.patients_at_once,
        masking_threads=section.threads,
        gradients=SpeedSettings(EngineName(section.engine), section.autocast, section.compile),
    )

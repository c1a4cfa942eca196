"""Settings of one site that change how fast it works, and nothing that leaves it."""

from dataclasses import dataclass, field

from client.private_gradients.engine import SpeedSettings


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What the site chooses for itself.

    ``device``: torch device of training. ``patients_at_once``: bounds memory. ``masking_threads``: of the vector.
    ``gradients``: engine of the private gradients, and bfloat16 (``client.private_gradients``).
    """

    device: str = "cpu"
    patients_at_once: int = 16
    masking_threads: int = 1
    gradients: SpeedSettings = field(default_factory=SpeedSettings)

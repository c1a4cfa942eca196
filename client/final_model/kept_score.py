"""The last own score of a segmentation, with some slices, sealed for the hospital's page.

Slices are patients' images, so they lie on the disk as the cache does, never as pictures: only the site secret opens
them, and they go when a patient opts out, whoever is on them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from client.dicom.errors import CacheInvalidError
from client.dicom.vault import CACHE_ID_BYTES, Vault
from client.final_model.scoring import Score
from client.installation.folder import SiteFolder
from client.processes.packing import packed, unpacked
from common.files import read_bounded, replace_atomically
from common.trust.identity import read_secret_file

FILE_NAME: Final = "own_score.sealed"
MAX_BYTES: Final = 32 << 20
SLICES: Final = 6


@dataclass(frozen=True)
class KeptScore:
    """``model``: digest of its weights; ``structures``: of each its figures by name; ``slices``: Dice and PNG."""

    model: str
    study: str
    patients: int | None
    structures: tuple[dict[str, Any], ...]
    slices: tuple[tuple[float, bytes], ...]


def keep_score(
    folder: SiteFolder, *, model: str, study: str, score: Score, slices: Sequence[tuple[float, bytes]]
) -> None:
    """Seal a score, in place of the last; of the slices at most ``SLICES`` from the worst to the best."""
    ranked = sorted(slices)
    steps = max(1, min(SLICES, len(ranked)) - 1)
    chosen = [ranked[round(step * (len(ranked) - 1) / steps)] for step in range(min(SLICES, len(ranked)))]
    content = {
        "model": model,
        "study": study,
        "patients": score.patients,
        "structures": [asdict(row) for row in score.classes],
        "slices": [list(one) for one in chosen],
    }
    sealed = _vault(folder).seal("own score", "", packed(content))
    replace_atomically(folder.path / FILE_NAME, sealed, 0o600)


def load_score(folder: SiteFolder) -> KeptScore | None:
    """Return the last score that was kept; None where there is none, or none that this secret opens."""
    path = folder.path / FILE_NAME
    if not path.exists():
        return None
    try:
        content = unpacked(_vault(folder).open("own score", "", read_bounded(path, MAX_BYTES)))
    except CacheInvalidError:
        return None
    slices = tuple((float(dice), bytes(png)) for dice, png in content.pop("slices"))
    return KeptScore(structures=tuple(content.pop("structures")), slices=slices, **content)


def forget_score(folder: SiteFolder) -> None:
    """Remove what was kept: a patient who opted out may be on a slice."""
    (folder.path / FILE_NAME).unlink(missing_ok=True)


def _vault(folder: SiteFolder) -> Vault:
    return Vault(read_secret_file(folder.secret), bytes(CACHE_ID_BYTES), b"own score")

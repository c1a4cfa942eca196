"""How simulated hospitals differ from each other, and the generator of each random choice."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from simulation.drawing.scanners import REFERENCE, Scanner, scanner_of_site
from simulation.hospitals.hospital import Hospital


@dataclass(frozen=True, slots=True)
class Differences:
    """How many hospitals, and how they differ.

    ``labelled_share`` of each hospital's patients have labels; the last ``unlabelled_sites`` hospitals have none.
    ``skew_alpha``: see ``hospitals.deal`` (0 = none). ``shift``: strength of the scanners' effect on intensities, 0
    (none) to 1 (full). ``formats``: whether hospitals also differ in transfer syntax and MONOCHROME1.
    """

    sites: int = 4
    images_per_patient: int = 1
    labelled_share: float = 1.0
    unlabelled_sites: int = 0
    skew_alpha: float = 0.0
    shift: float = 1.0
    formats: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that have no meaning (ValueError)."""
        if not 1 <= self.unlabelled_sites + 1 <= self.sites + 1 or not 1 <= self.sites <= 1000:
            raise ValueError("sites must be 1 to 1000, and at most as many can be without labels")
        if not 0 <= self.labelled_share <= 1 or not 0 <= self.shift <= 1 or self.skew_alpha < 0:
            raise ValueError("labelled share and shift lie between 0 and 1, the skew's alpha is 0 or more")
        if not 1 <= self.images_per_patient <= 64:
            raise ValueError("a patient has 1 to 64 images")

    def scanner(self, site: int) -> Scanner:
        """Return the scanner of hospital ``site``, tempered by ``shift``; without ``formats`` all write alike."""
        scanner = tempered(scanner_of_site(site), self.shift)
        return scanner if self.formats else replace(scanner, monochrome1=False, syntax=REFERENCE.syntax)

    def share_of(self, site: int) -> float:
        """Return the labelled share of hospital ``site`` (from 0)."""
        return self.labelled_share if site < self.sites - self.unlabelled_sites else 0.0

    def rng(self, *purpose: int) -> np.random.Generator:
        """Return the generator for one purpose, independent of all others of the same seed."""
        return np.random.default_rng([self.seed, *purpose])


def tempered(scanner: Scanner, strength: float) -> Scanner:
    """Weaken a scanner's effect on intensities: 1 leaves it as it is, 0 removes it."""
    return replace(
        scanner,
        gain=1 + strength * (scanner.gain - 1),
        shift=strength * scanner.shift,
        gamma=1 + strength * (scanner.gamma - 1),
        noise_stddev=strength * scanner.noise_stddev,
        blur_px=strength * scanner.blur_px,
    )


def write_description(
    out: Path, hospitals: list[Hospital], differences: Differences, content: dict[str, object]
) -> None:
    """Write ``description.json``: how it was made, and one row for each hospital."""
    rows = [asdict(hospital) for hospital in hospitals]
    description = {"content": content, "differences": asdict(differences), "hospitals": rows}
    (out / "description.json").write_text(json.dumps(description, indent=2) + "\n")

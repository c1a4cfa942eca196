"""The folder of one run: every name in one place.

scenario.toml     as it was given            study/        the coordinator's folder (plan, journal, checkpoints, model)
hospitals/        scans and label tables     sites/NAME/   a site's folder (keys, cache, ledger, outbox)
scores.json       test scores by round       comparisons/  the models it is compared with
coordinator.key   signs roster and plan      report.html   what came of it
building.json     only while it is built     ready.json    only once it is
encoders/         the public encoder, where the study has one
engines/          which engine of gradients is fastest here, found once for all hospitals
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import read_text, replace_atomically
from server.study.folder import StudyFolder
from simulation.errors import RunInvalidError

MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of a run."""

    path: Path

    @property
    def scenario(self) -> Path:
        """The scenario, as it was given."""
        return self.path / "scenario.toml"

    @property
    def hospitals(self) -> Path:
        """What ``fedward-sim phantoms`` or ``import`` wrote, with ``test.npz``."""
        return self.path / "hospitals"

    @property
    def test_set(self) -> Path:
        """Images that no hospital holds."""
        return self.hospitals / "test.npz"

    @property
    def test_features(self) -> Path:
        """What the study's encoder made of the test images."""
        return features_of(self.test_set)

    @property
    def encoders(self) -> Path:
        """The study's encoder and its card (``common.encoders.shelf``)."""
        return self.path / "encoders"

    @property
    def study(self) -> StudyFolder:
        """The coordinator's study folder."""
        return StudyFolder(self.path / "study")

    @property
    def coordinator_key(self) -> Path:
        """Signs roster and plan; kept apart from the online key."""
        return self.path / "coordinator.key"

    @property
    def engines(self) -> Path:
        """What was found out about engines on this machine, once for all hospitals."""
        return self.path / "engines"

    @property
    def ready(self) -> Path:
        """Written last by the builder: a folder without it was interrupted while it was built."""
        return self.path / "ready.json"

    @property
    def building(self) -> Path:
        """Written first by the builder and removed last: what lies here is half a run, and nobody's work is lost."""
        return self.path / "building.json"

    @property
    def scores(self) -> Path:
        """Test scores of the models so far."""
        return self.path / "scores.json"

    @property
    def progress(self) -> Path:
        """Seconds spent so far, over all starts."""
        return self.path / "progress.json"

    @property
    def comparisons(self) -> Path:
        """One JSON file for each model that the federation is compared with."""
        return self.path / "comparisons"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """What the program has to say to its developers."""
        return self.path / "run.log"

    def site(self, name: str) -> Path:
        """Return a site's folder."""
        return self.path / "sites" / name

    def require_ready(self) -> None:
        """Raise RunInvalidError unless the run was built to the end."""
        if not self.ready.exists():
            raise RunInvalidError(f"{self.path}: no run that could be resumed; start it without --resume")

    def clear_half_built(self) -> None:
        """Remove what an interrupted builder left, so that it can begin anew: no round was run, no privacy spent.

        Raises: RunInvalidError where no builder was interrupted; then nothing is touched.
        """
        if self.ready.exists() or not self.building.exists():
            self.require_ready()
            return
        for folder in (self.hospitals, self.encoders, self.path / "sites", self.study.path):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.scenario, self.coordinator_key):
            file.unlink(missing_ok=True)


def features_of(test_set: Path) -> Path:
    """Return the file of the features of a test set: beside it."""
    return test_set.with_name("test-features.npy")


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file at once. Raises: FileUnreadableError."""
    replace_atomically(path, json.dumps(value, indent=1).encode() + b"\n")


def read_json(path: Path, default: Any = None) -> Any:
    """Read a JSON file of ours; ``default`` where it does not exist. Raises: RunInvalidError when it is damaged."""
    if not path.exists():
        return default
    try:
        return json.loads(read_text(path, MAX_JSON_BYTES))
    except ValueError:
        raise RunInvalidError(f"{path}: damaged; remove it, or start the run anew") from None

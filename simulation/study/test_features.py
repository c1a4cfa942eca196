"""``python -m simulation.study.test_features RUN``: what a study's encoder makes of the test images, once for a run.

In a process of its own: onnxruntime stays out of the one that runs the hospitals. The images are prepared as a
hospital's, and each goes through the encoder as it is, alone.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from common.flower.environment import child_environment
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from simulation.errors import RunInvalidError
from simulation.study.run_folder import RunFolder
from simulation.study.test_set import prepared_test_set


def compute_test_features(folder: RunFolder) -> None:
    """Write the features of the test images, if they are not there yet. Raises: RunInvalidError."""
    if folder.test_features.exists():
        return
    command = (sys.executable, "-m", "simulation.study.test_features", str(folder.path))
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise RunInvalidError(f"{folder.path}: the test images have no features: {last[:300]}")


def _compute(folder: RunFolder, plan: StudyPlan) -> None:
    from client.features.encoder import Encoder  # noqa: PLC0415 (onnxruntime: in this process alone)
    from common.encoders.shelf import EncoderShelf  # noqa: PLC0415

    encoder = plan.network.encoder
    if encoder is None:
        raise RunInvalidError("the plan names no encoder")
    shelf = EncoderShelf(folder.encoders)
    opened = Encoder(shelf.file(encoder.file), shelf.named(card=encoder.card, file=encoder.file))
    images = prepared_test_set(folder.test_set, plan).images.numpy()
    np.save(folder.test_features, opened.features(images, encoder.outputs), allow_pickle=False)


if __name__ == "__main__":
    run = RunFolder(Path(sys.argv[1]))
    _compute(run, read_plan(run.study.plan))

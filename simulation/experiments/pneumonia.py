"""PneumoniaMNIST as patients: one chest X-ray each, few of them labelled. Real images, read where they lie."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.learning.patients import UNKNOWN, ArrayPatients
from common.errors import FileUnreadableError

DEFAULT_FILE = Path(__file__).resolve().parents[2] / "../shared/data/pneumoniamnist/pneumoniamnist.npz"


@dataclass(frozen=True)
class Pneumonia:
    """The official split. Shapes: images uint8 (n, 28, 28); labels int64 (n,), 0 normal, 1 pneumonia."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: Tensor
    test_labels: NDArray[np.int64]

    @classmethod
    def read(cls, file: Path = DEFAULT_FILE) -> "Pneumonia":
        """Read the arrays. Raises: FileUnreadableError if the file is absent."""
        if not file.is_file():
            raise FileUnreadableError(f"{file}: not found; give the PneumoniaMNIST file with --data")
        with np.load(file, allow_pickle=False) as arrays:
            return cls(
                arrays["train_images"],
                arrays["train_labels"][:, 0].astype(np.int64),
                torch.from_numpy(arrays["test_images"]).float().unsqueeze(1) / 255,
                arrays["test_labels"][:, 0].astype(np.int64),
            )

    def patients(self, *, labelled_share: float, seed: int) -> ArrayPatients:
        """Return the training patients; a random share (by ``seed``) keeps its label."""
        count = len(self.train_labels)
        kept = np.random.default_rng(seed).permutation(count)[: round(labelled_share * count)]
        labels = np.full(count, UNKNOWN)
        labels[kept] = self.train_labels[kept]
        return ArrayPatients(self.train_images, labels, [f"patient-{i}" for i in range(count)], dimensions=2)

    def test_auc(self, network: nn.Module) -> float:
        """Return the AUC on the official test set: Mann-Whitney, ties half."""
        with torch.no_grad():
            logits = torch.cat([network(part).float() for part in torch.split(self.test_images, 256)])
        scores = (logits[:, 1] - logits[:, 0]).numpy()
        return exact_auc(self.test_labels, scores)


def exact_auc(labels: NDArray[np.int64], scores: NDArray[np.floating]) -> float:
    """Return the area under the ROC curve from raw scores: share of pairs in order, ties half."""
    positives, negatives = scores[labels == 1], np.sort(scores[labels == 0])
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.sum() / (2 * len(positives) * len(negatives)))

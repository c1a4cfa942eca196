"""What each way of learning is worth on a set of images: ``python -m simulation.experiments.accuracy --data FILE.npz``.

    --encoder FILE [--card FILE]     features of a public encoder; without it small_cnn with its public start
    --labels 0.01,0.05,0.1  --epsilon 1,2,8,inf  --methods ridge,standardise_head,...  --seeds 5
    --kept FOLDER                    features are computed once and kept here; else in a temporary folder
    --judge validation               for choosing settings; the test images are for the last look
    --whole-network                  one row more: small_cnn trained whole on all labels, without privacy (slow)

Pooled: no protocol, but the program's accountant, clip and server steps (``simulation.experiments.private_heads``).
One image is one patient; a seed draws who is labelled, and the noise. Nothing is chosen for a cell.
A row: labels, epsilon (null: no privacy), method, encoder, seeds, auc, auc_sd (of the draws); auc is that of two
classes, or the mean of one class against the rest.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from client.learning.patients import ArrayPatients
from common.errors import FedwardError
from common.networks.initialisation import available, load_initialisation
from common.networks.registry import build_network
from simulation.experiments.feature_sets import AT_ONCE, WIDTH, Part, Parts, features_of, read_parts
from simulation.experiments.pneumonia import exact_auc
from simulation.experiments.pooled import train_openly
from simulation.experiments.private_heads import METHODS, Draw

FIRST_SEED = 1000  # apart from the seeds on which settings were chosen
EPOCHS = 12


def mean_auc(classes: NDArray[np.int64], scores: NDArray[np.floating]) -> float:
    """Return the AUC of two classes, or the mean over classes of one against the rest, of softmax (n, classes)."""
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    if scores.shape[1] == 2:
        return exact_auc(classes, scores[:, 1] - scores[:, 0])
    present = [number for number in range(scores.shape[1]) if 0 < (classes == number).sum() < len(classes)]
    return statistics.fmean(exact_auc((classes == number).astype(np.int64), shares[:, number]) for number in present)


@dataclass(frozen=True)
class Cell:
    """One row of the table, but for its draws."""

    share: float
    epsilon: float
    method: str


def cell_auc(parts: Parts, judge: Part, cell: Cell, *, seed: int) -> float:
    """Return the AUC of one draw of labels and noise; ``parts``, ``judge``: features."""
    random = np.random.default_rng([FIRST_SEED + seed])
    order = random.permutation(len(parts.train.classes))
    labelled, unlabelled = np.split(order, [round(cell.share * len(order))])
    draw = Draw(
        features=np.asarray(parts.train.values, np.float32),
        classes=parts.train.classes,
        class_count=parts.class_count,
        labelled=labelled,
        unlabelled=unlabelled,
        epsilon=cell.epsilon,
        random=random,
    )
    return mean_auc(judge.classes, METHODS[cell.method](draw)(np.asarray(judge.values, np.float32)))


def whole_network(images: Parts, judge: Part, *, seed: int) -> float:
    """Return the AUC of small_cnn trained whole on all labels without privacy: what the network can do."""
    network = build_network("small_cnn", dimensions=2, classes=images.class_count, width=WIDTH, seed=seed)
    digests = {(entry.network, entry.dimensions, entry.width): entry.digest for entry in available()}
    load_initialisation(network, digests["small_cnn", 2, WIDTH])
    owners = [str(number) for number in range(len(images.train.classes))]
    patients = ArrayPatients(images.train.values, images.train.classes, owners, dimensions=2)
    train_openly(network, patients, epochs=EPOCHS, seed=seed)
    pictures = torch.from_numpy(np.asarray(judge.values, np.uint8)).float().unsqueeze(1) / 255
    with torch.no_grad():
        scores = torch.cat([network(piece) for piece in torch.split(pictures, AT_ONCE)])
    return mean_auc(judge.classes, scores.numpy())


def _row(encoder: Path | None, cell: Cell, found: list[float]) -> dict[str, Any]:
    return {
        "labels": cell.share,
        "epsilon": None if math.isinf(cell.epsilon) else cell.epsilon,
        "method": cell.method,
        "encoder": encoder.name if encoder and cell.method != "whole_network" else "small_cnn",
        "seeds": len(found),
        "auc": statistics.fmean(found),
        "auc_sd": statistics.stdev(found) if len(found) > 1 else 0.0,
    }


def _shares(text: str) -> list[float]:
    found = [float(each) for each in text.split(",")]
    if not found or not all(0 < share <= 1 for share in found):
        raise argparse.ArgumentTypeError(f"{text}: shares between 0 and 1, with commas")
    return found


def _epsilons(text: str) -> list[float]:
    found = [float(each) for each in text.split(",")]
    if not found or not all(epsilon > 0 for epsilon in found):
        raise argparse.ArgumentTypeError(f"{text}: numbers above 0, or inf, with commas")
    return found


def _methods(text: str) -> list[str]:
    found = text.split(",")
    unknown = sorted(set(found) - set(METHODS))
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is no method; choose from: {', '.join(METHODS)}")
    return found


def main() -> int:
    """Print a table, or one JSON object, of all cells; progress goes to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="an ONNX file")
    parser.add_argument("--card", type=Path, help="its card; default: beside it, with the suffix .toml")
    parser.add_argument("--labels", type=_shares, default=[0.01, 0.05, 0.1])
    parser.add_argument("--epsilon", type=_epsilons, default=[1.0, 2.0, 8.0, math.inf])
    parser.add_argument("--methods", type=_methods, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kept", type=Path, help="folder of features")
    parser.add_argument("--judge", choices=("test", "validation"), default="test")
    parser.add_argument("--whole-network", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        return _run(arguments)
    except FedwardError as error:
        sys.stderr.write(f"error: {error}\n")
        return int(error.exit_code)


def _run(arguments: argparse.Namespace) -> int:
    images = read_parts(arguments.data)
    with tempfile.TemporaryDirectory() as scratch:
        kept = arguments.kept or Path(scratch)
        parts = features_of(images, arguments.data, encoder=arguments.encoder, card=arguments.card, kept=kept)
    judge, found, seeds = getattr(parts, arguments.judge), [], range(arguments.seeds)
    for share, epsilon, method in itertools.product(arguments.labels, arguments.epsilon, arguments.methods):
        cell = Cell(share, epsilon, method)
        found.append(_row(arguments.encoder, cell, [cell_auc(parts, judge, cell, seed=seed) for seed in seeds]))
        sys.stderr.write(f"{share:g} {epsilon:g} {method} {found[-1]['auc']:.3f} ± {found[-1]['auc_sd']:.3f}\n")
    if arguments.whole_network:
        aucs = [whole_network(images, getattr(images, arguments.judge), seed=seed) for seed in seeds]
        found.append(_row(arguments.encoder, Cell(1.0, math.inf, "whole_network"), aucs))
    if arguments.json:
        sys.stdout.write(json.dumps({"data": arguments.data.name, "judge": arguments.judge, "rows": found}) + "\n")
    else:
        for row in found:
            sys.stdout.write(" ".join(str(value) for value in row.values()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

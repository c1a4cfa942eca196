"""Why a federation scores below the pooled experiment: one change at a time, on frozen features, seed by seed.

    python -m simulation.experiments.ablation --first-seed 10 --seeds 10 --draws 2

Both phases of ``pneumonia-4-hospitals`` see the encoder's frozen features only, so they can be repeated in numpy in a
tenth of a second: labelled patients and hospitals as in the scenario with that seed, the production network, views
and server's step; ordinary random numbers in place of the sites' noise, sums in the clear. To choose settings, and to
find causes; figures that count come from the whole path (``simulation.experiments.federated_seeds``).

    y = feature_norm(features),  z = y / sqrt(F)      F features, each image normalised on its own
    standardise: clip_C (y^2 - 1, y) / sqrt(F)        head: clip_C of the gradient of the cross-entropy of W (z, 1)
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from client.learning.views import WEAK, draw_views, view
from common.networks.initialisation import available, load_initialisation
from common.networks.layers import spatial_mean
from common.networks.registry import build_network
from common.networks.standardisation import standardised
from common.privacy.accounting import noise_multiplier_for
from simulation.experiments.federated_seeds import paired
from simulation.experiments.pneumonia import DEFAULT_FILE, exact_auc
from simulation.hospitals.differences import Differences
from simulation.hospitals.hospital import choose_labelled, deal
from simulation.hospitals.imported_hospitals import invent_patients
from simulation.hospitals.public_arrays import PublicArrays, load_public_arrays

WIDTH, SITES, SHARE, EPSILON, DELTA = 16, 4, 0.05, 8.0, 1e-5
FEATURES = 7 * WIDTH
VIEWS = 4

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """One way of training; the defaults are the pooled experiment's.

    ``shares``: variance of all noise over the guaranteed one. ``average_decay`` None: mean of the last half.
    ``coordinate_range``: where a site's sum is cut. ``own_scale``: intensities from each image's darkest to brightest
    pixel instead of the full grey scale. ``standardise_noise``: noise multiplier of these rounds.
    """

    standardise_rounds: int = 2
    standardise_noise: float = 2.0
    rounds: int = 40
    learning_rate: float = 8.0
    clipping_norm: float = 1.0
    second_class_weight: float = 0.35
    views: int = 1
    average_decay: float | None = None
    shares: float = 1.0
    coordinate_range: float = math.inf
    own_scale: bool = False
    noise: bool = True


POOLED = Settings()
OLD = Settings(average_decay=0.95, shares=4 / 3, coordinate_range=64.0, own_scale=True, standardise_noise=1.2)
NEW = Settings(
    average_decay=0.95, shares=4 / 3, clipping_norm=0.7, learning_rate=12.0, views=2, second_class_weight=1.0,
    standardise_rounds=3, standardise_noise=1.4,
)  # fmt: skip
ARMS = {
    "pooled experiment": POOLED,
    "models averaged with decay 0.95": replace(POOLED, average_decay=0.95),
    "noise of four shares, three guaranteed": replace(POOLED, shares=4 / 3),
    "each image on its own grey scale": replace(POOLED, own_scale=True),
    "a site's sum cut at 64": replace(POOLED, coordinate_range=64.0),
    "all four: the scenario as it was": OLD,
    "the scenario as it is": NEW,
    "pooled experiment without noise": replace(POOLED, noise=False),
    "the scenario as it is, without noise": replace(NEW, noise=False),
}


@dataclass(frozen=True)
class Frozen:
    """Normalised spatial means of the encoder. Shapes: plain (n, F), views (VIEWS, n, F), test (t, F)."""

    plain: Floats
    views: Floats
    test: Floats
    norm: Tensor
    labels: Indices
    test_labels: Indices


def frozen(source: PublicArrays, *, own_scale: bool) -> Frozen:
    """Compute the features of all images with the public start weights."""
    network = build_network("small_cnn", dimensions=2, classes=2, width=WIDTH)
    load_initialisation(network, next(e.digest for e in available() if (e.network, e.width) == ("small_cnn", WIDTH)))
    images, test = (_scaled(part, own_scale=own_scale) for part in (source.images, source.test_images))
    generator = torch.Generator().manual_seed(1)
    seen = [view(images, draw_views(len(images), dimensions=2, generator=generator), WEAK) for _ in range(VIEWS)]
    norm = network.get_submodule("feature_norm")
    start = torch.cat([norm.get_parameter("weight").detach(), norm.get_parameter("bias").detach()])
    views = np.stack([_features(network, part) for part in seen])
    plain = _features(network, images)
    return Frozen(plain, views, _features(network, test), start, source.labels, source.test_labels)


def hospitals_of(source: PublicArrays, seed: int) -> list[tuple[Indices, Indices]]:
    """Return (labelled, unlabelled) images of each hospital, dealt as the scenario deals them."""
    differences = Differences(sites=SITES, labelled_share=SHARE, shift=0.0, seed=seed)
    patients = np.concatenate(invent_patients(source.labels, differences))
    sites = []
    for site, members in enumerate(deal(source.labels[patients], SITES, 0.0, differences.rng(4))):
        chosen = choose_labelled(np.arange(len(members)), SHARE, differences.rng(5, site))
        sites.append((patients[members][chosen], patients[members][~chosen]))
    return sites


def trained_auc(
    data: Frozen, sites: Sequence[tuple[Indices, Indices]], settings: Settings, rng: np.random.Generator
) -> float:
    """Train both phases at ``sites`` and return the AUC on the test images."""
    norm = data.norm
    for _ in range(settings.standardise_rounds):
        sums = [_moments(_affine(data.plain[unlabelled], norm)) for _, unlabelled in sites]
        noise = 2.0 * settings.standardise_noise
        mean = _noised(sums, settings, noise, rng) / sum(len(unlabelled) for _, unlabelled in sites)
        norm = standardised(norm, torch.from_numpy(mean))
    head = _head(data, norm, sites, settings, rng)
    scores = _with_one(_affine(data.test, norm) / math.sqrt(FEATURES)) @ head
    return exact_auc(data.test_labels, scores[:, 1] - scores[:, 0])


def _head(
    data: Frozen,
    norm: Tensor,
    sites: Sequence[tuple[Indices, Indices]],
    settings: Settings,
    rng: np.random.Generator,
) -> Floats:
    seen = [_with_one(_affine(data.views[:, labelled], norm) / math.sqrt(FEATURES)) for labelled, _ in sites]
    multiplier = noise_multiplier_for(epsilon=EPSILON, delta=DELTA, sampling_rate=1.0, steps=settings.rounds)
    head, models = np.zeros((FEATURES + 1, 2)), []
    for _ in range(settings.rounds):
        chosen = rng.permutation(VIEWS)[: settings.views]
        sums = [
            _gradients(rows[chosen], data.labels[site[0]], head, settings)
            for rows, site in zip(seen, sites, strict=True)
        ]
        total = _noised(sums, settings, multiplier * settings.clipping_norm, rng)
        head = head - settings.learning_rate * total / sum(len(labelled) for labelled, _ in sites)
        models.append(head)
    return _averaged(models, settings.average_decay)


def _averaged(models: Sequence[Floats], decay: float | None) -> Floats:
    ages = np.arange(len(models) - 1, -1, -1)
    weights = (ages < len(models) / 2).astype(float) if decay is None else decay**ages
    mean: Floats = np.tensordot(weights / weights.sum(), np.stack(models), 1)
    return mean


def _gradients(rows: Floats, labels: Indices, head: Floats, settings: Settings) -> Floats:
    """Return the sum of clipped gradients: rows (views, patients, F + 1) -> (F + 1, 2)."""
    errors = torch.softmax(torch.from_numpy(rows @ head), 2).numpy()
    errors = (errors - np.eye(2)[labels]) * np.where(labels == 1, settings.second_class_weight, 1.0)[:, None]
    each = np.einsum("vpf,vpc->pfc", rows, errors) / len(rows)
    return _clipped_sum(each, settings.clipping_norm)


def _moments(y: Floats) -> Floats:
    return _clipped_sum(np.concatenate([y**2 - 1, y], 1) / math.sqrt(FEATURES), 2.0)


def _clipped_sum(each: Floats, clipping_norm: float) -> Floats:
    norms = np.sqrt((each**2).sum(axis=tuple(range(1, each.ndim)), keepdims=True))
    total: Floats = (each * np.minimum(1, clipping_norm / np.maximum(norms, 1e-12))).sum(0)
    return total


def _noised(sums: Sequence[Floats], settings: Settings, stddev: float, rng: np.random.Generator) -> Floats:
    """Cut each site's sum, add them up, add all the noise."""
    total: Floats = sum(
        (np.clip(one, -settings.coordinate_range, settings.coordinate_range) for one in sums), 0.0 * sums[0]
    )
    return total + rng.normal(0, stddev * math.sqrt(settings.shares), total.shape) if settings.noise else total


def _affine(features: Floats, norm: Tensor) -> Floats:
    scale, shift = norm.double().numpy().reshape(2, FEATURES)
    result: Floats = features * scale + shift
    return result


def _with_one(rows: Floats) -> Floats:
    return np.concatenate([rows, np.ones((*rows.shape[:-1], 1))], -1)


def _scaled(images: NDArray[np.uint8], *, own_scale: bool) -> Tensor:
    values = images.astype(np.float32)
    low = values.min((1, 2), keepdims=True) if own_scale else np.float32(0)
    high = values.max((1, 2), keepdims=True) if own_scale else np.float32(255)
    return torch.from_numpy((values - low) / np.maximum(high - low, 1)).unsqueeze(1)


def _features(network: nn.Module, images: Tensor) -> Floats:
    encoder, parts = network.get_submodule("encoder"), []
    with torch.no_grad():
        for part in torch.split(images, 256):
            means = torch.cat([spatial_mean(level) for level in encoder(part)], 1)
            parts.append(functional.group_norm(means, 1))
    result: Floats = torch.cat(parts).double().numpy()
    return result


def main() -> None:
    """Print each arm's mean AUC over seeds and its paired difference from the pooled experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DEFAULT_FILE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load_public_arrays(arguments.data)
    banks = {own_scale: frozen(source, own_scale=own_scale) for own_scale in (False, True)}
    reference: list[float] = []
    print("| one change | AUC | minus the pooled experiment, 95 % |\n|---|---|---|")
    for name, settings in ARMS.items():
        values = [
            statistics.fmean(
                trained_auc(
                    banks[settings.own_scale], hospitals_of(source, seed), settings, np.random.default_rng([seed, draw])
                )
                for draw in range(arguments.draws)
            )
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        ]
        reference = reference or values
        difference = paired([ours - theirs for ours, theirs in zip(values, reference, strict=True)])
        between = f"{difference['mean']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
        print(f"| {name} | {statistics.fmean(values):.4f} | {between} |", flush=True)


if __name__ == "__main__":
    main()

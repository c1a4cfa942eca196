"""Reproduce the public initialisation: pre-train encoders on generated scenes and write them as safetensors.

``python -m simulation.pretraining --output FOLDER`` (a few minutes of one core; ``--tiny`` for a smoke test). The same
arguments on the same machine and torch version give the same bytes; other processors may round differently, so
plans name the shipped files by digest instead of retraining them.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from common.networks.initialisation import write_sums
from common.networks.layers import convolution, spatial_mean
from common.networks.registry import build_network
from common.networks.small_cnn import SmallCnn
from common.networks.unet import UNet
from simulation.pretraining.scenes import generate_scenes, num_factors

MAPS = 3


@dataclass(frozen=True)
class Recipe:
    """One network to pre-train: its shape, the scenes' side in pixels, and the length of training."""

    network: str
    dimensions: int
    width: int
    size: int
    steps: int
    batch: int
    learning_rate: float = 3e-3

    @property
    def file_name(self) -> str:
        """Name of the weights' file, read back by ``common.networks.initialisation``."""
        return f"{self.network}-{self.dimensions}d-width{self.width}.safetensors"


RECIPES = (
    Recipe(network="small_cnn", dimensions=2, width=16, size=28, steps=1000, batch=128),
    Recipe(network="small_cnn", dimensions=3, width=8, size=16, steps=300, batch=64),
    Recipe(network="residual", dimensions=2, width=16, size=28, steps=300, batch=64),
    Recipe(network="unet", dimensions=2, width=8, size=28, steps=400, batch=64),
)


class Pretext(nn.Module):
    """The network's features with two public tasks: how much of each factor, and where (a map for each kind).

    Shapes: images (batch, 1, *size) -> factors (batch, num_factors), map logits (batch, 3, *size of the features).
    """

    def __init__(self, network: nn.Module, *, dimensions: int) -> None:
        super().__init__()
        self.network = network
        sample = torch.zeros(1, 1, *(8,) * dimensions)
        feature_map, pooled = _feature_map_and_mean(network, sample)
        self.factor_head = nn.Linear(pooled.shape[1], num_factors(dimensions))
        self.map_head = convolution(dimensions, feature_map.shape[1], MAPS, kernel=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return predicted factors and map logits."""
        feature_map, pooled = _feature_map_and_mean(self.network, images)
        return self.factor_head(pooled), self.map_head(feature_map)


def pretrain(recipe: Recipe, *, seed: int = 0) -> nn.Module:
    """Return the network of ``recipe``, trained; deterministic in ``seed`` on one machine."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = build_network(recipe.network, dimensions=recipe.dimensions, classes=2, width=recipe.width, seed=seed)
    pretext = Pretext(network, dimensions=recipe.dimensions)
    optimiser = torch.optim.AdamW(pretext.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.steps)
    for _ in track(range(recipe.steps), description=recipe.file_name):
        loss = _loss(pretext, recipe, random)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    if isinstance(network, SmallCnn):
        standardise_features(network, recipe, random)
    return network


def standardise_features(network: SmallCnn, recipe: Recipe, random: np.random.Generator) -> None:
    """Set ``feature_norm`` so that each feature has mean 0 and standard deviation 1 over 1024 generated scenes.

    y = scale x + shift with scale = 1 / std(x), shift = -mean(x) / std(x), x being the normalised feature.
    """
    scenes = generate_scenes(random, count=1024, size=recipe.size, dimensions=recipe.dimensions)
    norm = network.feature_norm
    with torch.no_grad():
        norm.weight.fill_(1.0)
        norm.bias.fill_(0.0)
        scaled = [network.features(part) for part in torch.split(torch.from_numpy(scenes.images), 64)]
        features = torch.cat(scaled) * norm.num_channels**0.5
        norm.weight.copy_(1.0 / (features.std(0) + 1e-3))
        norm.bias.copy_(-features.mean(0) * norm.weight)


def save(network: nn.Module, file: Path) -> None:
    """Write everything but the head, float32, in the order of the parameters."""
    tensors = {name: p.detach() for name, p in network.named_parameters() if not name.startswith("head.")}
    save_file(tensors, file)


def _loss(pretext: Pretext, recipe: Recipe, random: np.random.Generator) -> Tensor:
    scenes = generate_scenes(random, count=recipe.batch, size=recipe.size, dimensions=recipe.dimensions)
    factors, map_logits = pretext(torch.from_numpy(scenes.images))
    pool = functional.adaptive_avg_pool2d if recipe.dimensions == 2 else functional.adaptive_avg_pool3d
    maps = pool(torch.from_numpy(scenes.maps), map_logits.shape[2:])
    return functional.mse_loss(factors, torch.from_numpy(scenes.factors)) + functional.binary_cross_entropy_with_logits(
        map_logits, maps
    )


def _feature_map_and_mean(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map the dense task reads and the vector the factor task reads, for each kind of network."""
    if isinstance(network, UNet):
        features = network.features(images)
        return features, spatial_mean(network.encoder(images)[-1])
    if isinstance(network, SmallCnn):
        levels = network.encoder(images)
        return levels[-1], network.pooled(levels)
    feature_map: Tensor = network.get_submodule("encoder")(images)
    return feature_map, spatial_mean(feature_map)


def main() -> None:
    """Pre-train every recipe (or a tiny one) and write weights and sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="existing folder for the weights")
    parser.add_argument("--only", help="only recipes whose file name starts with this")
    parser.add_argument("--tiny", action="store_true", help="two steps each, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for recipe in RECIPES:
        if arguments.only and not recipe.file_name.startswith(arguments.only):
            continue
        chosen = Recipe(**{**vars(recipe), "steps": 2, "batch": 8}) if arguments.tiny else recipe
        save(pretrain(chosen), arguments.output / recipe.file_name)
    write_sums(arguments.output)
    print((arguments.output / "SHA256SUMS").read_text(), end="")

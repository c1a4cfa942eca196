"""Public start weights: the shipped files have their digests, fit their networks, and can be made again."""

import shutil
from hashlib import sha256

import numpy as np
import pytest
import torch

from common.networks.errors import WeightsInvalidError
from common.networks.initialisation import DATA_FOLDER, MAX_BYTES, available, load_initialisation, write_sums
from common.networks.parameters import flatten, layout
from common.networks.registry import build_network
from simulation.pretraining.scenes import generate_scenes, num_factors
from simulation.pretraining.weights import RECIPES, Recipe, pretrain, save

SHIPPED = available()
TINY = Recipe(network="small_cnn", dimensions=2, width=8, size=12, steps=3, batch=4)


def fitting(entry, classes=4):
    return build_network(entry.network, dimensions=entry.dimensions, classes=classes, width=entry.width)


def test_every_recipe_is_shipped_and_all_files_together_stay_below_one_megabyte():
    assert {entry.file_name for entry in SHIPPED} == {recipe.file_name for recipe in RECIPES}
    assert sum(file.stat().st_size for file in DATA_FOLDER.iterdir()) <= MAX_BYTES


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.file_name)
def test_a_shipped_file_has_its_digest_and_loads_into_its_network_for_any_number_of_classes(entry):
    network = fitting(entry)
    before = flatten(network, layout(network, "encoder"))
    names = load_initialisation(network, entry.digest)
    assert sha256((DATA_FOLDER / entry.file_name).read_bytes()).hexdigest() == entry.digest
    assert set(names) == {name for name, _ in network.named_parameters() if not name.startswith("head.")}
    assert not torch.equal(flatten(network, layout(network, "encoder")), before)
    assert not network(torch.randn(2, 1, *(16,) * entry.dimensions)).any()


def test_an_autoencoder_takes_the_encoder_of_a_classifier():
    entry = SHIPPED[[e.file_name for e in SHIPPED].index("small_cnn-2d-width16.safetensors")]
    network = build_network("autoencoder", dimensions=2, classes=1, width=16)
    names = load_initialisation(network, entry.digest)
    assert {name.split(".")[0] for name in names} == {"encoder"}


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(DATA_FOLDER, copy)
    return copy


def changed_byte(folder, entry):
    content = bytearray((folder / entry.file_name).read_bytes())
    content[-1] ^= 1
    (folder / entry.file_name).write_bytes(content)
    return entry.digest


def another_width(folder, entry):
    save(build_network("small_cnn", dimensions=2, classes=2, width=8), folder / entry.file_name)
    write_sums(folder)
    return next(e.digest for e in available(folder) if e.file_name == entry.file_name)


def not_finite(folder, entry):
    network = fitting(entry)
    with torch.no_grad():
        next(network.parameters())[0] = float("nan")
    save(network, folder / entry.file_name)
    write_sums(folder)
    return next(e.digest for e in available(folder) if e.file_name == entry.file_name)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder, entry: "0" * 64, "no public initialisation"),
        (changed_byte, "does not have its digest"),
        (another_width, "another width"),
        (not_finite, "not finite"),
    ],
    ids=["unknown digest", "one changed bit", "other shapes", "a NaN"],
)
def test_a_spoilt_file_is_refused_and_the_network_keeps_its_weights(folder, spoil, sentence):
    entry = next(e for e in available(folder) if e.file_name == "small_cnn-2d-width16.safetensors")
    network = fitting(entry)
    before = flatten(network, layout(network))
    with pytest.raises(WeightsInvalidError, match=sentence):
        load_initialisation(network, spoil(folder, entry), folder=folder)
    assert torch.equal(flatten(network, layout(network)), before)


def test_a_file_for_another_network_is_refused():
    unet = next(e for e in SHIPPED if e.network == "unet")
    with pytest.raises(WeightsInvalidError, match="another network"):
        load_initialisation(build_network("residual", dimensions=2, classes=2, width=8), unet.digest)


def test_a_tiny_pretraining_gives_the_same_bytes_twice_and_others_from_another_seed(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for index, seed in enumerate((0, 0, 1)):
        save(pretrain(TINY, seed=seed), tmp_path / f"{index}.safetensors")
    torch.set_num_threads(threads)
    first, second, third = ((tmp_path / f"{index}.safetensors").read_bytes() for index in range(3))
    assert first == second
    assert first != third


@pytest.mark.parametrize("dimensions", [2, 3])
def test_scenes_are_deterministic_bounded_and_of_the_stated_shapes(dimensions):
    scenes, again = (
        generate_scenes(np.random.default_rng(4), count=6, size=12, dimensions=dimensions) for _ in range(2)
    )
    assert scenes.images.shape == (6, 1, *(12,) * dimensions)
    assert scenes.factors.shape == (6, num_factors(dimensions))
    assert scenes.maps.shape == (6, 3, *(12,) * dimensions)
    assert scenes.maps.min() >= 0
    assert scenes.maps.max() <= 1
    assert np.allclose(scenes.images.mean(axis=tuple(range(1, dimensions + 2))), 0.5, atol=1e-5)
    assert np.array_equal(scenes.images, again.images)

"""A hospital with a study on features of an encoder that nobody trained."""

import shutil

import pytest

from client.installation.folder import SiteFolder
from common.networks.layouts import layout_of
from common.networks.shapes import network_parameters
from simulation.drawing.made_up_encoder import MadeUpEncoder, made_up_encoder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> MadeUpEncoder:
    return made_up_encoder(tmp_path_factory.mktemp("encoder"), channels=3)


@pytest.fixture(scope="session")
def large_encoder(tmp_path_factory) -> MadeUpEncoder:
    """For the images of the drawn hospitals."""
    return made_up_encoder(tmp_path_factory.mktemp("encoder"), size_px=(32, 32), channels=3)


@pytest.fixture(scope="session")
def prepared_with_encoder(prepare, large_encoder):
    """Four hospitals that approved a plan on features; none is computed yet."""
    sizes = {"dimensions": 2, "classes": 2, "width": 16}
    hashes = [
        layout_of(network_parameters(name, **sizes, features=features), part).digest
        for name, features, part in (("small_cnn", 0, "all"), ("encoder", 12, "head"))
    ]
    card = large_encoder.card
    network = (
        'name = "encoder"\n[network.encoder]\n'
        f'card = "{card.digest()}"\nfile = "{card.file}"\noutputs = ["levels"]\nfeatures = 12\nviews = 2\n'
    )
    changes = {
        'name = "small_cnn"\nwidth = 16\ninitialisation = "seeded"        # or the digest of public weights: the '
        "largest gain under privacy\n": network,
        'trainable = "all"': 'trainable = "head"',
        hashes[0]: hashes[1],
    }
    return prepare(rounds=3, changes=changes, encoder=large_encoder)


@pytest.fixture
def hospital(prepared_with_encoder, tmp_path) -> SiteFolder:
    shutil.copytree(prepared_with_encoder, tmp_path / "study")
    return SiteFolder(tmp_path / "study" / "north")

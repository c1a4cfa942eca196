"""An encoder that nobody trained."""

import pytest

from simulation.drawing.made_up_encoder import MadeUpEncoder, made_up_encoder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> MadeUpEncoder:
    return made_up_encoder(tmp_path_factory.mktemp("encoder"), channels=3)

"""Fixtures that several folders of tests share."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.roster import Roster
from server.plan_template import new_plan_text

REPOSITORY = Path(__file__).resolve().parent.parent
PATIENTS = ["east=200,0", "north=100,900", "south=50,500", "west=0,1000"]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images beside the checkout; tests that need them skip where they are absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared/data folder beside the checkout: real images are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def coordinator_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="session")
def order_key() -> Ed25519PrivateKey:
    """The online key that signs the rounds' orders."""
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="session")
def roster(coordinator_key: Ed25519PrivateKey) -> Roster:
    """Four hospitals with keys of their own."""
    names = [entry.partition("=")[0] for entry in PATIENTS]
    sites = {name: Ed25519PrivateKey.generate().public_key() for name in names}
    return Roster(federation="lungs", epoch=1, coordinator=coordinator_key.public_key(), sites=sites)


@pytest.fixture(scope="session")
def plan_text(roster: Roster, order_key: Ed25519PrivateKey) -> str:
    """A good plan as the coordinator's command writes it."""
    return new_plan_text("xray-study", roster, PATIENTS, order_key=order_key.public_key(), epsilon=8.0, rounds=20)


@pytest.fixture
def plan_document(plan_text: str) -> dict[str, Any]:
    """The same plan as plain values, fresh for each test to change."""
    return tomllib.loads(plan_text)

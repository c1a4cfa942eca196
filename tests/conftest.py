"""Fixtures that several folders of tests share."""

import logging
import os
import resource
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, settings

from client.installation.folder import SiteFolder
from common.files import write_new
from common.plan.reading import read_plan
from common.plan.signing import sign_plan
from common.terminal import errors, output
from common.trust.identity import create_secret_file
from common.trust.roster import Roster, signed_roster
from server.study.plan_template import new_plan_text

# Machines are shared: how long an example takes says nothing.
settings.register_profile("fedward", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedward")

os.environ.setdefault(
    "FEDWARD_ALLOW_ROOT", "1"
)  # tests of the programs run in containers, where root is nobody outside
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # some tests open exported models with onnxruntime alone
REPOSITORY = Path(__file__).resolve().parent.parent
PATIENTS = ["east=200,0", "north=100,900", "south=50,500", "west=0,1000"]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands keep figures in a folder of this run, not in the developer's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _consoles_and_logs_still_speak() -> Iterator[None]:
    """No test may leave consoles bound elsewhere or logs mute: tests after it would read nothing."""
    yield
    assert logging.root.manager.disable == logging.NOTSET
    for console in (output, errors):
        assert console._file is None  # rich has no other way to ask: reading ``file`` gives today's stream
        assert not console.quiet


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
def site_keys() -> dict[str, Ed25519PrivateKey]:
    """The identities of four hospitals."""
    return {entry.partition("=")[0]: Ed25519PrivateKey.generate() for entry in PATIENTS}


@pytest.fixture(scope="session")
def roster(coordinator_key: Ed25519PrivateKey, site_keys: dict[str, Ed25519PrivateKey]) -> Roster:
    """Four hospitals with keys of their own."""
    sites = {name: key.public_key() for name, key in site_keys.items()}
    return Roster(federation="lungs", epoch=1, coordinator=coordinator_key.public_key(), sites=sites)


@pytest.fixture(autouse=True)
def _memory_of_this_process() -> Iterator[None]:
    """Take back a limit that a test set on this process, as a fenced child does: a browser needs terabytes."""
    yield
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


@pytest.fixture(scope="session")
def plan_text(roster: Roster, order_key: Ed25519PrivateKey) -> str:
    """A good plan as the coordinator's command writes it."""
    return new_plan_text("xray-study", roster, PATIENTS, order_key=order_key.public_key(), epsilon=8.0, rounds=20)


@pytest.fixture
def plan_document(plan_text: str) -> dict[str, Any]:
    """The same plan as plain values, fresh for each test to change."""
    return tomllib.loads(plan_text)


@pytest.fixture
def signed_plan(plan_text: str, coordinator_key: Ed25519PrivateKey, tmp_path: Path) -> Path:
    """A plan file with the coordinator's signature beside it."""
    file = tmp_path / "study.toml"
    file.write_text(plan_text, encoding="utf-8")
    sign_plan(read_plan(file), file, coordinator_key)
    return file


@pytest.fixture
def north(
    roster: Roster, site_keys: dict[str, Ed25519PrivateKey], coordinator_key: Ed25519PrivateKey, tmp_path: Path
) -> SiteFolder:
    """The site folder of one hospital: key, secret, roster and a strict policy; no scans, nothing approved."""
    folder = SiteFolder(tmp_path / "north")
    folder.path.mkdir(mode=0o700)
    pem = site_keys["north"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new(folder.key, pem, 0o600)
    create_secret_file(folder.secret)
    folder.roster.write_bytes(signed_roster(roster, coordinator_key))
    folder.policy.write_text('format = "fedward-policy/1"\n')
    return folder

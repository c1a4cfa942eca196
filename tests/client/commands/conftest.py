"""Commands of a site, called as staff call them, on real folders."""

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from client.__main__ import app
from client.commands.errors import CheckFailedError
from client.consent.confirmation import confirm
from client.dicom.ingest import ingest
from client.dicom.settings import settings_for
from client.doctor.findings import Level
from client.installation.folder import SiteFolder
from client.ledger.ledger import Ledger
from common.files import write_new
from common.flower.pointer import pointer_digest
from common.plan.reading import read_plan
from common.plan.signing import sign_plan
from common.trust.canonical import encode_base64
from common.trust.identity import fingerprint, public_bytes, read_secret_file, read_signing_key
from common.trust.kit import FORMAT, new_kit, signed_kit
from common.trust.roster import Roster, read_roster, signed_roster
from server.federation.certificates import Authority, new_authority
from simulation.drawing.scanners import REFERENCE
from simulation.hospitals.hospital import Holdings, write_hospital
from simulation.hospitals.phantoms import render

PATIENTS = 90
UNLABELLED = 20
SIDE = 32
SECRET = 47  # decides who is held out: 24 of the labelled patients, ten or more of each class


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The federation's own certificate authority."""
    return new_authority("lungs")


@pytest.fixture
def site_command():
    """Run ``fedward-site`` with words; returns what it printed, raises what it raised."""

    def run(*words: object, typed: str = "") -> str:
        done = CliRunner().invoke(app, [str(word) for word in words], input=typed, catch_exceptions=True)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.fixture
def asked(site_command):
    """Run a command with ``--json`` and return its object."""
    return lambda *words, typed="": json.loads(site_command(*words, "--json", typed=typed))


@pytest.fixture
def fresh(tmp_path, asked) -> SiteFolder:
    """The folder of a site that was just set up under the name north."""
    asked("init", "north", "--site-folder", tmp_path / "fresh")
    return SiteFolder(tmp_path / "fresh")


@pytest.fixture
def kit_file(
    fresh: SiteFolder,
    roster: Roster,
    coordinator_key: Ed25519PrivateKey,
    authority: Authority,
    tmp_path: Path,
) -> Callable[..., Path]:
    """Write a kit whose roster lists the fresh site as north, changed as a test needs it."""

    def make(
        *,
        epoch: int | None = 1,
        key: Ed25519PrivateKey = coordinator_key,
        sites: dict[str, Any] | None = None,
        **changes: object,
    ) -> Path:
        own = {"north": read_signing_key(fresh.key).public_key()}
        listed = sites if sites is not None else {**roster.sites, **own}
        named = Roster(federation="lungs", epoch=epoch or 1, coordinator=key.public_key(), sites=listed)
        document = {
            "format": FORMAT,
            "federation": "lungs",
            "coordinator": encode_base64(public_bytes(key.public_key())),
            "address": "localhost:443",
            "ca_certificate": authority.pem.decode(),
            "pointer_digest": "ab" * 32,
            "flwr": "1.41.0",
            "roster": json.loads(signed_roster(named, key)) if epoch else None,
        }
        file = tmp_path / f"kit-{len(list(tmp_path.glob('kit-*')))}.json"
        file.write_bytes(signed_kit(new_kit(document | changes, file), key))
        return file

    return make


@dataclass(frozen=True)
class Hospital:
    """A hospital whose scans were read: DICOM files, label table, site secret and cache."""

    scans: Path
    labels: Path
    secret: Path
    cache: Path


@pytest.fixture(scope="session")
def plan_file(plan_text: str, coordinator_key: Ed25519PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed plan for small radiographs."""
    file = tmp_path_factory.mktemp("plan") / "xray.toml"
    text = plan_text.replace("size_px = [64, 64]", f"size_px = [{SIDE}, {SIDE}]")
    assert text != plan_text
    file.write_text(text, encoding="utf-8")
    sign_plan(read_plan(file), file, coordinator_key)
    return file


@pytest.fixture(scope="session")
def hospital(plan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Radiographs of 90 generated patients, half of them with a finding, 70 with an expert's label; read once."""
    place = tmp_path_factory.mktemp("hospital")
    labels = np.arange(PATIENTS) % 2
    images = render("xray", labels * 2, np.random.default_rng(5), SIDE)
    known = np.arange(PATIENTS) < PATIENTS - UNLABELLED
    holdings = Holdings(images, labels, np.arange(PATIENTS), known, ("normal", "abnormal"), "DX")
    write_hospital(place / "north", holdings, REFERENCE, seed=3)
    made = Hospital(place / "north/scans", place / "north/labels.csv", place / "secret", place / "cache")
    write_new(made.secret, bytes([SECRET]) * 32, 0o600)
    plan = read_plan(plan_file)
    settings, secret = settings_for(plan.task, plan.image), read_secret_file(made.secret)
    report = ingest(made.scans, made.cache, settings=settings, secret=secret, labels=made.labels, workers=1)
    assert (report.patients, report.labelled_patients) == (PATIENTS, PATIENTS - UNLABELLED)
    return made


@pytest.fixture
def stocked(north: SiteFolder, hospital: Hospital) -> SiteFolder:
    """A joined site with a ledger, whose scans were read and who called the others; nothing is approved yet."""
    north.secret.unlink()
    shutil.copy2(hospital.secret, north.secret)
    shutil.copytree(hospital.cache, north.cache)
    Ledger.create(north.ledger).close()
    for name, heard in read_roster(north.roster).fingerprints().items():
        if name != "north":
            confirm(north, name, heard, person="Dr A. Meyer")
    return north


@pytest.fixture
def joined(fresh, kit_file, asked, coordinator_key):
    """The fresh site after joining a coordinator at the given port of ``localhost``."""

    def make(port: int, **changes):
        changes = {"address": f"localhost:{port}", "pointer_digest": pointer_digest()} | changes
        heard = fingerprint(coordinator_key.public_key())
        asked("join", kit_file(**changes), "--site-folder", fresh.path, "--fingerprint", heard)
        with socket.create_server(("127.0.0.1", 0)) as free:
            text = fresh.config.read_text().replace("runtime_port = 9094", f"runtime_port = {free.getsockname()[1]}")
        fresh.config.write_text(text)
        return fresh

    return make


@pytest.fixture
def look():
    """Check a site; returns level, text and remedy of each finding by name, the worst where a name has several."""

    def run(site, *options) -> dict[str, tuple[str, str, str]]:
        done = CliRunner().invoke(app, ["check", "--site-folder", str(site.path), "--json", *options])
        told = json.loads(done.stdout)
        order = [level.value for level in Level]
        found = {}
        for finding in sorted(told["findings"], key=lambda finding: order.index(finding["level"])):
            found[finding["name"]] = (finding["level"], finding["text"], finding["remedy"])
        stops = any(level == "stop" for level, _, _ in found.values())
        assert told["ok"] is not stops
        assert isinstance(done.exception, CheckFailedError) == stops, done.exception
        return found

    return run

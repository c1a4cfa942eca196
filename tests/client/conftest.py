"""Four hospitals with drawn scans in encrypted caches and an approved plan, and a server session for their rounds."""

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from client.consent.approval import approve
from client.consent.confirmation import confirm
from client.dicom.ingest import ingest
from client.dicom.settings import settings_for
from client.installation.folder import SiteFolder
from client.ledger.ledger import Ledger
from client.site import Site
from common.files import write_new
from common.plan.reading import read_plan
from common.plan.signing import sign_plan
from common.secagg.messages import decode
from common.secagg.refusals import Check
from common.secagg.stages import SITE_SENDS, Kind
from common.trust.roster import read_roster, signed_roster
from server.attempts.orders import new_order
from server.model.state import start_state
from server.secagg.session import ServerSession
from server.study.folder import Study, StudyFolder, open_study, read_order_key
from server.study.plan_template import new_plan_text
from simulation.drawing.made_up_encoder import MadeUpEncoder
from simulation.hospitals.differences import Differences
from simulation.hospitals.phantom_hospitals import PhantomRequest, make_phantom_hospitals

NAMES = ("east", "north", "south", "west")


def pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="session")
def scans(tmp_path_factory) -> Path:
    """Four hospitals with twelve phantom patients each; the last has no labels."""
    out = tmp_path_factory.mktemp("scans")
    make_phantom_hospitals(
        out,
        PhantomRequest(patients=12, size_px=32, test_patients=4),
        Differences(labelled_share=0.6, unlabelled_sites=1),
    )
    return out


@pytest.fixture(scope="session")
def prepare(tmp_path_factory, scans, roster, coordinator_key, order_key, site_keys) -> Callable[..., Path]:  # noqa: PLR0917 (fixtures)
    """Makes a coordinator with a signed plan for 32 px X-rays, and four hospitals that approved it; to be copied."""

    def made(*, rounds: int, changes: dict[str, str], encoder: MadeUpEncoder | None = None) -> Path:
        root = tmp_path_factory.mktemp("prepared")
        folder = StudyFolder(root / "coordinator")
        folder.path.mkdir()
        text = new_plan_text(
            "xray-study",
            roster,
            [f"{name}=8,4" for name in NAMES],
            order_key=order_key.public_key(),
            epsilon=8.0,
            rounds=rounds,
        )
        for usual, ours in {
            "size_px = [64, 64]": "size_px = [32, 32]",
            '"abnormal"': '"consolidation"',
            "reply_slot_s = 3.0": "reply_slot_s = 0.4",  # each answer waits for one
            **changes,
        }.items():
            assert usual in text, usual
            text = text.replace(usual, ours)
        folder.plan.write_text(text)
        sign_plan(read_plan(folder.plan), folder.plan, coordinator_key)
        folder.roster.write_bytes(signed_roster(roster, coordinator_key))
        write_new(folder.order_key, pem(order_key), 0o600)
        hospitals = sorted(path for path in scans.iterdir() if path.is_dir())
        for name, scan_folder in zip(NAMES, hospitals, strict=True):
            prepare_site(SiteFolder(root / name), scan_folder, folder, pem(site_keys[name]), encoder)
        return root

    return made


@pytest.fixture(scope="session")
def prepared(prepare) -> Path:
    """A study of three rounds, each of which scores the model it receives."""
    return prepare(rounds=3, changes={"every_rounds = 10": "every_rounds = 1"})


def prepare_site(
    folder: SiteFolder, scan_folder: Path, study: StudyFolder, key: bytes, encoder: MadeUpEncoder | None
) -> None:
    folder.path.mkdir(mode=0o700)
    if encoder is not None:
        folder.encoders.mkdir(mode=0o700)
        shutil.copyfile(encoder.file, folder.encoder(encoder.card.file))
        shutil.copyfile(encoder.card_file, folder.encoder(encoder.card.file).with_suffix(".toml"))
    write_new(folder.key, key, 0o600)
    secret = hashlib.sha256(b"site secret of " + folder.path.name.encode()).digest()  # decides who is held out
    write_new(folder.secret, secret, 0o600)
    folder.roster.write_bytes(study.roster.read_bytes())
    folder.policy.write_text('format = "fedward-policy/1"\nepsilon_ceiling = 20.0\n')
    plan = read_plan(study.plan)
    settings = settings_for(plan.task, plan.image)
    ingest(scan_folder, folder.cache, settings=settings, secret=secret, labels=scan_folder / "labels.csv")
    Ledger.create(folder.ledger).close()
    confirm_all(folder)
    approve(folder, study.plan, approver=f"Dr {folder.path.name}")


def confirm_all(folder: SiteFolder) -> None:
    """What staff do with the telephone: every other hospital of the roster read its fingerprint out to them."""
    for name, heard in read_roster(folder.roster).fingerprints().items():
        if name != folder.path.name:
            confirm(folder, name, heard, person=f"Dr {folder.path.name}")


@pytest.fixture
def copied(prepared, tmp_path) -> Path:
    return shutil.copytree(prepared, tmp_path / "study")


@pytest.fixture
def study(copied) -> Study:
    return open_study(copied / "coordinator")


@pytest.fixture
def sites(copied) -> dict[str, Site]:
    return {name: Site.open(copied / name) for name in NAMES}


def begin(study: Study, *, attempt: int = 1, round_number: int = 1) -> ServerSession:
    state = start_state(study.network)
    if round_number > 1:
        state = replace(state, round_number=round_number)
    model = study.network.phases[0].travelling(state.parameters)
    digest = study.network.phases[0].model_digest(model)
    order = new_order(study, state, attempt=attempt, digest=digest, cohort=NAMES, now_unix_s=time.time())
    return ServerSession(
        order=order,
        order_key=read_order_key(study),
        identities=study.identities,
        model=memoryview(model).cast("B"),
    )


def answers(packets, sites, kind, silent=()):
    for name, packet in packets.items():
        if name not in silent:
            yield name, sites[name].answer(kind, packet.message, memoryview(packet.payload))


def run_round(session, sites, silent=()):
    packets = session.start()
    for kind in (Kind.ORDER, Kind.KEYLIST, Kind.FORWARD, Kind.SURVIVORS, Kind.CERTIFICATE):
        for _, answer in answers(packets, sites, kind, silent):
            receipt = session.receive(answer.message, answer.payload)
            assert receipt.is_taken, receipt
        if kind is not Kind.CERTIFICATE:
            packets = session.advance()
    return session.finish()


def spending(site: Site):
    with Ledger.open(site.folder.ledger, ceiling=20.0) as ledger:
        return ledger.spending()


def refused_by(packet) -> Check:
    kind, message = decode(packet.message, SITE_SENDS)
    assert kind is Kind.REFUSAL
    return message.check


def order_for(study, sites, name, **settings):
    packet = begin(study, **settings).start()[name]
    return sites[name].answer(Kind.ORDER, packet.message, memoryview(packet.payload))


@pytest.fixture(scope="session")
def rounds() -> SimpleNamespace:
    """What leads a round, and what is looked at afterwards."""
    return SimpleNamespace(
        names=NAMES, begin=begin, run=run_round, order_for=order_for, refused_by=refused_by, spending=spending
    )

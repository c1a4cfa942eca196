"""From scans full of planted identifiers to masked vectors: nothing written, logged or sent holds one of them."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
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
from common.secagg.stages import Kind
from common.trust.identity import create_secret_file
from common.trust.roster import read_roster, signed_roster
from server.attempts.orders import new_order
from server.model.state import start_state
from server.secagg.session import ServerSession
from server.study.folder import StudyFolder, open_study, read_order_key
from server.study.plan_template import new_plan_text
from simulation.hostile.canaries import plant
from simulation.hostile.canary_scan import CanaryScanner

NAMES = ("east", "north", "south", "west")
PLAN_CHANGES = {
    'classes = ["normal", "abnormal"]': 'classes = ["normal", "lesion"]',
    'modalities = ["CR", "DX"]': 'modalities = ["CT"]',
    "size_px = [64, 64]": "size_px = [32, 32]",
    'intensity = "percentiles"': 'intensity = "ct_window"\nwindow_hu = [0.0, 2048.0]',
    "every_rounds = 10": "every_rounds = 1",
}


@dataclass
class Hospital:
    """A site, what was planted in its scans, and every byte it sent."""

    site: Site
    canaries: dict[str, str]
    sent: list[bytes]

    def answer(self, kind: Kind, message: bytes, payload: memoryview):
        packet = self.site.answer(kind, message, payload)
        self.sent.append(packet.message + bytes(packet.payload))
        return packet


def study_folder(root: Path, roster, coordinator_key, order_key) -> StudyFolder:
    folder = StudyFolder(root / "coordinator")
    folder.path.mkdir()
    counts = [f"{name}=3,3" for name in NAMES]
    text = new_plan_text("xray-study", roster, counts, order_key=order_key.public_key(), epsilon=8.0, rounds=3)
    for old, new in PLAN_CHANGES.items():
        assert old in text
        text = text.replace(old, new)
    folder.plan.write_text(text.replace("labelled_sampling_rate = 0.2", "labelled_sampling_rate = 0.9"))
    plan = folder.plan.read_text()
    plan = plan.replace("noise_multiplier = ", "noise_multiplier = 9")  # enough for the higher rate
    folder.plan.write_text(plan.replace("coordinate_range = ", "coordinate_range = 1024.0 # "))  # room for that noise
    sign_plan(read_plan(folder.plan), folder.plan, coordinator_key)
    folder.roster.write_bytes(signed_roster(roster, coordinator_key))
    write_new(folder.order_key, order_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return folder


def hospital(folder: SiteFolder, key, study: StudyFolder, seed: int) -> Hospital:
    folder.path.mkdir(mode=0o700)
    write_new(folder.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    secret = create_secret_file(folder.secret)
    folder.roster.write_bytes(study.roster.read_bytes())
    folder.policy.write_text('format = "fedward-policy/1"\nepsilon_ceiling = 20.0\n')
    scans = folder.path.parent / f"scans-of-{seed}"
    scans.mkdir()
    planted = plant(scans, seed=seed)
    plan = read_plan(study.plan)
    labels = scans / "labels.csv"
    settings = settings_for(plan.task, plan.image)
    report = ingest(scans / "scans", folder.cache, settings=settings, secret=secret, labels=labels)
    assert report.labelled_patients == 3, report.to_json()
    Ledger.create(folder.ledger).close()
    for name, heard in read_roster(folder.roster).fingerprints().items():
        if name != folder.path.name:
            confirm(folder, name, heard, person="Dr A. Meyer")
    approve(folder, study.plan, approver="Dr A. Meyer")
    return Hospital(Site.open(folder.path), planted.canaries, [])


@pytest.fixture(scope="module")
def played(tmp_path_factory, roster, coordinator_key, order_key, site_keys):
    """Two rounds of four hospitals, then a paused site and a damaged cache; with everything that was logged."""
    root = tmp_path_factory.mktemp("study")
    log = logging.FileHandler(root / "everything.log")
    before = logging.getLogger().level
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.DEBUG)
    folder = study_folder(root, roster, coordinator_key, order_key)
    hospitals = {
        name: hospital(SiteFolder(root / name), site_keys[name], folder, seed) for seed, name in enumerate(NAMES)
    }
    study = open_study(folder.path)
    for attempt in (1, 2):
        play_round(study, hospitals, attempt)
    spoil_and_ask_again(study, hospitals["north"])
    logging.getLogger().removeHandler(log)
    logging.getLogger().setLevel(before)
    log.close()
    return root, hospitals


def new_session(study, attempt: int) -> ServerSession:
    state, facts = start_state(study.network), study.network.phases[0]
    model = facts.travelling(state.parameters)
    digest = facts.model_digest(model)
    order = new_order(study, state, attempt=attempt, digest=digest, cohort=NAMES, now_unix_s=time.time())
    return ServerSession(
        order=order, order_key=read_order_key(study), identities=study.identities, model=memoryview(model).cast("B")
    )


def play_round(study, hospitals: dict[str, Hospital], attempt: int) -> None:
    session = new_session(study, attempt)
    packets = session.start()
    for kind in (Kind.ORDER, Kind.KEYLIST, Kind.FORWARD, Kind.SURVIVORS, Kind.CERTIFICATE):
        for name, packet in packets.items():
            answer = hospitals[name].answer(kind, packet.message, memoryview(packet.payload))
            assert session.receive(answer.message, answer.payload).is_taken
        packets = session.advance() if kind is not Kind.CERTIFICATE else {}
    session.finish()


def spoil_and_ask_again(study, north: Hospital) -> None:
    """Damage every shard of the cache, so that training meets errors about records, and order once more."""
    for shard in north.site.folder.cache.rglob("*"):
        if shard.is_file() and shard.stat().st_size > 1000:
            content = bytearray(shard.read_bytes())
            content[len(content) // 2] ^= 1
            shard.write_bytes(content)
    packet = new_session(study, 3).start()["north"]
    north.answer(Kind.ORDER, packet.message, memoryview(packet.payload))
    north.site.folder.paused.touch()
    packet = new_session(study, 4).start()["north"]
    north.answer(Kind.ORDER, packet.message, memoryview(packet.payload))


def test_no_identifier_is_in_any_file_of_a_site_or_in_the_log(played):
    root, hospitals = played
    for name, place in hospitals.items():
        scanner = CanaryScanner(place.canaries)
        found = [*scanner.scan_folder(root / name, name), *scanner.scan("log", (root / "everything.log").read_bytes())]
        assert [f"{place.canaries[seen.canary]} -> {seen.place}" for seen in found] == []
        assert len(place.canaries) >= 1000


def test_no_identifier_is_in_anything_that_left_a_site(played):
    _, hospitals = played
    for name, place in hospitals.items():
        assert sum(map(len, place.sent)) > 100_000, "the masked vectors are among what was recorded"
        scanner = CanaryScanner(place.canaries)
        assert [seen for octets in place.sent for seen in scanner.scan(name, octets)] == []


def test_the_log_and_the_scanner_both_work(played):
    root, hospitals = played
    assert "paused" in (root / "everything.log").read_text()
    planted = next(iter(hospitals["north"].canaries))
    assert list(CanaryScanner(hospitals["north"].canaries).scan("sample", b"patient " + planted.encode()))

"""From a scenario to a run folder that could start: by the same steps, and with the same code, as in real hospitals.

1. scans     each hospital gets its folder of DICOM files
2. keys      each site makes key, secret and empty ledger; the coordinator makes two keys, one of them for orders
3. ingest    each site reads its scans into its encrypted cache
4. roster    the coordinator signs who takes part
5. plan      from the declared counts; checked, signed
6. approval  each site checks roster, signature, guarantee and policy, and freezes its patients
7. features  where the study has a public encoder: each site computes what it makes of its scans, once
"""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.consent.approval import approve
from client.consent.confirmation import confirm
from client.dicom.cache import Cache
from client.dicom.errors import NothingUsableError
from client.dicom.ingest import ingest
from client.dicom.report import IngestReport
from client.dicom.settings import IngestSettings, settings_for
from client.features.counting import count_features
from client.installation.folder import SiteFolder
from client.ledger.ledger import Ledger
from client.trainer.feature_computing import compute_features
from common.encoders.card import EncoderCard, read_card
from common.encoders.checking import LARGEST_ENCODER_BYTES
from common.encoders.shelf import EncoderShelf
from common.files import write_new
from common.plan.guarantee import guarantee
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.plan.signing import sign_plan, signature_path
from common.trust.canonical import encode_base64
from common.trust.identity import (
    create_secret_file,
    create_signing_key,
    public_bytes,
    read_secret_file,
    read_signing_key,
    write_public_key,
)
from common.trust.roster import Roster, read_roster, signed_roster
from server.drafting.plan_text import plan_toml
from simulation.study.hospital_data import make_hospitals, planned_files
from simulation.study.plan_building import build_plan, declared
from simulation.study.run_folder import RunFolder, write_json
from simulation.study.scenario import Scenario
from simulation.study.test_features import compute_test_features

APPROVER = "simulated data protection officer"
MOST_EPSILON = 100.0


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told how far the building is: ``step`` (its words, planned pieces) and ``reached`` (pieces so far)."""

    step: Callable[[str, int], None] = lambda _words, _pieces: None
    reached: Callable[[int], None] = lambda _pieces: None


def build_run(
    folder: RunFolder,
    scenario: Scenario,
    scenario_file: Path,
    *,
    archive: Path | None = None,
    encoder: tuple[Path, Path] | None = None,
    watcher: Watcher | None = None,
) -> StudyPlan:
    """Build a whole run in ``folder`` (new or empty) and return its plan.

    ``encoder``: ONNX file and card, for a scenario that has one.
    Raises: EncoderInvalidError, OutputExistsError, ScenarioInvalidError, NothingUsableError, and what keys, ingest,
    plan and approval raise.
    """
    watcher = watcher or Watcher()
    names = scenario.site_names
    folder.path.mkdir(parents=True, exist_ok=True)
    if not any(folder.path.iterdir()):  # what somebody else put there must never be taken for ours
        write_json(folder.building, {"scenario": scenario.name})
    card = None if encoder is None else _take_encoder(folder, *encoder)
    words = "drawing scans" if scenario.hospitals.source == "phantoms" else "importing scans"
    watcher.step(words, planned_files(scenario, archive))
    made = make_hospitals(folder.hospitals, scenario, archive, watcher.reached)
    shutil.copyfile(scenario_file, folder.scenario)

    watcher.step("reading scans into encrypted caches", sum(hospital.files for hospital in made))
    settings = settings_for(scenario.study.task, scenario.study.image)
    keys = {name: _new_site(SiteFolder(folder.site(name))) for name in names}
    counts, done = {}, 0
    for name, hospital in zip(names, made, strict=True):
        report = _ingest(folder, name, settings, workers=max(1, scenario.running.workers))
        counts[name] = (declared(report.labelled_patients), declared(report.patients - report.labelled_patients))
        done += hospital.files
        watcher.reached(done)

    watcher.step("signing and approving the plan", len(names))
    plan = _agree(folder, scenario, keys, counts, watcher, card=card)
    if card is not None:
        _compute_features(folder, plan, scenario, watcher)
    write_json(folder.ready, {"plan": plan.digest(), "sites": list(keys), "seed": scenario.seed})
    folder.building.unlink(missing_ok=True)
    return plan


def build_bare_run(folder: RunFolder, scenario: Scenario, counts: Mapping[str, tuple[int, int]]) -> StudyPlan:
    """Build a run without scans, for work that is made up (benchmarks, tests); ``counts``: what each site declares.

    Raises: as ``build_run``.
    """
    keys = {name: _new_site(SiteFolder(folder.site(name))) for name in sorted(counts)}
    plan = _agree(folder, scenario, keys, counts, Watcher())
    write_json(folder.ready, {"plan": plan.digest(), "sites": list(keys), "seed": scenario.seed})
    return plan


def _agree(
    folder: RunFolder,
    scenario: Scenario,
    keys: Mapping[str, Ed25519PrivateKey],
    counts: Mapping[str, tuple[int, int]],
    watcher: Watcher,
    *,
    card: EncoderCard | None = None,
) -> StudyPlan:
    """Steps 4 to 6."""
    plan = _new_study(folder, scenario, keys, counts, card)
    for number, name in enumerate(keys, start=1):
        _approve(folder, name, plan)
        watcher.reached(number)
    return plan


def _take_encoder(folder: RunFolder, file: Path, card_file: Path) -> EncoderCard:
    """Check the encoder, as a hospital does, and keep it for all hospitals of the run."""
    card = read_card(card_file)
    EncoderShelf(folder.encoders).add(file, card, limit_bytes=LARGEST_ENCODER_BYTES)
    return card


def _compute_features(folder: RunFolder, plan: StudyPlan, scenario: Scenario, watcher: Watcher) -> None:
    """Step 7, some hospitals at a time; then the test images."""
    sites = [SiteFolder(folder.site(site.name)) for site in plan.sites]
    counts = [count_features(site, plan) for site in sites]
    watcher.step("computing features", sum(count.missing for count in counts if count))
    done = dict.fromkeys(sites, 0)

    def computed(site: SiteFolder) -> None:
        def told(scans: int, _of: int) -> None:
            done[site] = scans
            watcher.reached(sum(done.values()))

        compute_features(site, plan, told)

    with ThreadPoolExecutor(max(1, scenario.running.workers)) as threads:
        list(threads.map(computed, sites))
    compute_test_features(folder)


def _new_site(folder: SiteFolder) -> Ed25519PrivateKey:
    folder.path.mkdir(mode=0o700, parents=True)
    key = create_signing_key(folder.key)
    write_public_key(folder.path / "site.pub", key.public_key())
    create_secret_file(folder.secret)
    Ledger.create(folder.ledger).close()
    return key


def _ingest(folder: RunFolder, name: str, settings: IngestSettings, *, workers: int) -> IngestReport:
    site, hospital = SiteFolder(folder.site(name)), folder.hospitals / name
    report = ingest(
        hospital / "scans",
        site.cache,
        settings=settings,
        secret=read_secret_file(site.secret),
        labels=hospital / "labels.csv",
        workers=workers,
    )
    if not report.is_usable:
        codes = ", ".join(f"{code.value} {count}" for code, count in report.rejected.most_common(3))
        raise NothingUsableError(f"{name}: no scan could be used ({codes}); do modalities and image fit the hospitals?")
    return report


def _new_study(
    folder: RunFolder,
    scenario: Scenario,
    keys: Mapping[str, Ed25519PrivateKey],
    counts: Mapping[str, tuple[int, int]],
    card: EncoderCard | None,
) -> StudyPlan:
    """Make the coordinator's keys, the signed roster and the signed plan."""
    folder.study.path.mkdir(mode=0o700)
    coordinator = create_signing_key(folder.coordinator_key)
    order_key = create_signing_key(folder.study.order_key).public_key()
    sites = {name: key.public_key() for name, key in keys.items()}
    roster = Roster(federation=scenario.name, epoch=1, coordinator=coordinator.public_key(), sites=sites)
    write_new(folder.study.roster, signed_roster(roster, coordinator))
    order_words = encode_base64(public_bytes(order_key))
    plan = build_plan(scenario, counts, roster_digest=roster.digest(), order_key=order_words, card=card)
    write_new(folder.study.plan, plan_toml(plan).encode())
    plan = read_plan(folder.study.plan)
    sign_plan(plan, folder.study.plan, read_signing_key(folder.coordinator_key))
    return plan


def _approve(folder: RunFolder, name: str, plan: StudyPlan) -> None:
    """Do what a hospital's staff does: install the roster, confirm the others, write the policy, approve."""
    site = SiteFolder(folder.site(name))
    shutil.copyfile(folder.study.roster, site.roster)
    write_new(site.policy, site_policy(plan).encode())
    incoming = site.path / "study.toml"
    shutil.copyfile(folder.study.plan, incoming)
    shutil.copyfile(signature_path(folder.study.plan), signature_path(incoming))
    roster = read_roster(site.roster)
    for other, heard in roster.fingerprints().items():
        if other != name:
            confirm(site, other, heard, person=APPROVER)
    if folder.encoders.exists():
        shutil.copytree(folder.encoders, site.encoders, copy_function=shutil.copyfile)
    approve(site, incoming, approver=APPROVER)
    if site.cache.exists():
        Cache.open(site.cache, read_secret_file(site.secret)).freeze(plan.digest())


def site_policy(plan: StudyPlan) -> str:
    """Return the policy of a simulated site: it allows exactly this plan and nothing looser."""
    rules = plan.secure_aggregation
    bought = guarantee(plan)
    lines = ['format = "fedward-policy/1"', f"assumed_colluders = {rules.assumed_colluders}"]
    if bought is None:
        lines += [f"epsilon_ceiling = {MOST_EPSILON}", "allow_without_privacy = true"]
    else:
        promise = plan.privacy.epsilon or bought.epsilon
        lines += [f"epsilon_ceiling = {promise}", f"maximum_epsilon = {promise}", f"maximum_delta = {bought.delta}"]
    return "\n".join(lines) + "\n"

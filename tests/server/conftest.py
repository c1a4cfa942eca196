"""A small federation for tests of the server: real keys, roster, plan, sessions of sites, and Flower's Grid.

Only the training is made up: a site's vector is a fixed function of site and attempt (or round), so that a test can
say what the sum must be.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.consent.approval import CheckedPlan
from client.consent.policy import SitePolicyFile
from client.consent.session_policy import session_policy
from client.secagg.journal import SiteJournal
from client.secagg.session import SiteSession
from client.secagg.state import Contribution
from common.files import write_new
from common.flower.messages import (
    MESSAGE_TYPES,
    Hello,
    from_content,
    hello_answer,
    read_hello_question,
    to_content,
)
from common.plan.network import phase_layout, plan_network
from common.plan.plan import StudyPlan
from common.plan.reading import parse_plan
from common.plan.schedule import count_layout, is_evaluated, version_before
from common.plan.shapes_here import shapes_here
from common.plan.signing import sign_plan
from common.privacy.metrics import UNITS_PER_PATIENT
from common.secagg.stages import Kind
from common.trust.canonical import encode_base64
from common.trust.identity import create_signing_key, public_bytes
from common.trust.provenance import code_digest
from common.trust.roster import Roster, signed_roster
from server.app import run_study
from server.attempts.retries import RetryRules, RunSettings
from server.attempts.run_options import RunOptions
from server.drafting.plan_text import plan_toml
from server.study.events import LoggedEvents, RunEnd
from simulation.runtime.faults import Fault
from simulation.runtime.loopback import LoopbackGrid

LARGEST_MODEL = 1 << 20
QUICK = RunSettings(
    cohort_wait_s=0.2, gather_s=0.0, result_timeout_s=5.0, retries=RetryRules(first_wait_s=0.0, most_in_row=5)
)


def small_plan_document(names: list[str], *, noise: str = "distributed") -> dict[str, Any]:
    """A plan of two short phases over a network as small as there is; epsilon is not checked when a server opens it."""
    size = len(names)
    phase = {
        "rounds": 2,
        "maximum_attempts": 12,
        "method": "supervised",
        "labelled_sampling_rate": 0.5,
        "noise_multiplier": 0.0 if noise == "none" else 2.0,
        "layout_hash": "0" * 64,
    }
    document: dict[str, Any] = {
        "format": "fedward-plan/1",
        "study": {"name": "small", "title": "A small study", "roster_digest": "0" * 64, "order_key": "A" * 43 + "="},
        "task": {"kind": "classification", "classes": ["no", "yes"], "modalities": ["CR"], "dimensions": 2},
        "image": {"size_px": [8, 8], "intensity": "percentiles"},
        "network": {"name": "small_cnn", "width": 4},
        "privacy": {"noise": noise},
        "secure_aggregation": {
            "cohort_size": size,
            "threshold": (size + 1) // 2 + 1,
            "minimum_survivors": 3,
            "coordinate_range": 4.0,
        },
        "evaluation": {"every_rounds": 2, "score_bins": 8},
        "aggregation": {"learning_rate": 0.5, "average_decay": 0.5},
        "timing": {"training_timeout_s": 5.0, "stage_timeout_s": 5.0},
        "sites": [{"name": name, "labelled_patients": 40, "unlabelled_patients": 0} for name in names],
        "phases": [
            phase | {"name": "teacher", "trainable": "head"},
            phase | {"name": "student", "trainable": "all"},
        ],
    }
    if noise != "none":
        document["privacy"] |= {"epsilon": 8.0, "delta": 1e-4}
    return document


@dataclass
class SmallWork:
    """Made-up training: integers (or differences of weights) and counts that depend on site, phase and ``key`` only.

    ``key(order)``: the attempt, or the round where the same vector may come again (local noise).
    """

    number: int
    plan: StudyPlan
    key: Callable[[Any], int]
    models: list[tuple[int, int, bytes]] = field(default_factory=list)

    def vector(self, phase: int, key: int, length: int) -> np.ndarray:
        generator = np.random.default_rng([self.number, phase, key])
        if self.plan.privacy.noise == "local":
            return (generator.normal(size=length) / 16).astype(np.float32)
        return generator.integers(-(1 << 20), 1 << 20, length, dtype=np.int32)

    def counts(self, version: int) -> np.ndarray:
        """Ten patients of each class; the higher the version, the better they are told apart."""
        layout = count_layout(self.plan)
        counts = np.zeros(layout.length, np.int64)
        tables = layout.tables(counts)
        right = min(10, 6 + version)
        tables["confusion"][:] = [[right, 10 - right], [10 - right, right]]
        tables["histograms"][0, 0, [1, 6]] = [right, 10 - right]
        tables["histograms"][0, 1, [1, 6]] = [10 - right, right]
        tables["confidence"][:, 6] = [20 - 2 * right, 2 * right]
        return counts * UNITS_PER_PATIENT

    def contribute(self, order: Any, model: memoryview, until_unix_s: float) -> Contribution:
        self.models.append((order.phase, order.round_number, bytes(model)))
        version = version_before(self.plan, order.phase, order.round_number)
        due = is_evaluated(self.plan, version)
        meta = self.counts(version) if due else np.zeros(order.meta_words, np.int64)
        return Contribution(meta.view(np.uint64), self.vector(order.phase, self.key(order), order.body_length))

    def spend(self, order: Any) -> None:
        pass

    def ledger_head(self, order: Any) -> bytes:
        return bytes(32)

    def abandon(self, order: Any) -> None:
        pass


@dataclass
class SmallFederation:
    """A study folder and its sites, in this process. ``keys``: identities; ``work``, ``sessions`` by site name."""

    path: Path
    plan: StudyPlan
    roster: Roster
    keys: dict[str, Ed25519PrivateKey]
    work: dict[str, SmallWork] = field(default_factory=dict)
    sessions: dict[str, SiteSession] = field(default_factory=dict)

    @property
    def study(self) -> Path:
        return self.path / "study"

    @property
    def names(self) -> list[str]:
        return sorted(self.keys)

    def start_sites(self) -> None:
        """Start each site anew, as after a restart: its journal is on disk, its session is gone."""
        for number, name in enumerate(self.names):
            policy = SitePolicyFile(format="fedward-policy/1", allow_without_privacy=True)
            everybody = frozenset(self.roster.sites)  # each hospital's staff called all the others
            checked = CheckedPlan(self.plan, self.roster, name, None, shapes_here(self.plan), everybody)
            rules = session_policy(checked, policy)
            by_round = self.plan.privacy.noise == "local"
            key = (lambda order: order.round_number) if by_round else (lambda order: order.attempt)
            self.work[name] = SmallWork(number, self.plan, key)
            folder = self.path / name
            folder.mkdir(exist_ok=True)
            journal = SiteJournal(folder / "journal.sqlite")
            self.sessions[name] = SiteSession(
                policy=rules, identity=self.keys[name], journal=journal, work=self.work[name]
            )

    def grid(self, *faults: Fault, workers: int = 0, hello: dict[str, str] | None = None) -> LoopbackGrid:
        """``hello``: what a site calls itself, where that is not its name."""
        folders = {name: self.path / name for name in self.names}
        return LoopbackGrid(client_app(self.sessions, hello or {}), folders, workers=workers, faults=faults)

    def run(self, *faults: Fault, grid: LoopbackGrid | None = None, **options: Any) -> RunEnd:
        """Run the study to its end over a grid with these faults."""
        settings = RunOptions(**({"settings": QUICK, "events": LoggedEvents()} | options))
        return run_study(grid or self.grid(*faults), self.study, settings)


def client_app(sessions: dict[str, SiteSession], hello: dict[str, str]) -> ClientApp:
    app = ClientApp()

    @app.query("hello")
    def _hello(message: Message, context: Context) -> Message:
        name = Path(str(context.node_config["site-folder"])).name
        nonce = read_hello_question(message.content)
        return Message(hello_answer(Hello(hello.get(name, name), code_digest()), nonce), reply_to=message)

    def answer(message: Message, context: Context) -> Message:
        received = from_content(message.content, max_payload_bytes=LARGEST_MODEL)
        session = sessions[Path(str(context.node_config["site-folder"])).name]
        return Message(
            to_content(session.receive(received.message, received.payload), received.nonce), reply_to=message
        )

    for kind, message_type in MESSAGE_TYPES.items():
        register = app.train if kind is Kind.ORDER else app.query
        register(message_type.partition(".")[2])(answer)
    return app


def build_federation(path: Path, document: dict[str, Any]) -> SmallFederation:
    """Make keys, roster, plan and study folder as a coordinator would, and start the sites."""
    names = [site["name"] for site in document["sites"]]
    keys = {name: Ed25519PrivateKey.generate() for name in names}
    study = path / "study"
    study.mkdir(parents=True)
    coordinator = create_signing_key(path / "coordinator.key")
    order_key = create_signing_key(study / "orders.key")
    sites = {name: key.public_key() for name, key in keys.items()}
    roster = Roster(federation="lungs", epoch=1, coordinator=coordinator.public_key(), sites=sites)
    write_new(study / "roster.json", signed_roster(roster, coordinator))
    document["study"] |= {
        "roster_digest": roster.digest(),
        "order_key": encode_base64(public_bytes(order_key.public_key())),
    }
    draft = parse_plan(document, "test")
    network = plan_network(draft)
    for number, phase in enumerate(draft.phases):
        document["phases"][number]["layout_hash"] = phase_layout(network, phase).digest
    plan = parse_plan(document, "test")
    (study / "study.toml").write_text(plan_toml(plan))
    sign_plan(plan, study / "study.toml", coordinator)
    federation = SmallFederation(path, plan, roster, keys)
    federation.start_sites()
    return federation


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one: every fsync is done, none waits for a disk that others use."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def make_federation(quick_folder: Path) -> Callable[..., SmallFederation]:
    """``make_federation(sites=4, noise=..., **sections)`` builds a federation; sections replace parts of the plan.

    ``patients``: declared by each site. ``short``: one phase only, with these changes. ``document``: instead of all.
    """

    def make(
        sites: int = 4,
        *,
        noise: str = "distributed",
        patients: int = 40,
        short: dict[str, Any] | None = None,
        document: dict[str, Any] | None = None,
        **sections: dict[str, Any],
    ) -> SmallFederation:
        if document:
            return build_federation(quick_folder / "federation", document)
        names = [f"site-{number}" for number in range(1, sites + 1)]
        document = small_plan_document(names, noise=noise)
        for site in document["sites"]:
            site["labelled_patients"] = patients
        if short:
            document["phases"] = [document["phases"][1] | short]
        for name, values in sections.items():
            document[name] = document.get(name, {}) | values
        return build_federation(quick_folder / "federation", document)

    return make


@pytest.fixture
def small_document() -> Callable[..., dict[str, Any]]:
    """``small_document(names, noise=...)``: the small plan as plain values, layout hashes not filled in."""
    return lambda names, noise: small_plan_document(list(names), noise=noise)

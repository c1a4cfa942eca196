"""The story of a study, from an empty folder to a model at every hospital, by the commands that people type.

    draw scans > set up > enrol > roster, kit > plan > read scans > confirm > approve > start > rounds > model > proof

Every step is a method of ``Story``, in this order. What a command prints with ``--json`` is all that a step knows.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from common.networks.parameters import layout
from common.networks.registry import build_network
from simulation.rehearsal.background import Background
from simulation.rehearsal.books import check_books
from simulation.rehearsal.cast import FEDERATION, STUDY, Cast
from simulation.rehearsal.console import ask, type_in
from simulation.rehearsal.killing import Kill, kill_one_after_the_other
from simulation.rehearsal.memory import PeakMemory
from simulation.rehearsal.settings_files import change

EPSILON: Final = 8.0
PATIENTS: Final = 24
SIZE_PX: Final = 32
START_TIMEOUT_S: Final = 120.0
ROUND_TIMEOUT_S: Final = 120.0
_AS_ROOT: Final = ("--allow-root",) if os.geteuid() == 0 else ()  # whoever rehearses as root knows
SPARE_ATTEMPTS: Final = 20  # that killed processes may cost


@dataclass
class Story:
    """A rehearsal under way. ``told``: gets each step's words before it begins."""

    cast: Cast
    rounds: int
    background: Background
    kills: bool = False
    width: int = 0
    poll_interval_s: float = 0.2
    killed: list[Kill] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    heard: dict[str, str] = field(default_factory=dict)  # each hospital's fingerprint, as it read it out

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Return the steps in order, each with its words."""
        return [
            ("draw scans", self.draw_scans),
            ("set up the coordinator", self.set_up_coordinator),
            ("set up the hospitals", self.set_up_hospitals),
            ("enrol and admit", self.enrol),
            ("sign the roster, hand out the kit", self.hand_out_kit),
            ("draft the plan", self.draft_plan),
            ("read scans", self.read_scans),
            ("sign the plan", self.sign_plan),
            ("confirm each other", self.confirm_hospitals),
            ("approve the plan", self.approve_plan),
            ("start the coordinator", self.start_coordinator),
            ("check the hospitals", self.check_hospitals),
            ("start the hospitals", self.start_hospitals),
            ("run the rounds", self.run_rounds),
            ("export the model", self.export_model),
            ("receive and score the model", self.receive_model),
            ("verify what was recorded", self.verify_records),
            ("compare the books", self.compare_books),
        ]

    def draw_scans(self) -> None:
        """Every hospital gets generated radiographs in DICOM, half of the patients with a diagnosis."""
        type_in(
            "fedward-sim", "phantoms", self.cast.scans, "--sites", len(self.cast.sites), "--patients", PATIENTS,
            "--size-px", SIZE_PX, "--labelled", "0.5", "--test-patients", 0,
        )  # fmt: skip
        self.cast.post.mkdir()

    def set_up_coordinator(self) -> None:
        """Keys, certificates and settings of the coordinator."""
        ports = self.cast.ports
        type_in(
            "fedward-server", "init", self.cast.coordinator, "--federation", FEDERATION,
            "--address", f"localhost:{ports.gateway}", "--superlink-port", ports.superlink,
            "--gateway-port", ports.gateway, "--status-port", 0,
        )  # fmt: skip

    def set_up_hospitals(self) -> None:
        """Keys, settings and a policy at each hospital; ports and polling as many sites on one machine need them."""
        for name, port in zip(self.cast.sites, self.cast.ports.runtimes, strict=True):
            folder = self.cast.site(name)
            type_in("fedward-site", "init", name, "--site-folder", folder)
            settings: dict[str, object] = {"runtime_port": port, "poll_interval_s": self.poll_interval_s}
            change(folder / "site.toml", settings)

    def enrol(self) -> None:
        """Each hospital's public file goes to the coordinator, who compares the fingerprint heard over the phone."""
        for name in self.cast.sites:
            enrolment = self.cast.post / f"{name}.json"
            spoken = ask("fedward-site", "enrol", "--site-folder", self.cast.site(name), "--output", enrolment)
            self.heard[name] = str(spoken["fingerprint"])
            type_in(
                "fedward-server", "admit", enrolment, "--fingerprint", spoken["fingerprint"],
                "--folder", self.cast.coordinator,
            )  # fmt: skip

    def hand_out_kit(self) -> None:
        """The roster is signed and travels in the kit; each hospital compares the coordinator's fingerprint."""
        kit = self.cast.post / "kit.json"
        type_in("fedward-server", "roster", "sign", "--folder", self.cast.coordinator)
        spoken = ask("fedward-server", "kit", "--folder", self.cast.coordinator, "--output", kit)
        for name in self.cast.sites:
            type_in(
                "fedward-site", "join", kit, "--site-folder", self.cast.site(name),
                "--fingerprint", spoken["fingerprint"],
            )  # fmt: skip

    def draft_plan(self) -> None:
        """The coordinator's plan: small pictures and few rounds; everything else as `study new` writes it."""
        counts = f"{PATIENTS // 2},{PATIENTS // 2}"
        declared = [word for name in self.cast.sites for word in ("--patients", f"{name}={counts}")]
        attempts = self.rounds + (SPARE_ATTEMPTS if self.kills else 0)
        type_in(
            "fedward-server",
            "study",
            "new",
            STUDY,
            *declared,
            "--recipe",
            "plain",
            "--rounds",
            attempts,
            *self._federation,
        )
        changes = {"size_px": [SIZE_PX, SIZE_PX], "every_rounds": 1, "classes": ["normal", "consolidation"]}
        change(self.cast.plan, changes | {"rounds": self.rounds})
        if self.width:
            self._enlarge()

    def read_scans(self) -> None:
        """Every hospital reads its scans into its encrypted cache, as the draft's task and image ask."""
        for name in self.cast.sites:
            scans = self.cast.scans / name
            type_in(
                "fedward-site", "ingest", scans / "scans", "--labels", scans / "labels.csv", "--plan", self.cast.plan,
                *self._site(name),
            )  # fmt: skip

    def sign_plan(self) -> None:
        """From here on the plan is fixed. So few patients teach nothing, and nobody should: it is a rehearsal."""
        why = ("--anyway", "--reason", "a rehearsal on drawn scans")
        type_in("fedward-server", "study", "sign", STUDY, *why, *self._federation)

    def approve_plan(self) -> None:
        """A named person of each hospital reads the plan and says yes."""
        for name in self.cast.sites:
            type_in(
                "fedward-site", "approve", self.cast.plan, "--approver", f"Data protection officer of {name}",
                "--yes", *self._site(name),
            )  # fmt: skip

    def confirm_hospitals(self) -> None:
        """Each hospital calls every other one and writes down that it is real; only such hospitals count in a round."""
        for name in self.cast.sites:
            for other in self.cast.sites:
                if other != name:
                    type_in(
                        "fedward-site", "confirm", other, "--fingerprint", self.heard[other],
                        "--by", f"Data protection officer of {name}", *self._site(name),
                    )  # fmt: skip

    def check_hospitals(self) -> None:
        """Every hospital's doctor finds nothing that would stop it."""
        for name in self.cast.sites:
            type_in("fedward-site", "check", *self._site(name))

    def start_coordinator(self) -> None:
        """SuperLink, executor, gateway."""
        self.background.start("coordinator", "fedward-server", "up", *_AS_ROOT, *self._federation)
        self.background.wait_until(self._gateway_answers, what="the gateway answers", timeout_s=START_TIMEOUT_S)

    def start_hospitals(self) -> None:
        """SuperNode and agent of every hospital."""
        for name in self.cast.sites:
            self.background.start(name, "fedward-site", "up", *_AS_ROOT, *self._site(name))
        self.background.wait_until(self._all_agents_run, what="every agent runs", timeout_s=START_TIMEOUT_S)

    def run_rounds(self) -> None:
        """All rounds of the study, and the closing one that scores the final model."""
        if self.kills:
            type_in("fedward-server", "run", STUDY, *self._federation)
            self.killed = kill_one_after_the_other(self.cast, self.background.require_running)
        patience_s = START_TIMEOUT_S + ROUND_TIMEOUT_S * (self.rounds + 1)
        with PeakMemory(self.cast) as memory:
            type_in("fedward-server", "run", STUDY, "--wait", *self._federation, timeout_s=patience_s)
            memory.look()
        self.facts["peak_mb"], self.facts["own_mb"] = memory.peak_mb, memory.own_mb

    def export_model(self) -> None:
        """The model as files, with a signed card; computed again from the stored sums before."""
        self.facts["model"] = ask("fedward-server", "export", STUDY, "--output", self.cast.release, *self._federation)

    def receive_model(self) -> None:
        """Every hospital checks signature and digest, and scores the model on patients it kept back."""
        for name in self.cast.sites:
            type_in("fedward-site", "model", "receive", self.cast.release, *self._site(name))
            type_in("fedward-site", "model", "score", *self._site(name))

    def verify_records(self) -> None:
        """Audit log, outbox and ledger of every hospital verify, each by its own command."""
        for name in self.cast.sites:
            type_in("fedward-site", "audit", "--verify", *self._site(name))
            type_in("fedward-site", "outbox", "--verify", *self._site(name))
            type_in("fedward-site", "ledger", "--verify", *self._site(name))

    def compare_books(self) -> None:
        """Journal, sums, checkpoint and ledgers agree."""
        self.facts["books"] = check_books(self.cast)

    def _enlarge(self) -> None:
        """Let the plan train a residual network of ``width`` instead."""
        network = build_network("residual", dimensions=2, classes=2, width=self.width)
        text = self.cast.plan.read_text().replace('name = "small_cnn"', 'name = "residual"')
        self.cast.plan.write_text(text)
        change(self.cast.plan, {"width": self.width, "layout_hash": layout(network).digest})

    @property
    def _federation(self) -> tuple[object, ...]:
        return ("--folder", self.cast.coordinator)

    def _site(self, name: str) -> tuple[object, ...]:
        return ("--site-folder", self.cast.site(name))

    def _gateway_answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.cast.ports.gateway), timeout=1.0):
            return True

    def _all_agents_run(self) -> bool:
        states = [ask("fedward-site", "status", *self._site(name)) for name in self.cast.sites]
        return all(state.get("agent") == "running" for state in states)

"""Where a hospital's installation keeps its things: one folder, every name in one place."""

from dataclasses import dataclass
from pathlib import Path

from client.installation.errors import NotEnrolledError


@dataclass(frozen=True)
class SiteFolder:
    """The site folder (mode 0700). Scans are never in it, only the encrypted cache."""

    path: Path

    @property
    def key(self) -> Path:
        """Ed25519 secret key (PEM, 0600): who this site is."""
        return self.path / "site.key"

    @property
    def secret(self) -> Path:
        """Site secret (32 bytes, 0600): keys pseudonyms and the cache."""
        return self.path / "site.secret"

    @property
    def roster(self) -> Path:
        """The signed roster, as the staff installed it."""
        return self.path / "roster.json"

    @property
    def policy(self) -> Path:
        """What this site allows (TOML)."""
        return self.path / "policy.toml"

    @property
    def cache(self) -> Path:
        """The first cache of encrypted training records; which is a plan's: ``client.dicom.caches``."""
        return self.path / "cache"

    @property
    def caches(self) -> Path:
        """Caches of studies that prepare images in other ways than the first."""
        return self.path / "caches"

    @property
    def config(self) -> Path:
        """The site's settings (TOML): folders, ports, device. Nothing in it changes a guarantee."""
        return self.path / "site.toml"

    @property
    def node_key(self) -> Path:
        """Key (ECDSA P-384, OpenSSH, 0600) with which the SuperNode shows itself; the public half ends in ``.pub``."""
        return self.path / "node.key"

    @property
    def runtime_secret(self) -> Path:
        """Secret (0600) between SuperNode and agent, on loopback."""
        return self.path / "runtime.secret"

    @property
    def kit(self) -> Path:
        """What the coordinator gave this site: address, certificate, roster; signed."""
        return self.path / "kit.json"

    @property
    def control_socket(self) -> Path:
        """Unix socket (0600) of the agent."""
        return self.path / "agent.sock"

    @property
    def state(self) -> Path:
        """What running processes keep: process ids, locks, the task in work. Empty when nothing runs."""
        return self.path / "state"

    @property
    def logs(self) -> Path:
        """Log files of the processes."""
        return self.path / "logs"

    @property
    def flower(self) -> Path:
        """Home of the SuperNode."""
        return self.path / "flower"

    @property
    def models(self) -> Path:
        """Final models received, one folder for each digest."""
        return self.path / "models"

    def teacher(self, digest: str) -> Path:
        """Return the file of the teacher of a plan's present phase: a released model."""
        return self.path / "teachers" / f"{digest}.safetensors"

    def own_scores(self, digest: str) -> Path:
        """Return the file of a plan's models' scores on this site's own held-out patients: for staff alone."""
        return self.path / "teachers" / f"{digest}.own-scores.jsonl"

    def public_images(self, digest: str) -> Path:
        """Return the file of public images that a plan names by SHA-256."""
        return self.path / "public" / f"{digest}.npz"

    @property
    def figures(self) -> Path:
        """The accountant's figures that this site computed before (``common.plan.figure_file``); may be deleted."""
        return self.path / "figures"

    @property
    def encoders(self) -> Path:
        """Public encoders: ``DIGEST.onnx`` and its card ``DIGEST.toml``, by the SHA-256 of the ONNX file."""
        return self.path / "encoders"

    def encoder(self, digest: str) -> Path:
        """Return the ONNX file of an encoder, by its SHA-256; its card has the suffix ``.toml``."""
        return self.encoders / f"{digest}.onnx"

    @property
    def features(self) -> Path:
        """What encoders made of scans (sealed, ``client.features.store``); may be deleted, and is computed again."""
        return self.path / "features"

    @property
    def engines(self) -> Path:
        """What was found out about engines here (``client.private_gradients.verdict_folder``); may be deleted."""
        return self.path / "engines"

    @property
    def ledger(self) -> Path:
        """The privacy ledger (SQLite)."""
        return self.path / "ledger.sqlite"

    @property
    def journal(self) -> Path:
        """Attempts and released models of secure aggregation (SQLite)."""
        return self.path / "journal.sqlite"

    @property
    def outbox(self) -> Path:
        """What left the building (hash chain)."""
        return self.path / "outbox.chain"

    @property
    def audit(self) -> Path:
        """Who approved, paused, resumed (hash chain)."""
        return self.path / "audit.chain"

    @property
    def paused(self) -> Path:
        """While this file exists the site takes no order."""
        return self.path / "paused"

    @property
    def plans(self) -> Path:
        """Approved plans, one folder for each digest."""
        return self.path / "plans"

    def withdrawn_plan(self, digest: str) -> Path:
        """Return the file of a plan whose approval was taken back."""
        return self.withdrawn_plans / digest / "plan.toml"

    def plan(self, digest: str) -> Path:
        """Return the file of an approved plan."""
        return self.plans / digest / "plan.toml"

    @property
    def withdrawn_plans(self) -> Path:
        """Plans whose approval was taken back: what they promised is needed when a ledger is lost."""
        return self.path / "withdrawn_plans"

    @property
    def studies(self) -> Path:
        """Who is in which stratum of each study that began (sealed): outlives the cache."""
        return self.path / "studies"

    @property
    def opted_out(self) -> Path:
        """Patients who opted out (sealed): outlives the cache."""
        return self.path / "opted_out.sealed"

    def require(self) -> None:
        """Raise NotEnrolledError, naming what is missing, unless the folder holds identity, roster and policy."""
        missing = [file.name for file in (self.key, self.secret, self.roster, self.policy) if not file.exists()]
        if missing:
            raise NotEnrolledError(f"{self.path}: no {', '.join(missing)} here; set the site up first")

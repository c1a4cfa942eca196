"""Where a hospital's installation keeps its things: one folder, every name in one place."""

from dataclasses import dataclass
from pathlib import Path

from common.errors import NotEnrolledError


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
        """The encrypted training records."""
        return self.path / "cache"

    def public_images(self, digest: str) -> Path:
        """Return the file of public images that a plan names by SHA-256."""
        return self.path / "public" / f"{digest}.npz"

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

    def plan(self, digest: str) -> Path:
        """Return the file of an approved plan."""
        return self.plans / digest / "plan.toml"

    def require(self) -> None:
        """Raise NotEnrolledError, naming what is missing, unless the folder holds identity, roster and policy."""
        missing = [file.name for file in (self.key, self.secret, self.roster, self.policy) if not file.exists()]
        if missing:
            raise NotEnrolledError(f"{self.path}: no {', '.join(missing)} here; set the site up first")

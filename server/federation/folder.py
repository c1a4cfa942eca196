"""The coordinator's federation folder: every name in one place.

```
coordinator.toml                    settings (``server.federation.config``)
coordinator.key (0600), .pub        signs plans, rosters, kits and model cards
tls/                                certificate authority and the gateway's certificate (``certificates``)
superexec.secret (0600)             between SuperLink and executor, on loopback
sites/NAME.json                     enrolments that were admitted
shut-out/                           node keys of sites that were dismissed or have new ones
roster.json, rosters/epoch-N.json   the current signed roster, and all there were
studies/NAME/                       one study each (``server.study.folder``); the file ``wanted`` in it: keep it running
encoders/                           public encoders with their cards (``common.encoders.shelf``), and which are offered
superlink/                          database and home of Flower; everything the server holds, so on an encrypted disk
state/, logs/                       process ids and log files of ``fedward-server up``
audit.chain                         who was admitted, what was signed, started, stopped (hash chain)
```
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.trust.roster import NAME
from server.federation.errors import FederationInvalidError

PLAN = "study.toml"  # as ``server.study.folder`` names it; that module loads torch, this one must stay light
STUDY_NAME: Final = re.compile(r"[a-z][a-z0-9-]{2,62}")  # as a plan has it (``common.plan.plan.Study``)


@dataclass(frozen=True)
class FederationFolder:
    """Names of the files; the folder has mode 0700."""

    path: Path

    @property
    def config(self) -> Path:
        """Settings (TOML)."""
        return self.path / "coordinator.toml"

    @property
    def key(self) -> Path:
        """Ed25519 secret key (PEM, 0600): who the coordinator is."""
        return self.path / "coordinator.key"

    @property
    def public_key(self) -> Path:
        """Its public half."""
        return self.path / "coordinator.pub"

    @property
    def tls(self) -> Path:
        """Certificates."""
        return self.path / "tls"

    @property
    def ca_certificate(self) -> Path:
        """Certificate authority that sites trust for the gateway (PEM)."""
        return self.tls / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """Its secret key (0600); absent where the gateway's certificate comes from elsewhere."""
        return self.tls / "ca.key"

    @property
    def server_certificate(self) -> Path:
        """The gateway's certificate (PEM, with intermediates)."""
        return self.tls / "server.crt"

    @property
    def server_key(self) -> Path:
        """Its secret key (0600)."""
        return self.tls / "server.key"

    @property
    def executor_secret(self) -> Path:
        """Secret (0600) with which the executor shows itself to the SuperLink."""
        return self.path / "superexec.secret"

    @property
    def enrolments(self) -> Path:
        """Enrolments that were admitted, one file for each site."""
        return self.path / "sites"

    def enrolment(self, site: str) -> Path:
        """Return the file of an admitted site. Raises: FederationInvalidError for a name that is none."""
        return self.enrolments / f"{_name(site)}.json"

    @property
    def shut_out(self) -> Path:
        """Node keys that must not come back, one file each."""
        return self.path / "shut-out"

    @property
    def roster(self) -> Path:
        """The current signed roster."""
        return self.path / "roster.json"

    @property
    def rosters(self) -> Path:
        """Every signed roster."""
        return self.path / "rosters"

    @property
    def studies(self) -> Path:
        """The studies."""
        return self.path / "studies"

    def study(self, name: str) -> Path:
        """Return the folder of a study (``server.study.folder``).

        Raises: FederationInvalidError for a name that is none, such as a path.
        """
        return self.studies / _study_name(name)

    def existing_study(self, name: str) -> Path:
        """Return the folder of a study that has a plan. Raises: FederationInvalidError."""
        folder = self.study(name)
        if not (folder / PLAN).is_file():
            raise FederationInvalidError(f"{self.path}: no study {name}; make it with `fedward-server study new`")
        return folder

    def study_names(self) -> list[str]:
        """Return the names of the studies that have a plan, sorted."""
        plans = self.studies.glob(f"*/{PLAN}") if self.studies.is_dir() else ()
        return sorted(plan.parent.name for plan in plans if STUDY_NAME.fullmatch(plan.parent.name))

    def wanted(self, study: str) -> Path:
        """Return the mark of a study that is to be kept running."""
        return self.study(study) / "wanted"

    @property
    def encoders(self) -> Path:
        """Public encoders: ``DIGEST.onnx`` and its card ``DIGEST.toml``, by the SHA-256 of the ONNX file."""
        return self.path / "encoders"

    @property
    def superlink(self) -> Path:
        """Home of Flower's processes."""
        return self.path / "superlink"

    @property
    def database(self) -> Path:
        """The SuperLink's database."""
        return self.superlink / "state.db"

    @property
    def state(self) -> Path:
        """Process ids, and what the executor wrote last."""
        return self.path / "state"

    @property
    def logs(self) -> Path:
        """Log files."""
        return self.path / "logs"

    @property
    def audit(self) -> Path:
        """What the coordinator did (hash chain)."""
        return self.path / "audit.chain"

    def require(self) -> None:
        """Raise FederationInvalidError, naming what is missing, unless ``fedward-server init`` was here."""
        missing = [file.name for file in (self.config, self.key, self.executor_secret) if not file.exists()]
        if missing:
            raise FederationInvalidError(
                f"{self.path}: no {', '.join(missing)} here; give --folder, or make one with `fedward-server init`"
            )


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise FederationInvalidError("a name has 2 to 63 lower-case letters, digits and hyphens, a letter first")
    return text


def _study_name(text: str) -> str:
    if not STUDY_NAME.fullmatch(text):
        raise FederationInvalidError(
            f"{text[:70]!r} is no name of a study: it has 3 to 63 lower-case letters, digits, hyphens, a letter first"
        )
    return text

"""The coordinator's study folder: every name in one place, and what must fit together before anything is sent.

```
study.toml, study.toml.sig   the signed plan
roster.json                  the signed roster
orders.key (0600)            signs the orders
journal.sqlite               what happened (``server.study.journal``)
checkpoints/                 states of the model (``server.model.checkpoint``)
sums/                        each opened sum (``server.model.sums``)
model/                       what was exported
```
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.plan.selection import check_selection
from common.plan.signing import verify_plan
from common.trust.canonical import decode_base64
from common.trust.errors import RosterInvalidError
from common.trust.identity import public_bytes, read_signing_key
from common.trust.roster import Roster, read_roster
from server.errors import StudyFolderInvalidError

if TYPE_CHECKING:  # 200 MB of PyTorch come with it
    from server.model.phase_facts import StudyNetwork


@dataclass(frozen=True)
class StudyFolder:
    """Names of the files. ``model`` holds what was exported."""

    path: Path

    @property
    def plan(self) -> Path:
        """The study plan; its signature lies beside it."""
        return self.path / "study.toml"

    @property
    def roster(self) -> Path:
        """The signed roster."""
        return self.path / "roster.json"

    @property
    def order_key(self) -> Path:
        """Secret key (0600) that signs the orders: the plan delegates this and nothing else to it."""
        return self.path / "orders.key"

    @property
    def journal(self) -> Path:
        """What happened (SQLite)."""
        return self.path / "journal.sqlite"

    @property
    def checkpoints(self) -> Path:
        """States of the model."""
        return self.path / "checkpoints"

    @property
    def sums(self) -> Path:
        """Each opened sum."""
        return self.path / "sums"

    @property
    def model(self) -> Path:
        """What was exported."""
        return self.path / "model"


@dataclass(frozen=True, eq=False)
class Study:
    """A study folder whose parts fit together, and what follows from its plan."""

    folder: StudyFolder
    plan: StudyPlan
    plan_digest: bytes
    roster: Roster
    network: "StudyNetwork"

    @property
    def identities(self) -> dict[str, bytes]:
        """Site -> Ed25519 public key, of the sites in the plan."""
        return {site.name: public_bytes(self.roster.sites[site.name]) for site in self.plan.sites}


def open_study(path: Path) -> Study:
    """Read plan and roster, and check that they belong together; makes the subfolders.

    Checked: what ``open_papers`` checks, then the network and its layouts.
    Raises: what ``open_papers`` raises; PlanInvalidError, NetworkUnsuitableError, WeightsInvalidError.
    """
    from server.model.phase_facts import study_network  # noqa: PLC0415 (200 MB of PyTorch come with it)

    plan, roster = open_papers(path)
    return Study(StudyFolder(path), plan, bytes.fromhex(plan.digest()), roster, study_network(plan))


def open_papers(path: Path) -> tuple[StudyPlan, Roster]:
    """Read plan and roster, and check that they belong together; makes the subfolders. PyTorch is not needed.

    Checked: (1) the plan and its thresholds, (2) the roster's signature, (3) the plan's signature by the roster's
    coordinator, (4) the plan names this roster, (5) every site of the plan is in it, (6) scores choose the model only
    where they mean something.
    Raises: what reading and signatures raise; StudyFolderInvalidError, RosterInvalidError.
    """
    folder = StudyFolder(path)
    if not folder.plan.exists():
        raise StudyFolderInvalidError(f"{path}: no {folder.plan.name} here; give the folder of a study")
    plan = read_plan(folder.plan)
    roster = read_roster(folder.roster)
    verify_plan(plan, folder.plan, roster.coordinator)
    if plan.study.roster_digest != roster.digest():
        raise StudyFolderInvalidError(
            f"{path}: the plan is made for roster {plan.study.roster_digest[:12]}…, here lies {roster.digest()[:12]}…"
        )
    strangers = [site.name for site in plan.sites if site.name not in roster.sites]
    if strangers:
        raise RosterInvalidError(f"{path}: not in the roster: {', '.join(strangers[:5])}; add them, or change the plan")
    if plan.aggregation.heeds_scores:
        check_selection(plan, str(folder.plan))
    for part in (folder.checkpoints, folder.sums, folder.model):
        part.mkdir(exist_ok=True)
    return plan, roster


def read_order_key(study: Study) -> Ed25519PrivateKey:
    """Read the key that signs orders, and check that it is the one the plan delegates.

    Raises: KeyExposedError, KeyInvalidError, FileUnreadableError; StudyFolderInvalidError for another key.
    """
    key = read_signing_key(study.folder.order_key)
    if public_bytes(key.public_key()) != decode_base64(study.plan.study.order_key):
        raise StudyFolderInvalidError(f"{study.folder.order_key}: not the key that the plan delegates for orders")
    return key


class StudyLock:
    """One server for a study folder: held as long as this process lives, gone with it (also after kill -9)."""

    def __init__(self, folder: StudyFolder) -> None:
        """Take the lock. Raises: StudyFolderInvalidError while another process has it."""
        self._descriptor = os.open(folder.path / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise StudyFolderInvalidError(f"{folder.path}: another process runs this study; stop it first") from None

    def release(self) -> None:
        """Let go."""
        os.close(self._descriptor)

"""Joining a federation: the coordinator's kit is checked, its fingerprint compared, its roster installed.

The first kit decides whom this site trusts as coordinator, so its fingerprint is compared over another channel. Later
kits must be of the same coordinator, and their roster never older than the one installed: an old roster could bring
back a hospital that left, or a key that was stolen.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.installation.audit_log import audit
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from common.files import read_bounded, replace_atomically
from common.trust.errors import KitInvalidError, RosterInvalidError
from common.trust.identity import public_bytes, read_signing_key, same_fingerprint
from common.trust.kit import MAX_KIT_BYTES, Kit, checked_kit, read_kit
from common.trust.roster import Roster, read_roster


@dataclass(frozen=True)
class Joined:
    """What ``join`` did with ``kit``. ``site``: this site's name in the roster, empty while the kit has none yet.

    ``others``: name -> fingerprint of the other hospitals, to be confirmed with each before a plan is approved.
    ``roster_changed``: plans approved under the former roster must be approved again.
    """

    kit: Kit
    site: str
    others: dict[str, str]
    epoch: int | None
    roster_changed: bool


def join(folder: SiteFolder, kit_file: Path, *, spoken: Callable[[], str]) -> Joined:
    """Keep a kit and install its roster.

    ``spoken`` is asked for the coordinator's fingerprint as heard from the coordinator; not for a later kit of the same
    one. Nothing is written unless everything holds.
    Raises: KitInvalidError (another fingerprint or coordinator), RosterInvalidError (older roster, or another one of
    the same epoch), NotEnrolledError (this site is not in the roster), KeyExposedError and what reading raises.
    """
    content = read_bounded(kit_file, MAX_KIT_BYTES)
    kit = checked_kit(content, kit_file)
    former = read_kit(folder.kit) if folder.kit.exists() else None
    if former is not None and public_bytes(former.coordinator) != public_bytes(kit.coordinator):
        raise KitInvalidError(
            f"this site belongs to the coordinator {former.fingerprint()}; the kit is of another one, "
            f"{kit.fingerprint()}. A site serves one coordinator: set up a second site folder for the other"
        )
    if former is None and not same_fingerprint(spoken(), kit.fingerprint()):
        raise KitInvalidError(
            "the kit is of a coordinator with another fingerprint than the one given; nothing was kept. Call the "
            "coordinator, have all six groups read out again and type what you hear: the kit may be forged"
        )
    site = own_name(folder, kit.roster) if kit.roster else ""
    changed = _is_newer(folder, kit.roster) if kit.roster else False
    if kit.roster:
        replace_atomically(folder.roster, kit.roster_file(), 0o600)
    replace_atomically(folder.kit, content, 0o600)
    _record(folder, kit)
    others = {} if kit.roster is None else {n: f for n, f in kit.roster.fingerprints().items() if n != site}
    return Joined(kit, site, others, kit.roster.epoch if kit.roster else None, changed)


def own_name(folder: SiteFolder, roster: Roster) -> str:
    """Return this site's name in a roster. Raises: NotEnrolledError where its key is not listed."""
    own = public_bytes(read_signing_key(folder.key).public_key())
    names = [name for name, key in roster.sites.items() if public_bytes(key) == own]
    if not names:
        raise NotEnrolledError(
            "the kit's roster does not list this site's key: send the enrolment file to the coordinator, who admits "
            "the site, signs the next roster and makes the next kit"
        )
    return names[0]


def _is_newer(folder: SiteFolder, roster: Roster) -> bool:
    """Say whether the roster replaces an older one. Raises: RosterInvalidError when it must not."""
    if not folder.roster.exists():
        return False
    installed = read_roster(folder.roster)
    if roster.epoch < installed.epoch:
        raise RosterInvalidError(
            f"the kit's roster is of epoch {roster.epoch}, installed is {installed.epoch}: an older roster is never "
            "installed; ask the coordinator for a new kit"
        )
    if roster.epoch == installed.epoch and roster.digest() != installed.digest():
        raise RosterInvalidError(
            f"the kit's roster is of epoch {roster.epoch}, like the installed one, but another one: every change needs "
            "a new epoch; ask the coordinator"
        )
    return roster.epoch > installed.epoch


def _record(folder: SiteFolder, kit: Kit) -> None:
    entry: dict[str, object] = {"what": "joined", "coordinator": kit.fingerprint(), "time": int(time.time())}
    if kit.roster:
        entry |= {"roster": kit.roster.digest(), "epoch": kit.roster.epoch}
    audit(folder, entry)

"""Who takes part: enrolments admitted, the roster signed from them, and the node keys that may knock at the gateway.

    enrolment -> (fingerprint compared) -> sites/NAME.json -> (roster sign) -> roster.json -> node keys

Only what a signed roster names is let in, and under the very site key it names: dismissing a site and signing the next
epoch shuts its node out, also from studies that began under an earlier roster.
"""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from common.errors import OutputExistsError
from common.files import read_bounded, replace_atomically, sync_folder, write_new
from common.trust.canonical import encode_base64
from common.trust.enrolment import MAX_ENROLMENT_BYTES, Enrolment, read_enrolment
from common.trust.errors import EnrolmentInvalidError
from common.trust.hash_chain import HashChain
from common.trust.identity import public_bytes, read_signing_key, same_fingerprint
from common.trust.roster import MAX_ROSTER_BYTES, Roster, read_roster, signed_roster
from server.federation.errors import FederationInvalidError
from server.federation.folder import FederationFolder

AUDIT_NAME = "coordinator"


@dataclass(frozen=True)
class NodeKey:
    """The key (one OpenSSH line) with which the SuperNode of ``site`` shows itself."""

    site: str
    line: str


def audit(folder: FederationFolder, what: str, **facts: str | int) -> None:
    """Add one line to the audit log, durable before this returns. Raises: ChainBrokenError, OSError."""
    chain = HashChain(folder.audit, AUDIT_NAME)
    try:
        chain.append({"what": what, "time": int(time.time()), **facts})
    finally:
        chain.close()


def admit(folder: FederationFolder, file: Path, fingerprint: str, *, replaces: bool = False) -> Enrolment:
    """Admit a site whose ``fingerprint`` was heard from the site itself; it takes part from the next roster on.

    ``replaces``: the site lost its keys and enrols again under its name.
    Raises: EnrolmentInvalidError (also for another fingerprint), OutputExistsError, and what reading raises.
    """
    enrolment = read_enrolment(file)
    if not same_fingerprint(fingerprint, enrolment.fingerprint()):
        raise EnrolmentInvalidError(
            f"{file}: its fingerprint is not the one given; it was not admitted. Call the site, have all six groups "
            "read out again and type what you hear"
        )
    _require_new(folder, enrolment, replaces=replaces)
    former = admitted(folder).get(enrolment.site)
    if former and former.node_key != enrolment.node_key:
        _shut_out(folder, former)
    replace_atomically(folder.enrolment(enrolment.site), read_bounded(file, MAX_ENROLMENT_BYTES))
    audit(folder, "admitted", site=enrolment.site, fingerprint=enrolment.fingerprint(), node_key=enrolment.node_key)
    return enrolment


def dismiss(folder: FederationFolder, site: str) -> None:
    """Take a site out of the next roster; its node is shut out as soon as that roster is signed.

    Raises: FederationInvalidError if it is not admitted.
    """
    file = folder.enrolment(site)
    if not file.is_file():
        raise FederationInvalidError(f"{folder.path}: no site {site} is admitted")
    _shut_out(folder, read_enrolment(file))
    file.unlink()
    sync_folder(folder.enrolments)
    audit(folder, "dismissed", site=site)


def admitted(folder: FederationFolder) -> dict[str, Enrolment]:
    """Return the admitted sites by name. Raises: EnrolmentInvalidError for a damaged file."""
    found = {file.stem: read_enrolment(file) for file in sorted(folder.enrolments.glob("*.json"))}
    for name, enrolment in found.items():
        if enrolment.site != name:
            raise EnrolmentInvalidError(f"{folder.enrolments}: {name}.json is the enrolment of {enrolment.site}")
    return found


def current_roster(folder: FederationFolder) -> Roster | None:
    """Return the current roster; None before the first was signed. Raises: RosterInvalidError and the like."""
    return read_roster(folder.roster) if folder.roster.exists() else None


def sign_next_roster(folder: FederationFolder, federation: str) -> tuple[Roster, bool]:
    """Sign the roster of all admitted sites at the next epoch; an unchanged roster is left as it is.

    Returns: the current roster, and whether it is new. Raises: RosterInvalidError without sites, KeyExposedError etc.
    """
    key = read_signing_key(folder.key)
    before = current_roster(folder)
    sites = {name: enrolment.site_key for name, enrolment in admitted(folder).items()}
    epoch = before.epoch if before else 1
    roster = Roster(federation=federation, epoch=epoch, coordinator=key.public_key(), sites=sites)
    if before and before.digest() == roster.digest():
        return before, False
    if before:
        roster = Roster(federation=federation, epoch=epoch + 1, coordinator=key.public_key(), sites=sites)
    content = signed_roster(roster, key)
    _keep(folder, roster, content)
    replace_atomically(folder.roster, content)
    audit(folder, "roster signed", epoch=roster.epoch, digest=roster.digest(), sites=len(sites))
    return roster, True


def node_keys(folder: FederationFolder) -> list[NodeKey]:
    """Return the node keys of the sites in the current roster whose admitted site key is the one it names."""
    roster = current_roster(folder)
    if roster is None:
        return []
    keys = {name: encode_base64(public_bytes(key)) for name, key in roster.sites.items()}
    return [
        NodeKey(name, enrolment.node_key)
        for name, enrolment in admitted(folder).items()
        if keys.get(name) == encode_base64(public_bytes(enrolment.site_key))
    ]


def _shut_out(folder: FederationFolder, enrolment: Enrolment) -> None:
    """Keep an enrolment whose node key must not come back: Flower never takes a key again that was unregistered."""
    place = folder.shut_out
    place.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha256(enrolment.node_key.encode()).hexdigest()
    replace_atomically(place / name, enrolment.node_key.encode())


def _require_new(folder: FederationFolder, enrolment: Enrolment, *, replaces: bool) -> None:
    if (folder.shut_out / hashlib.sha256(enrolment.node_key.encode()).hexdigest()).exists():
        raise EnrolmentInvalidError(
            f"{enrolment.site}: this node key was shut out before and stays so; the site moves node.key away, "
            "makes a new one and enrols again"
        )
    for name, other in admitted(folder).items():
        if name == enrolment.site:
            if not replaces:
                raise OutputExistsError(
                    f"{name} is admitted already; with --replace it takes part with its new keys after the next roster"
                )
        elif other.node_key == enrolment.node_key or other.fingerprint() == enrolment.fingerprint():
            raise EnrolmentInvalidError(f"{enrolment.site} has a key of {name}; each site makes its own keys")


def _keep(folder: FederationFolder, roster: Roster, content: bytes) -> None:
    """Keep every roster; one that a crash left behind unused is replaced by the same or a later list."""
    file = folder.rosters / f"epoch-{roster.epoch}.json"
    if file.exists() and read_bounded(file, MAX_ROSTER_BYTES) != content:
        replace_atomically(file, content)
    elif not file.exists():
        write_new(file, content)

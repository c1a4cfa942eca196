"""What comes from others: kit, roster, approved plans, and whether the same versions are installed."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from client.consent.approval import check_for_site
from client.consent.continuity.ended import ended_studies
from client.doctor.findings import Finding, advice, fine, stop
from client.installation.audit_log import standing_approvals
from client.installation.folder import SiteFolder
from common.errors import FedwardError
from common.flower.pointer import pointer_digest
from common.trust.identity import public_bytes, read_signing_key
from common.trust.kit import Kit, read_kit
from common.trust.roster import read_roster


def kit(folder: SiteFolder) -> Finding:
    """A coordinator's kit is here."""
    if not folder.kit.exists():
        return stop("kit", "this site has joined no federation", "`fedward-site join KIT` with the coordinator's kit")
    found = read_kit(folder.kit)
    return fine("kit", f"{found.federation} at {found.address}, coordinator {found.fingerprint()}")


def versions(known: Kit) -> Iterator[Finding]:
    """The same Flower and the same Fedward are installed here as the coordinator's kit was made for."""
    try:
        installed = version("flwr")
    except PackageNotFoundError:
        installed = "none"
    if installed == known.flwr:
        yield fine("flwr", f"version {installed}, as the kit asks")
    else:
        remedy = f"install flwr=={known.flwr}, or ask the coordinator which release of Fedward all use"
        yield stop("flwr", f"version {installed} is installed, the kit asks for {known.flwr}", remedy)
    if pointer_digest() == known.pointer_digest:
        yield fine("app", "the coordinator means the app that is installed here")
    else:
        remedy = "install the release of Fedward that the coordinator uses; ask for a new kit after that"
        yield stop("app", "the coordinator's kit was made by another release of Fedward", remedy)


def roster(folder: SiteFolder, known: Kit) -> Finding:
    """The roster is the coordinator's and lists this site under its own key."""
    if not folder.roster.exists():
        return stop("roster", "no roster yet", "ask the coordinator for a kit made after `roster sign`, and join again")
    found = read_roster(folder.roster)
    if public_bytes(found.coordinator) != public_bytes(known.coordinator):
        return stop("roster", "it is of another coordinator than the kit", "join again with the coordinator's kit")
    own = public_bytes(read_signing_key(folder.key).public_key())
    names = [name for name, key in found.sites.items() if public_bytes(key) == own]
    if not names:
        remedy = "send the enrolment file to the coordinator, and join with the next kit"
        return stop("roster", f"epoch {found.epoch} does not list this site's key", remedy)
    return fine("roster", f"epoch {found.epoch}, {len(found.sites)} sites, this one is {names[0]}")


def plans(folder: SiteFolder) -> Iterator[Finding]:
    """Every approved plan still passes all checks of this site."""
    standing = [digest for digest in sorted(standing_approvals(folder)) if folder.plan(digest).exists()]
    broken: dict[str, str] = {}
    ended = ended_studies(folder)
    for digest in ended.intersection(standing):
        standing.remove(digest)
        text = f"plan {digest[:12]} is approved, but its study ended here when a lost file began again"
        remedy = (
            f"ask the coordinator for a new study; `fedward-site approve --withdraw {digest[:12]}` takes this one away"
        )
        yield advice("plans", text, remedy)
    for digest in standing:
        try:
            check_for_site(folder, folder.plan(digest))
        except FedwardError as error:
            broken[digest] = str(error)
    if len(standing) > len(broken):
        yield fine("plans", f"{len(standing) - len(broken)} approved")
    for digest, sentence in broken.items():
        text = f"plan {digest[:12]} no longer passes: {sentence}"
        remedy = f"approve its successor; `fedward-site approve --withdraw {digest[:12]}` takes this one away"
        found = advice if len(standing) > len(broken) else stop
        yield found("plans", text, remedy)
    if not standing and not ended:
        yield advice("plans", "none approved yet", "`fedward-site approve PLAN` when the coordinator sends one")

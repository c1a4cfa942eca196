"""From a federation folder to the kit that its hospitals get."""

from common.files import parsed_json, read_text
from common.flower.pointer import FLOWER_VERSION, pointer_digest
from common.trust.canonical import encode_base64
from common.trust.errors import RosterInvalidError
from common.trust.identity import public_bytes, read_signing_key
from common.trust.kit import new_kit, signed_kit
from common.trust.roster import MAX_ROSTER_BYTES
from server.federation.admission import admitted, current_roster
from server.federation.certificates import MAX_PEM_BYTES
from server.federation.config import CoordinatorConfig
from server.federation.folder import FederationFolder


def make_kit(folder: FederationFolder, config: CoordinatorConfig) -> bytes:
    """Return the signed kit, with the current roster if one was signed.

    Raises: RosterInvalidError when sites changed since it was signed; KitInvalidError, and what reading key,
    certificate and roster raises.
    """
    key = read_signing_key(folder.key)
    _require_signed(folder)
    roster = parsed_json(read_text(folder.roster, MAX_ROSTER_BYTES)) if folder.roster.exists() else None
    document = {
        "federation": config.federation,
        "coordinator": encode_base64(public_bytes(key.public_key())),
        "address": config.gateway.public_address,
        "ca_certificate": read_text(folder.ca_certificate, MAX_PEM_BYTES),
        "pointer_digest": pointer_digest(),
        "flwr": FLOWER_VERSION,
        "roster": roster,
    }
    return signed_kit(new_kit(document, folder.roster), key)


def _require_signed(folder: FederationFolder) -> None:
    """Refuse a kit whose roster is not the list of admitted sites: hospitals would confirm the wrong ones."""
    roster = current_roster(folder)
    if roster is None:
        return
    listed = {name: public_bytes(key) for name, key in roster.sites.items()}
    here = {name: public_bytes(enrolment.site_key) for name, enrolment in admitted(folder).items()}
    changed = sorted(name for name in listed.keys() | here.keys() if listed.get(name) != here.get(name))
    if changed:
        raise RosterInvalidError(
            f"{', '.join(changed)}: admitted, dismissed or with new keys since the roster of epoch {roster.epoch} was "
            "signed; `fedward-server roster sign` first, then write the kit"
        )

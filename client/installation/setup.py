"""A new site: its folder, its keys, its empty ledger, its commented settings; and what it tells the coordinator.

set_up       site folder (0700): site.key site.secret node.key runtime.secret ledger.sqlite policy.toml site.toml
enrolment    name and public keys, signed: what goes to the coordinator
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from cryptography.hazmat.primitives.serialization.ssh import SSHPrivateKeyTypes

from client.installation.config import default_site_config, read_site_config
from client.installation.errors import SiteConfigInvalidError
from client.installation.folder import SiteFolder
from client.installation.policy_template import POLICY_TEMPLATE
from client.ledger.ledger import Ledger
from common.errors import FileUnreadableError, OutputExistsError
from common.files import write_new
from common.trust.enrolment import Enrolment, check_node_key
from common.trust.errors import KeyInvalidError
from common.trust.identity import (
    MAX_KEY_BYTES,
    create_secret_file,
    create_signing_key,
    read_private_file,
    read_signing_key,
    write_public_key,
)
from common.trust.roster import NAME


def set_up(folder: SiteFolder, name: str) -> Enrolment:
    """Make the site folder of the hospital ``name`` with everything that does not come from others.

    The folder must be new or empty. ``site.toml`` is written last: a folder without it was not finished.
    Raises: SiteConfigInvalidError for a bad name, OutputExistsError, FileUnreadableError.
    """
    if not NAME.fullmatch(name):
        raise SiteConfigInvalidError("a site's name must be 2 to 63 lower-case letters, digits and hyphens")
    _make_private(folder.path)
    write_public_key(public_half(folder.key), create_signing_key(folder.key).public_key())
    create_secret_file(folder.secret)
    _create_node_key(folder.node_key)
    create_secret_file(folder.runtime_secret)
    Ledger.create(folder.ledger).close()
    for inside in (folder.logs, folder.flower, folder.models):
        inside.mkdir(mode=0o700)
    write_new(folder.policy, POLICY_TEMPLATE.encode(), 0o600)
    write_new(folder.config, default_site_config(name).encode(), 0o600)
    return enrolment(folder)


def enrolment(folder: SiteFolder) -> Enrolment:
    """Return what this site tells the coordinator, from its keys and ``site.toml``.

    Raises: KeyExposedError, KeyInvalidError, SiteConfigInvalidError, FileUnreadableError, EnrolmentInvalidError.
    """
    site_key = read_signing_key(folder.key).public_key()
    return Enrolment(read_site_config(folder.config).site.name, site_key, node_key_line(folder.node_key))


def node_key_line(path: Path) -> str:
    """Return the public half of the node's secret key as one OpenSSH line.

    Raises: KeyExposedError, KeyInvalidError, FileUnreadableError, EnrolmentInvalidError (another kind of key).
    """
    line = _loaded(path).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    check_node_key(line)
    return line


def read_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the node's secret key. Raises: as ``node_key_line``."""
    node_key_line(path)
    key = _loaded(path)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 (its public half was one)
    return key


def _loaded(path: Path) -> SSHPrivateKeyTypes:
    try:
        return load_ssh_private_key(read_private_file(path, MAX_KEY_BYTES), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, NotImplementedError):
        raise KeyInvalidError(
            f"{path}: not an OpenSSH secret key without a password; restore it from a backup"
        ) from None


def public_half(secret_key: Path) -> Path:
    """Return where the public half of a key file lies: beside it, ending in ``.pub``."""
    return secret_key.with_suffix(".pub")


def _make_private(path: Path) -> None:
    """Make a folder that only its owner may enter, or take an empty one."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = any(path.iterdir())
        if not taken:
            path.chmod(0o700)
    except OSError as error:
        raise FileUnreadableError(f"{path}: cannot be made ({error.strerror}); check name and rights") from None
    if taken:
        raise OutputExistsError(f"{path}: is not empty and was left alone; a new site needs a new or empty folder")


def _create_node_key(path: Path) -> None:
    """Write a new ECDSA P-384 key pair in OpenSSH form, as Flower's node authentication wants it."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), 0o600)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    write_new(public_half(path), line + b"\n")

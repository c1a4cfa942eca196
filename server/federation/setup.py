"""``fedward-server init``: the federation folder, with keys, certificates and commented settings."""

import os
from dataclasses import dataclass
from pathlib import Path

from common.errors import FileUnreadableError, OutputExistsError
from common.files import read_bounded, replace_atomically, write_new
from common.trust.identity import create_secret_file, create_signing_key, write_public_key
from server.federation.admission import audit
from server.federation.certificates import MAX_PEM_BYTES, issue, new_authority, read_authority
from server.federation.config import CoordinatorConfig, read_coordinator_config
from server.federation.folder import FederationFolder


@dataclass(frozen=True)
class OwnCertificate:
    """A certificate that the federation has from elsewhere: the gateway's, its secret key, and who signed it (PEM)."""

    certificate: Path
    key: Path
    authority: Path


def create_federation(
    folder: FederationFolder, settings: str, certificate: OwnCertificate | None = None
) -> CoordinatorConfig:
    """Make the folder (0700; a new or empty one) with everything ``up`` needs; ``settings``: ``coordinator.toml``.

    Raises: OutputExistsError for a folder with things in it, FederationInvalidError for settings that are refused.
    """
    path = folder.path
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise OutputExistsError(f"{path}: is not empty and was left alone; choose another folder")
        path.chmod(0o700)
    except OSError as error:
        raise FileUnreadableError(f"{path}: cannot be made ({os.strerror(error.errno or 0)})") from None
    write_new(folder.config, settings.encode())
    config = read_coordinator_config(folder.config)
    for part in (folder.tls, folder.enrolments, folder.rosters, folder.studies, folder.superlink, folder.logs):
        part.mkdir(mode=0o700)
    key = create_signing_key(folder.key)
    write_public_key(folder.public_key, key.public_key())
    create_secret_file(folder.executor_secret)
    _install(folder, certificate) if certificate else _make_own(folder, config)
    audit(folder, "created", federation=config.federation, address=config.gateway.public_address)
    return config


def renew_certificate(folder: FederationFolder) -> None:
    """Issue the gateway a new certificate of the federation's own authority; sites need not do anything.

    Raises: FileUnreadableError where the certificate came from elsewhere.
    """
    config = read_coordinator_config(folder.config)
    authority = read_authority(folder.ca_certificate, folder.ca_key)
    fresh = issue(authority, [config.gateway.public_host])
    replace_atomically(folder.server_key, fresh.key_pem, 0o600)
    replace_atomically(folder.server_certificate, fresh.pem)
    audit(folder, "certificate renewed", address=config.gateway.public_address)


def _make_own(folder: FederationFolder, config: CoordinatorConfig) -> None:
    authority = new_authority(config.federation)
    server = issue(authority, [config.gateway.public_host])
    write_new(folder.ca_certificate, authority.pem)
    write_new(folder.ca_key, authority.key_pem, 0o600)
    write_new(folder.server_certificate, server.pem)
    write_new(folder.server_key, server.key_pem, 0o600)


def _install(folder: FederationFolder, own: OwnCertificate) -> None:
    write_new(folder.ca_certificate, read_bounded(own.authority, MAX_PEM_BYTES))
    write_new(folder.server_certificate, read_bounded(own.certificate, MAX_PEM_BYTES))
    write_new(folder.server_key, read_bounded(own.key, MAX_PEM_BYTES), 0o600)

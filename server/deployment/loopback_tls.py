"""TLS between the coordinator's own processes: an authority that signs one certificate, and whose key is thrown away.

On loopback TLS is not against listeners but against squatters: while the SuperLink is away another user of the machine
could listen on its port, and would be handed the gateway's traffic and the executor's proofs.
"""

from pathlib import Path

from common.files import replace_atomically
from server.federation.certificates import days_left, issue, new_authority
from server.federation.folder import FederationFolder

DAYS = 3650
RENEWED_BEFORE_DAYS = 365


def ensure_loopback_certificates(folder: FederationFolder) -> None:
    """Make authority and certificate of the SuperLink, for 127.0.0.1, unless there are some that last another year."""
    certificate = loopback_certificate(folder)
    if not certificate.exists() or days_left(certificate) < RENEWED_BEFORE_DAYS:
        _make(folder)


def loopback_authority(folder: FederationFolder) -> Path:
    """Return the file of the authority that gateway and executor trust for the SuperLink."""
    return folder.superlink / "tls" / "ca.crt"


def loopback_certificate(folder: FederationFolder) -> Path:
    """Return the file of the SuperLink's certificate."""
    return folder.superlink / "tls" / "loopback.crt"


def loopback_key(folder: FederationFolder) -> Path:
    """Return the file of its secret key (0600)."""
    return folder.superlink / "tls" / "loopback.key"


def _make(folder: FederationFolder) -> None:
    authority = new_authority("fedward loopback")
    server = issue(authority, ["127.0.0.1", "localhost"], days=DAYS)
    place = loopback_authority(folder).parent
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_atomically(loopback_authority(folder), authority.pem)
    replace_atomically(loopback_key(folder), server.key_pem, 0o600)
    replace_atomically(loopback_certificate(folder), server.pem)  # last: it says that all are there

"""Certificates for TLS: an authority of our own, and certificates it signs. ECDSA P-256, SHA-256, X.509 version 3.

Sites trust exactly the authority in their kit, not those of their system, so an authority made here is no weaker than a
bought certificate: it cannot vouch for anything else, and nobody else can vouch for the gateway.
Source: RFC 5280 sections 4.2.1.2, 4.2.1.3, 4.2.1.6, 4.2.1.9, 4.2.1.12.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import FileUnreadableError
from common.files import read_bounded
from common.trust.errors import KeyInvalidError
from common.trust.identity import MAX_KEY_BYTES, read_private_file

AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 820
MAX_PEM_BYTES: Final = 64 * 1024
_CLOCK_SLACK: Final = dt.timedelta(hours=1)  # a site's clock may be behind


@dataclass(frozen=True, eq=False)
class Authority:
    """A certificate authority that can sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The secret key (PKCS #8, not encrypted)."""
        return key_pem(self.key)


@dataclass(frozen=True)
class ServerCertificate:
    """A certificate and its secret key, both PEM."""

    pem: bytes
    key_pem: bytes


def new_authority(name: str) -> Authority:
    """Make an authority called ``name`` that may sign servers' and clients' certificates, and no other authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"{name} authority")
    builder = _builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def read_authority(certificate: Path, key: Path) -> Authority:
    """Read an authority that ``new_authority`` made. Raises: KeyInvalidError, KeyExposedError, FileUnreadableError."""
    try:
        secret: object = load_pem_private_key(read_private_file(key, MAX_KEY_BYTES), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        secret = None
    if not isinstance(secret, ec.EllipticCurvePrivateKey):
        raise KeyInvalidError(f"{key}: not the key of an authority that `fedward-server init` made")
    return Authority(read_certificate(certificate), secret)


def issue(authority: Authority, hosts: Sequence[str], *, days: int = SERVER_DAYS) -> ServerCertificate:
    """Issue a certificate for a server that is reached under ``hosts`` (DNS names or IP addresses)."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_subject(hosts[0]), authority.certificate.subject, key.public_key(), days)
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectAlternativeName([_name(host) for host in hosts]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return ServerCertificate(builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM), key_pem(key))


def read_certificate(path: Path) -> x509.Certificate:
    """Read the first certificate of a PEM file. Raises: FileUnreadableError, FileTooLargeError."""
    try:
        return x509.load_pem_x509_certificate(read_bounded(path, MAX_PEM_BYTES))
    except ValueError:
        raise FileUnreadableError(f"{path}: holds no certificate (PEM)") from None


def days_left(path: Path) -> float:
    """Return for how many days the certificate in ``path`` is still valid; negative when it is over."""
    left = read_certificate(path).not_valid_after_utc - dt.datetime.now(dt.UTC)
    return left.total_seconds() / 86_400


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a secret key as PKCS #8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # 64: the limit of RFC 5280, appendix A


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

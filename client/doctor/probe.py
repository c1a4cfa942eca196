"""One request to the coordinator, as the SuperNode would make it: through the proxy, with the kit's authority only.

It asks for ``/``, which the gateway does not serve; the answer's Date header is the coordinator's clock (RFC 9110
section 6.6.1). Nothing is sent but the request line and the host's name.
"""

import http.client
import re
import socket
import ssl
import time
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from common.trust.kit import Kit

TIMEOUT_S: Final = 10.0
EXPIRED, NOT_YET_VALID, OTHER_NAME, OTHER_ADDRESS = 10, 9, 62, 64  # X509_V_ERR_* of OpenSSL, x509_vfy.h


class Trouble(StrEnum):
    """What can keep a site from its coordinator."""

    PROXY_UNKNOWN = "proxy unknown"
    PROXY_REFUSES = "proxy refuses"
    PROXY_PASSWORD = "proxy password"  # noqa: S105 (a name)
    NAME_UNKNOWN = "name unknown"
    UNREACHABLE = "unreachable"
    NO_TLS = "no TLS"
    OTHER_NAME = "other name"
    OTHER_AUTHORITY = "other authority"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    NO_ANSWER = "no answer"


class ProbeFailedError(Exception):
    """The coordinator was not reached, for the reason ``trouble``."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.value)
        self.trouble = trouble


@dataclass(frozen=True)
class Answer:
    """What the coordinator's gateway said.

    ``clock_ahead_s``: this machine's clock minus the coordinator's, None without a Date header; it is exact to
    ``uncertainty_s`` (the header has whole seconds, and the way takes time).
    """

    clock_ahead_s: float | None
    uncertainty_s: float


def proxy_for(kit: Kit, configured: str) -> SplitResult | None:
    """Return the proxy that leads to the coordinator: the one of ``site.toml``, else of the environment; None: direct.

    NO_PROXY is honoured for both, as Flower's HTTP client does.
    """
    known = urllib.request.getproxies_environment()
    found = configured or known.get("https") or known.get("all") or ""
    if not found or urllib.request.proxy_bypass(kit.host):
        return None
    return urlsplit(found if "//" in found else f"http://{found}")


def ask_coordinator(kit: Kit, proxy: SplitResult | None) -> Answer:
    """Connect, check the certificate, ask, and compare clocks. Raises: ProbeFailedError."""
    connection = _connection(kit, proxy)
    try:
        _connect(connection, proxied=proxy is not None)
        before = time.time()
        try:
            connection.request("GET", "/", headers={"Host": kit.host})
            said = connection.getresponse().headers.get("Date")
        except (OSError, http.client.HTTPException):
            raise ProbeFailedError(Trouble.NO_ANSWER) from None
        after = time.time()
    finally:
        connection.close()
    uncertainty_s = 0.5 + (after - before) / 2
    moment = _moment(said)
    # The header says which second it is, so on average half a second of it has passed.
    ahead_s = None if moment is None else (before + after) / 2 - (moment + 0.5)
    return Answer(ahead_s, uncertainty_s)


def _connection(kit: Kit, proxy: SplitResult | None) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cadata=kit.ca_certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if proxy is None:
        return http.client.HTTPSConnection(kit.host, kit.port, timeout=TIMEOUT_S, context=context)
    if proxy.scheme != "http" or not proxy.hostname:
        raise ProbeFailedError(Trouble.PROXY_UNKNOWN)
    connection = http.client.HTTPSConnection(proxy.hostname, proxy.port or 80, timeout=TIMEOUT_S, context=context)
    connection.set_tunnel(kit.host, kit.port, headers=_credentials(proxy))
    return connection


def _credentials(proxy: SplitResult) -> dict[str, str]:
    """Return what a proxy with a password wants to see (RFC 7617)."""
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _connect(connection: http.client.HTTPSConnection, *, proxied: bool) -> None:
    """Open the connection up to the end of the TLS handshake. Raises: ProbeFailedError."""
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        raise ProbeFailedError(_verdict(error.verify_code)) from None
    except ssl.SSLError:
        raise ProbeFailedError(Trouble.NO_TLS) from None
    except socket.gaierror:
        raise ProbeFailedError(Trouble.PROXY_UNKNOWN if proxied else Trouble.NAME_UNKNOWN) from None
    except http.client.HTTPException:
        raise ProbeFailedError(Trouble.PROXY_UNKNOWN if proxied else Trouble.NO_TLS) from None
    except OSError as error:
        answered = re.search(r"Tunnel connection failed: (\d{3})", str(error))
        if answered:
            trouble = Trouble.PROXY_PASSWORD if answered[1] == "407" else Trouble.PROXY_REFUSES
            raise ProbeFailedError(trouble) from None
        raise ProbeFailedError(Trouble.PROXY_UNKNOWN if proxied else Trouble.UNREACHABLE) from None


def _verdict(code: int) -> Trouble:
    known = {
        EXPIRED: Trouble.EXPIRED,
        NOT_YET_VALID: Trouble.NOT_YET_VALID,
        OTHER_NAME: Trouble.OTHER_NAME,
        OTHER_ADDRESS: Trouble.OTHER_NAME,
    }
    return known.get(code, Trouble.OTHER_AUTHORITY)


def _moment(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None

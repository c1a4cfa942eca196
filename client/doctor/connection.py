"""The way to the coordinator: proxy, TLS, clock."""

import urllib.request
from collections.abc import Iterator
from typing import Final

from client.doctor.findings import Finding, advice, fine, stop
from client.doctor.probe import Answer, ProbeFailedError, Trouble, ask_coordinator, proxy_for
from common.trust.kit import Kit

# Flower's node authentication takes a time stamp from 5 s ahead to 305 s behind the coordinator (node_auth.py, 1.41).
MOST_AHEAD_S: Final = 5.0
MOST_BEHIND_S: Final = 305.0
MARGIN_S: Final = 1.0
ADVISED_S: Final = 2.0

REMEDIES: Final = {
    Trouble.PROXY_UNKNOWN: ("the proxy does not answer as a proxy", "check https_proxy in site.toml, or HTTPS_PROXY"),
    Trouble.PROXY_REFUSES: ("the proxy refuses to connect", "ask IT to allow CONNECT to {address} for this machine"),
    Trouble.PROXY_PASSWORD: ("the proxy wants a password", "ask IT to let this machine through without one"),
    Trouble.NAME_UNKNOWN: (
        "the name {host} is not known here",
        "check DNS; behind a proxy set https_proxy in site.toml",
    ),
    Trouble.UNREACHABLE: (
        "{address} cannot be reached",
        "ask IT to allow outgoing TCP to it, or set https_proxy in site.toml; is the coordinator up?",
    ),
    Trouble.NO_TLS: ("{address} does not speak TLS", "ask the coordinator whether the address in the kit is right"),
    Trouble.OTHER_NAME: (
        "the server's certificate is for another name than {host}",
        "ask the coordinator: the address in the kit and the certificate must agree",
    ),
    Trouble.OTHER_AUTHORITY: (
        "the server's certificate is not signed by the authority in the kit",
        "if a proxy inspects TLS, ask IT to exempt {host}; if none does, somebody stands in between",
    ),
    Trouble.EXPIRED: (
        "the server's certificate has expired",
        "check the date of this machine; if it is right, the coordinator must renew the certificate",
    ),
    Trouble.NOT_YET_VALID: (
        "the server's certificate is not valid yet",
        "check the date of this machine: it is behind; set up NTP",
    ),
    Trouble.NO_ANSWER: ("{address} takes a connection but does not answer", "ask the coordinator whether it is up"),
}


def proxy(kit: Kit, configured: str) -> Iterator[Finding]:
    """Which way leads to the coordinator, and that loopback never goes through a proxy."""
    found = proxy_for(kit, configured)
    way = "none: straight to the coordinator" if found is None else f"{found.hostname}:{found.port or 80}"
    if found is not None and not urllib.request.proxy_bypass("127.0.0.1"):
        remedy = "add 127.0.0.1,localhost to NO_PROXY; `fedward-site up` does so for the processes it starts"
        yield advice("proxy", f"{way}, and NO_PROXY does not name 127.0.0.1", remedy)
    else:
        yield fine("proxy", way)


def coordinator(kit: Kit, configured: str) -> Iterator[Finding]:
    """The coordinator is reached over TLS with the kit's authority, and the clocks agree."""
    try:
        answer = ask_coordinator(kit, proxy_for(kit, configured))
    except ProbeFailedError as error:
        text, remedy = (part.format(address=kit.address, host=kit.host) for part in REMEDIES[error.trouble])
        yield stop("coordinator", text, remedy)
        return
    yield fine("coordinator", f"{kit.address} answers, its certificate is signed by the kit's authority")
    yield clock(answer)


def clock(answer: Answer) -> Finding:
    """The clocks of site and coordinator are close enough for Flower, which signs with the time."""
    ahead = answer.clock_ahead_s
    if ahead is None or answer.uncertainty_s > MOST_AHEAD_S - MARGIN_S:
        return advice("clock", "it could not be compared with the coordinator's", "see that NTP runs on this machine")
    side = "ahead of" if ahead > 0 else "behind"
    text = f"{abs(ahead):.0f} s {side} the coordinator's (to within {answer.uncertainty_s:.1f} s)"
    if not -MOST_BEHIND_S + MARGIN_S < ahead < MOST_AHEAD_S - MARGIN_S:
        limits = f"Flower refuses more than {MOST_AHEAD_S:.0f} s ahead or {MOST_BEHIND_S:.0f} s behind"
        return stop("clock", text, f"set up NTP on this machine (and ask the coordinator about theirs): {limits}")
    if abs(ahead) > ADVISED_S + answer.uncertainty_s:
        return advice("clock", text, "set up NTP on this machine before it drifts further")
    return fine("clock", text)

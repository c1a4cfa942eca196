"""The site folder itself: rights, keys, settings, policy, ledger, records."""

import os
import shutil
import stat
from collections.abc import Iterator
from typing import Final

from client.consent.policy import read_policy
from client.doctor.findings import Finding, advice, fine, stop
from client.installation.audit_log import AUDIT_NAME, audit_links
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from client.installation.outbox import NAME as OUTBOX_NAME
from client.installation.setup import node_key_line, public_half
from client.ledger.ledger import Ledger
from common.trust.hash_chain import HashChain
from common.trust.identity import fingerprint, read_secret_file, read_signing_key

LEAST_FREE_BYTES: Final = 1 << 30
ADVISED_FREE_BYTES: Final = 10 << 30
LONGEST_SOCKET_PATH: Final = 107  # bytes, of a Unix socket on Linux: unix(7)


def rights(folder: SiteFolder) -> Finding:
    """Nobody else may enter the folder."""
    state = folder.path.stat()
    mode = stat.S_IMODE(state.st_mode)
    if state.st_uid != os.geteuid():
        return stop("folder", f"{folder.path} belongs to user {state.st_uid}, not to you", "run as its owner")
    if mode & 0o077:
        return stop("folder", f"{folder.path} is open to others (mode {mode:04o})", f"chmod 700 {folder.path}")
    if not os.access(folder.path, os.W_OK | os.X_OK):
        return stop(
            "folder", f"{folder.path} cannot be written by you", f"chmod 700 {folder.path}, or mount it writable"
        )
    return fine("folder", f"{folder.path}, only its owner may enter")


def socket_name(folder: SiteFolder) -> Finding:
    """The agent's socket has a short name, as the system demands."""
    length = len(os.fsencode(folder.control_socket.resolve()))
    if length > LONGEST_SOCKET_PATH:
        remedy = "move the site folder to a shorter path"
        return stop("socket", f"the path of {folder.control_socket.name} has {length} bytes, the limit is 107", remedy)
    return fine("socket", "its path is short enough")


def settings(folder: SiteFolder) -> Finding:
    """``site.toml`` is understood."""
    return fine("settings", f"{folder.config.name} is right, for the site {read_site_config(folder.config).site.name}")


def policy(folder: SiteFolder) -> Finding:
    """``policy.toml`` is understood."""
    found = read_policy(folder.policy)
    if found.allow_without_privacy:
        remedy = "set allow_without_privacy = false unless this site holds public images only"
        return advice("policy", "it allows studies that promise patients no privacy", remedy)
    return fine("policy", f"epsilon at most {found.maximum_epsilon:g} a study, {found.epsilon_ceiling:g} in all")


def keys(folder: SiteFolder) -> Finding:
    """All four secrets are there, readable by their owner alone, and fit their public halves."""
    own = read_signing_key(folder.key).public_key()
    read_secret_file(folder.secret)
    read_secret_file(folder.runtime_secret)
    line = node_key_line(folder.node_key)
    if public_half(folder.node_key).read_text(encoding="utf-8").strip() != line:
        return stop("keys", "node.pub is not the public half of node.key", "restore both from the same backup")
    return fine("keys", f"fingerprint {fingerprint(own)}")


def disk(folder: SiteFolder) -> Finding:
    """There is room for cache, ledger and logs."""
    free = shutil.disk_usage(folder.path).free
    text = f"{free / (1 << 30):.1f} GiB free"
    if free < LEAST_FREE_BYTES:
        return stop("disk", text, "make room: without it neither ledger nor records can be written")
    if free < ADVISED_FREE_BYTES:
        return advice("disk", text, "10 GiB are advised; the cache needs about 0.5 MB for each CT slice of 512 x 512")
    return fine("disk", text)


def ledger(folder: SiteFolder) -> Finding:
    """The privacy ledger verifies and is the newest copy."""
    with Ledger.open(folder.ledger, ceiling=read_policy(folder.policy).epsilon_ceiling) as opened:
        spending = opened.spending()
    attempts = sum(len(study.attempts) for study in spending)
    return fine("ledger", f"verified: {len(spending)} studies, {attempts} attempts")


def records(folder: SiteFolder) -> Iterator[Finding]:
    """Audit log and outbox verify from their first line."""
    lines = sum(1 for _ in audit_links(folder))
    yield fine(AUDIT_NAME, f"verified: {lines} lines")
    messages = sum(1 for _ in HashChain(folder.outbox, OUTBOX_NAME).links()) if folder.outbox.exists() else 0
    yield fine(OUTBOX_NAME, f"verified: {messages} messages left this site")


def pause_mark(folder: SiteFolder) -> Finding:
    """Whether somebody has paused the site."""
    if folder.paused.exists():
        return advice("pause", "this site is paused and takes no order", "`fedward-site resume` when it should go on")
    return fine("pause", "not paused")

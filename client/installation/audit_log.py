"""The site's audit log: who joined, approved, withdrew, paused and resumed what, and when (a hash chain).

A line is ``{"what": ..., "time": seconds since 1970, ...}``; an approval and a withdrawal also have ``plan`` (digest)
and ``approver``. Which plans stand follows from this log alone: files put into the folder are no approval.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from client.installation.folder import SiteFolder
from client.ledger.terms import LogMark
from common.trust.hash_chain import START, ChainLink, HashChain

AUDIT_NAME: Final = "audit"


def audit(folder: SiteFolder, entry: dict[str, object]) -> ChainLink:
    """Add a line to the site's audit log and make it durable. Raises: ChainBrokenError."""
    with closing(HashChain(folder.audit, AUDIT_NAME)) as chain:
        return chain.append(entry)


def audit_links(folder: SiteFolder) -> Iterator[ChainLink]:
    """Yield every line, verified from the first; nothing where there is no log yet. Raises: ChainBrokenError."""
    if folder.audit.exists():
        with closing(HashChain(folder.audit, AUDIT_NAME)) as chain:
            yield from chain.links()


def last_mark(folder: SiteFolder) -> LogMark:
    """Return number and hash of the newest line, as the privacy ledger notes it. Raises: ChainBrokenError."""
    mark = LogMark(0, START)
    for link in audit_links(folder):
        mark = LogMark(link.number, link.hash)
    return mark


def standing_approvals(folder: SiteFolder) -> set[str]:
    """Return the digests of plans approved and not withdrawn since. Raises: ChainBrokenError."""
    standing: set[str] = set()
    for link in audit_links(folder):
        if link.entry["what"] == "approved":
            standing.add(link.entry["plan"])
        elif link.entry["what"] == "withdrawn":
            standing.discard(link.entry["plan"])
    return standing

"""The signed messages of one round, in order: what an auditor needs to say who sent what.

Kept are the messages that carry a signature; FORWARD, SURVIVORS and CERTIFICATE are put together from them. Vectors are
not in it, their signed digests are.
"""

import hashlib
from dataclasses import dataclass, field

from common.secagg.encoding import encode_injectively


@dataclass(frozen=True, slots=True)
class Entry:
    """One message; ``site_id`` is its sender, or empty for the server's own."""

    site_id: str
    message: bytes


@dataclass(slots=True)
class Transcript:
    """An append-only list of messages."""

    entries: list[Entry] = field(default_factory=list)

    def add(self, site_id: str, message: bytes) -> None:
        """Append a message."""
        self.entries.append(Entry(site_id, message))

    def to_bytes(self) -> bytes:
        """Return E(site, message, site, message, ...), for a file."""
        return encode_injectively(*(part for entry in self.entries for part in (entry.site_id, entry.message)))

    def digest(self) -> bytes:
        """Return the SHA-256 of ``to_bytes``, for the journal."""
        return hashlib.sha256(self.to_bytes()).digest()

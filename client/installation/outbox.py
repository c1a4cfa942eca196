"""The outbox: the only door through which anything leaves, and the record of what went through it.

Every message is checked against an allow-list of kinds with a size limit each, written to a hash-chained file, and
made durable, before it is handed to the transport. Hospital staff read the record with `fedward-site outbox`, and
verify it offline with `--verify`. It holds kinds, sizes and digests, never content: the masked vector is useless to
keep, and everything else is protocol.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.errors import ExitCode, FedwardError
from common.secagg.messages import Packet
from common.secagg.stages import Kind
from common.secagg.wire import MAX_MESSAGE_BYTES
from common.trust.hash_chain import ChainLink, HashChain

NAME: Final = "outbox"
BEGUN_AGAIN: Final = "begun again"  # a line of a new record in the place of a lost one; nothing left with it
HELLO: Final = "hello"  # who is there and which code runs; before any round
KINDS: Final = frozenset(
    {HELLO, Kind.KEYS, Kind.SHARES, Kind.MASKED, Kind.CONSISTENT, Kind.UNMASK, Kind.RECORDED, Kind.REFUSAL}
)
MAX_HELLO_BYTES: Final = 4096


class OutboxRefusedError(FedwardError):
    """Something tried to leave the site that is not on the outbox's list, or is too large."""

    exit_code = ExitCode.OUTBOX_REFUSED


@dataclass(frozen=True)
class OutboxTotals:
    """What has left so far: number of messages and bytes for each kind."""

    messages: Counter[str]
    bytes: Counter[str]


class Outbox:
    """One site's outbox.

    ``max_payload_bytes``: the largest masked vector that any approved plan needs. ``clock``: seconds since 1970.
    Raises: ChainBrokenError if the record was changed; the site then sends nothing.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._chain = HashChain(path, NAME)
        self._clock = clock

    @property
    def head(self) -> str:
        """Hash of the last line; a copy of it kept elsewhere proves later that nothing was removed."""
        return self._chain.head

    def release(self, kind: str, packet: Packet, *, study: str, max_payload_bytes: int = 0) -> Packet:
        """Check and record one message; what is returned may leave, nothing else may.

        Args: study, digest of the plan it belongs to (empty before any plan); max_payload_bytes, what this plan's
        masked vector has (exactly).
        Raises: OutboxRefusedError for a kind off the list, or a size over its limit; nothing is recorded then.
        """
        if kind not in KINDS:
            raise OutboxRefusedError(f"outbox: kind {kind[:20]!r} may not leave; allowed: {', '.join(sorted(KINDS))}")
        most = MAX_HELLO_BYTES if kind == HELLO else MAX_MESSAGE_BYTES
        if len(packet.message) > most:
            raise OutboxRefusedError(f"outbox: a {kind} message of {len(packet.message)} bytes, the limit is {most}")
        allowed = max_payload_bytes if kind == Kind.MASKED else 0
        if packet.payload.nbytes > allowed:
            raise OutboxRefusedError(f"outbox: {packet.payload.nbytes} bytes beside {kind}, the limit is {allowed}")
        digest = hashlib.sha256(packet.message)
        digest.update(packet.payload)
        self._chain.append(
            {
                "time": int(self._clock()),
                "kind": str(kind),
                "study": study,
                "message_bytes": len(packet.message),
                "payload_bytes": packet.payload.nbytes,
                "sha256": digest.hexdigest(),
            }
        )
        return packet

    def begin_again(self, before: dict[str, int]) -> None:
        """Say in a new record how many sessions of each study had left traces elsewhere when the old one was lost."""
        for study, count in sorted(before.items()):
            line = {"time": int(self._clock()), "kind": BEGUN_AGAIN, "study": study, "before": count}
            self._chain.append({**line, "message_bytes": 0, "payload_bytes": 0, "sha256": ""})

    def links(self) -> Iterator[ChainLink]:
        """Yield the record line by line, verified. Raises: ChainBrokenError."""
        return self._chain.links()

    def totals(self) -> OutboxTotals:
        """Add up what left, by kind. Raises: ChainBrokenError."""
        messages: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for link in self.links():
            entry: dict[str, Any] = link.entry
            messages[entry["kind"]] += 1
            sizes[entry["kind"]] += entry["message_bytes"] + entry["payload_bytes"]
        return OutboxTotals(messages, sizes)

"""What a session of secure aggregation is given by its site: keys, policy, journal, and the work of a round."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.secagg.journal import SiteJournal
from client.secagg.rules import SitePolicy
from client.secagg.state import Contribution
from common.secagg.order import Order
from common.secagg.refusals import CheckSet


class RoundWork(Protocol):
    """What the protocol asks of the rest of the site: the training and the privacy ledger."""

    def contribute(self, order: Order, model: memoryview, until_unix_s: float) -> Contribution:
        """Train on the received model (valid during this call only; may be released) and return the noised vector.

        ``until_unix_s``: training that is not done by then is not waited for.

        The ledger's RESERVED must be durable before the first gradient. Sampling and noise must be fresh each time.
        Any exception refuses the order with one fixed code.
        """
        ...

    def spend(self, order: Order) -> None:
        """Make the ledger's SPENT durable: MASKED leaves next. An exception stops it."""
        ...

    def ledger_head(self, order: Order) -> bytes:
        """Return the 32-byte head of the study's ledger chain, which travels with KEYS as an anchor."""
        ...

    def abandon(self, order: Order) -> None:
        """Learn that the session ended before MASKED left, for a reason that does not depend on the site's data."""
        ...


@dataclass(frozen=True, slots=True)
class SiteContext:
    """What a session of this site has throughout its life. See ``client.secagg.session.SiteSession`` for each."""

    policy: SitePolicy
    identity: Ed25519PrivateKey
    journal: SiteJournal
    work: RoundWork
    checks: CheckSet
    entropy: Callable[[int], bytes]
    clock: Callable[[], float]
    threads: int

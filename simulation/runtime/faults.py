"""What goes wrong on the way between the server and a simulated site, and when.

A fault looks at one delivery: which site, which message of the server, which round and attempt. Round and attempt are
read from the ORDER that passes by, so that a fault needs no help from the code it disturbs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from common.secagg.messages import decode
from common.secagg.order import Order, decode_order
from common.secagg.refusals import RefusedError
from common.secagg.stages import Kind
from common.secagg.wire import WireError


class Trouble(StrEnum):
    """What happens to a message.

    DROP: it never reaches the site, and the server is told so. HANG: nothing ever comes back. DROP_AFTER: the site did
    its work and answered, the answer is lost. GARBAGE: random bytes come back instead. SLOW: the answer comes late.
    """

    DROP = "drop"
    HANG = "hang"
    DROP_AFTER = "drop_after"
    GARBAGE = "garbage"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way to a site: ``action`` is the part of Flower's message type after the dot.

    ``round_number`` and ``attempt`` are those of the last ORDER for this site, 0 before the first one.
    """

    site: str
    action: str
    round_number: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """One trouble and the deliveries it befalls; an empty ``sites``, ``actions``, ``rounds`` or ``attempts`` is any.

    ``every``: only in rounds divisible by it (0: in each). ``delay_s``: for SLOW.
    """

    trouble: Trouble
    sites: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    rounds: tuple[int, ...] = ()
    attempts: tuple[int, ...] = ()
    every: int = 0
    delay_s: float = 0.0

    def befalls(self, delivery: Delivery) -> bool:
        """Whether this delivery is hit."""
        named = (
            (self.sites, delivery.site),
            (self.actions, delivery.action),
            (self.rounds, delivery.round_number),
            (self.attempts, delivery.attempt),
        )
        return all(not wanted or value in wanted for wanted, value in named) and (
            self.every == 0 or (delivery.round_number > 0 and delivery.round_number % self.every == 0)
        )


def first_fault(faults: Sequence[Fault], delivery: Delivery) -> Fault | None:
    """Return the first fault of the list that befalls a delivery, or None."""
    return next((fault for fault in faults if fault.befalls(delivery)), None)


def passing_order(octets: bytes) -> Order | None:
    """Return the order inside a message that passes by, None if it is another kind or no message at all."""
    try:
        _, signed = decode(octets, {Kind.ORDER})
        return decode_order(signed.order)
    except (RefusedError, WireError):
        return None

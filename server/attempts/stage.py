"""One stage of a round in Flower's messages: a question for each site, and the reading of what comes back."""

import os
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message

from common.flower.errors import ContentRefusedError
from common.flower.messages import MESSAGE_TYPES, NONCE_BYTES, Received, from_content, to_body, to_content
from common.processes.freed_memory import give_back
from common.secagg.messages import Packet
from common.secagg.stages import Kind
from server.attempts.exchange import Outcome

TTL_MARGIN_S = 30.0
GARBAGE = "rejected:content"

Take = Callable[[str, Received], str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of one question to one site; bytes are those of message and payload."""

    outcome: str
    bytes_to_site: int
    bytes_from_site: int
    seconds: float


@dataclass(frozen=True)
class StageSettings:
    """How a stage is asked.

    ``reply_bytes``: the largest payload an answer may bring (0: none). ``group``: Flower's label of the attempt.
    ``take`` gets every well-formed answer and returns its outcome; ``settled`` gets every outcome.
    """

    kind: Kind
    timeout_s: float
    group: str
    take: Take
    settled: Callable[[str, Asked], None]
    reply_bytes: int = 0


@dataclass(eq=False)
class Stage:
    """The questions of one stage, by site, and what to do with the replies.

    The packets are written into the questions and not kept, and whoever sends a question may drop it: with an order
    goes the whole model.
    """

    packets: InitVar[Mapping[str, Packet]]
    nodes: Mapping[str, int]
    settings: StageSettings
    questions: dict[str, Message] = field(init=False)
    _nonces: dict[str, bytes] = field(init=False)
    _sent_bytes: dict[str, int] = field(init=False)
    _sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self, packets: Mapping[str, Packet]) -> None:
        """Write a message for each site that has a node, each with a nonce of its own."""
        bodies: dict[int, ArrayRecord | ConfigRecord] = {}  # one packet may go to many sites: one record, one copy
        self._nonces = {site: os.urandom(NONCE_BYTES) for site in packets}
        self._sent_bytes = {site: len(packet.message) + packet.payload.nbytes for site, packet in packets.items()}
        self.questions = {}
        for site, packet in packets.items():
            if site in self.nodes:
                if id(packet) not in bodies:
                    bodies[id(packet)] = to_body(packet)
                self.questions[site] = self._question(site, bodies[id(packet)])

    def _question(self, site: str, body: ArrayRecord | ConfigRecord) -> Message:
        return Message(
            to_content(body, self._nonces[site]),
            self.nodes[site],
            MESSAGE_TYPES[self.settings.kind],
            ttl=self.settings.timeout_s + TTL_MARGIN_S,
            group_id=self.settings.group,
        )

    @property
    def sites(self) -> set[str]:
        """Whom the stage is for."""
        return set(self._sent_bytes)

    @property
    def offline(self) -> set[str]:
        """The sites without a node."""
        return set(self._sent_bytes) - set(self.nodes)

    def read(self, site: str, reply: Message) -> str:
        """Hand a reply with content on; ``rejected:content`` for another form or a nonce that is not the site's."""
        try:
            received = from_content(reply.content, max_payload_bytes=self.settings.reply_bytes)
        except ContentRefusedError:
            return GARBAGE
        if received.nonce != self._nonces[site]:
            return GARBAGE
        self._sizes[site] = len(received.message) + received.payload.nbytes
        outcome = self.settings.take(site, received)
        give_back(self._sizes[site])
        return outcome

    def settle(self, site: str, outcome: Outcome) -> None:
        """Note a site's outcome."""
        sent = 0 if outcome.what in {"failed:push", "failed:offline"} else self._sent_bytes[site]
        self.settings.settled(site, Asked(outcome.what, sent, self._sizes.get(site, 0), outcome.seconds))

    def take_reply(self, reply: Message) -> None:
        """Read a reply that Flower's own loop collected: it tells the node only."""
        sites = [site for site in self.questions if self.nodes[site] == reply.metadata.src_node_id]
        if sites and reply.has_content():
            self.settle(sites[0], Outcome(self.read(sites[0], reply), 0.0))

"""Any sequence of messages, honest, replayed from any session, mutated, in any order, keeps the invariants.

Invariants: one MASKED for an attempt, and only after the ledger was charged; one UNMASK for a session, with one kind
of share for each dealer; one set of keys for an attempt; no secret in the state of a dead session.
"""

import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from client.secagg.state import IdleState
from common.secagg.messages import Packet, decode
from common.secagg.refusals import Check, RoundAbortedError
from common.secagg.stages import SITE_SENDS, Kind, ServerStage, SiteStage
from server.secagg.session import ServerSession
from simulation.runtime.secagg_federation import Federation, new_federation

NAME = "site-001"
MEMORY = Path("/dev/shm")


class AnySequence(RuleBasedStateMachine):
    """One site under test among four, an honest server, and somebody on the wire."""

    federation: Federation
    server: ServerSession

    @initialize()
    def meet(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.federation = new_federation(4, self.folder)
        self.site = self.federation.sites[NAME]
        self.overheard: list[Packet] = []
        self.answers: list[tuple[Kind, object]] = []
        self.begin_round()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def begin_round(self) -> None:
        self.server = self.federation.new_server(self.federation.new_order())
        self.packets = self.server.start()

    def give(self, packet: Packet) -> Packet:
        """Give the site a packet and hold its answer against what it answered before."""
        events = len(self.federation.work[NAME].events)
        answer = self.site.receive(packet.message, packet.payload)
        kind, message = decode(answer.message, SITE_SENDS)
        if (kind, message) not in self.answers and kind is not Kind.REFUSAL:
            self.answers.append((kind, message))
            if kind is Kind.MASKED:
                assert self.federation.work[NAME].events[events:] == [f"spent {self.federation.attempts}"]
        if kind is Kind.REFUSAL:
            assert message.check is not Check.ANY_INTERNAL
            assert self.site.stage is SiteStage.DEAD
            assert answer.payload.nbytes == 0
        return answer

    @rule(steps=st.integers(1, 9))
    def the_round_goes_on(self, steps: int) -> None:
        for _ in range(steps):
            self.one_honest_step()

    def one_honest_step(self) -> None:
        if NAME in self.packets:
            self.overheard.append(self.packets[NAME])
            answer = self.give(self.packets[NAME])
            self.server.receive(answer.message, answer.payload)
        others = {name: packet for name, packet in self.packets.items() if name != NAME}
        self.federation.deliver(self.server, others)
        try:
            if self.server.stage is not ServerStage.WAITING_FOR_UNMASK:
                self.packets = self.server.advance()
                return
            opened = self.server.finish()
            expected = self.federation.expected_sum(opened.participants, self.federation.attempts)
            assert opened.total.body_sum.tolist() == expected[1]
        except RoundAbortedError as error:
            if error.check is not Check.C_TOO_FEW:
                raise
        self.begin_round()

    @rule(choice=st.integers(0, 1000))
    def an_old_message_comes_again(self, choice: int) -> None:
        if self.overheard:
            self.give(self.overheard[choice % len(self.overheard)])

    @rule(seed=st.integers(0, 2**32))
    def a_changed_message_comes(self, seed: int) -> None:
        if NAME in self.packets:
            generator, octets = random.Random(seed), bytearray(self.packets[NAME].message)
            octets[generator.randrange(len(octets))] ^= 1 << generator.randrange(8)
            self.give(Packet(bytes(octets), self.packets[NAME].payload))

    @rule(peer=st.sampled_from(["site-002", "site-003"]))
    def a_message_for_another_site_comes(self, peer: str) -> None:
        if peer in self.packets:
            self.give(self.packets[peer])

    @rule()
    def the_agent_restarts(self) -> None:
        self.site = self.federation.new_session(NAME)

    @rule()
    def staff_pause_it(self) -> None:
        self.site.wipe()

    @invariant()
    def each_session_opened_one_kind_of_share_for_each_dealer_once(self) -> None:
        opened = [message for kind, message in self.answers if kind is Kind.UNMASK]
        assert len({message.session_id for message in opened}) == len(opened)
        for message in opened:
            seeds = {share.site_id for share in message.seed_shares}
            assert not seeds & {share.site_id for share in message.key_shares}

    @invariant()
    def one_vector_and_one_set_of_keys_for_an_attempt(self) -> None:
        for kind, reference in ((Kind.MASKED, "session_id"), (Kind.KEYS, "order_digest")):
            said = [getattr(message, reference) for each, message in self.answers if each is kind]
            assert len(set(said)) == len(said)

    @invariant()
    def a_dead_session_holds_nothing(self) -> None:
        if self.site.stage in {SiteStage.DEAD, SiteStage.IDLE}:
            assert isinstance(self.site._state, IdleState)
            assert self.site._last_answer.message == b""


AnySequence.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
test_no_sequence_of_messages_breaks_an_invariant = AnySequence.TestCase

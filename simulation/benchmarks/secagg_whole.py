"""Whole rounds in one process: all that a site and the server compute, from the first message to the decoded mean.

Ours through the real state machines: signatures, key agreement, sealed shares, Shamir, SHA-256 of the model, of every
masked vector and of the sum, the SQLite journal. Flower's through its mod's stages. CPU time of the process, because
Flower's Shamir starts threads. Training is not in it: the updates are ready.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.secagg.journal import SiteJournal
from client.secagg.rules import PhaseRules, SecondAttempt, SitePolicy
from client.secagg.session import SiteSession
from client.secagg.state import Contribution
from common.secagg.messages import Packet
from common.secagg.order import Order, model_digest
from common.secagg.thresholds import default_threshold, least_survivors
from common.secagg.vector import VectorSpec
from server.secagg.session import ServerSession
from simulation.benchmarks.cpu_time import best_seconds
from simulation.benchmarks.flower_secagg import FlowerSteps
from simulation.benchmarks.secagg_arithmetic import NO_META, benchmark_body, site_vector

COLLUDERS = 1
_NO_DIGEST = bytes(32)
_FEDERATION = "benchmark"
_SESSION_S = 3600
_MOST_ATTEMPTS = 1000

Result = TypeVar("Result")


class CpuAccount:
    """The CPU seconds of each call of one party, in order."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def charge(self, step: Callable[[], Result]) -> Result:
        """Run ``step`` on this account."""
        start_s = time.process_time()
        result = step()
        self.seconds.append(time.process_time() - start_s)
        return result


class ReadyUpdate:
    """``RoundWork`` of a site that has trained already and keeps no ledger."""

    def __init__(self, spec: VectorSpec, site: int, *, kept: bool) -> None:
        self._spec, self._site = spec, site
        self._kept = site_vector(site, spec.body_length) if kept else None

    def contribute(self, order: Order, model: memoryview, until_unix_s: float) -> Contribution:
        """Return the update; a site whose time is measured has it as float32, ready in memory."""
        del order, model, until_unix_s
        return Contribution(NO_META, benchmark_body(self._spec, self._site) if self._kept is None else self._kept)

    def spend(self, order: Order) -> None:
        """Keep no ledger."""

    def ledger_head(self, order: Order) -> bytes:
        """Keep no ledger."""
        del order
        return _NO_DIGEST

    def abandon(self, order: Order) -> None:
        """Keep no ledger."""


@dataclass(frozen=True)
class WholeRound:
    """CPU seconds of each call of one site and of the server, and the bytes that carry one masked vector."""

    site_s: list[float]
    server_s: list[float]
    masked_bytes: int


class OurFederation:
    """Sites with journals in ``folder`` and the keys of a coordinator; runs one round after another."""

    def __init__(self, spec: VectorSpec, *, sites: int, dropped: int, folder: Path) -> None:
        self._spec, self._folder = spec, folder
        self._names = [f"site-{u:03d}" for u in range(sites)]
        self._survivors = self._names[: sites - dropped]
        # The last to be asked: its vector goes where the one before it was, as Flower's repeated steps reuse memory.
        self._measured = self._survivors[-1]
        self._keys = {name: Ed25519PrivateKey.generate() for name in self._names}
        self._order_key = Ed25519PrivateKey.generate()
        self._identities = {name: key.public_key().public_bytes_raw() for name, key in self._keys.items()}
        self._model = np.zeros(spec.body_length, np.float32).data.cast("B")
        self._attempt = 0
        self._sessions = {name: self._session(u, name) for u, name in enumerate(self._names)}

    def _session(self, site: int, name: str) -> SiteSession:
        phase = PhaseRules(
            layout_digest=_NO_DIGEST,
            task_digest=_NO_DIGEST,
            privacy_digest=_NO_DIGEST,
            model_bytes=self._model.nbytes,
            rounds=1,
            meta_words=self._spec.meta_words,
            body_length=self._spec.body_length,
            coordinate_range=self._spec.coordinate_range,
            word_bits=frozenset({self._spec.word_bits}),
            second_attempt=SecondAttempt.STORED_UPDATE,
            maximum_attempts=_MOST_ATTEMPTS,
        )
        policy = SitePolicy(
            site_id=name,
            federation=_FEDERATION,
            epoch=1,
            roster_digest=_NO_DIGEST,
            identities=self._identities,
            order_key=self._order_key.public_key().public_bytes_raw(),
            plan_digest=_NO_DIGEST,
            phases=(phase,),
            confirmed=frozenset(self._identities),
            colluders=COLLUDERS,
        )
        journal = SiteJournal(self._folder / f"{name}.sqlite")
        work = ReadyUpdate(self._spec, site, kept=name == self._measured)
        return SiteSession(policy=policy, identity=self._keys[name], journal=journal, work=work)

    def _order(self) -> Order:
        self._attempt += 1
        return Order(
            federation=_FEDERATION,
            epoch=1,
            roster_digest=_NO_DIGEST,
            plan_digest=_NO_DIGEST,
            phase=0,
            round_number=1,
            attempt=self._attempt,
            nonce=secrets.token_bytes(32),
            cohort=tuple(self._names),
            threshold=default_threshold(len(self._names), COLLUDERS),
            minimum_survivors=least_survivors(COLLUDERS),
            colluders=COLLUDERS,
            **self._spec.to_fields(),  # type: ignore[arg-type]
            layout_digest=_NO_DIGEST,
            task_digest=_NO_DIGEST,
            privacy_digest=_NO_DIGEST,
            model_digest=model_digest(_NO_DIGEST, _NO_DIGEST, self._model),
            model_bytes=self._model.nbytes,
            deadline_unix_s=int(time.time()) + _SESSION_S,
        )

    def run_round(self) -> WholeRound:
        """Run one attempt; the sites that drop out do so instead of sending their masked vector."""
        order, server_cpu, site_cpu, masked_bytes = self._order(), CpuAccount(), CpuAccount(), 0
        server = server_cpu.charge(
            lambda: ServerSession(
                order=order, order_key=self._order_key, identities=self._identities, model=self._model
            )
        )
        packets = server_cpu.charge(server.start)
        for stage in range(5):
            for name, packet in packets.items():
                if stage >= 2 and name not in self._survivors:
                    continue
                answer = self._ask(name, packet, site_cpu)
                taken = server_cpu.charge(partial(server.receive, answer.message, answer.payload))
                if not taken.is_taken:
                    raise RuntimeError(f"the server refused an answer in stage {stage}: {taken.check}")
                masked_bytes = max(masked_bytes, len(answer.message) + answer.payload.nbytes)
                del answer
            packets = server_cpu.charge(server.advance) if stage < 4 else {}
        opened = server_cpu.charge(server.finish)
        server_cpu.charge(lambda: opened.total.decode_mean(in_place=True))
        return WholeRound(site_cpu.seconds, server_cpu.seconds, masked_bytes)

    def _ask(self, name: str, packet: Packet, site_cpu: CpuAccount) -> Packet:
        session = self._sessions[name]
        account = site_cpu if name == self._measured else CpuAccount()
        return account.charge(partial(session.receive, packet.message, packet.payload))


@dataclass(frozen=True)
class WholeTimes:
    """CPU seconds of whole rounds; ``flower_server_extra_s`` is what Flower's server does beside its arithmetic."""

    site_s: float
    server_s: float
    masked_bytes: int
    flower_site_s: float
    flower_server_extra_s: float
    flower_masked_bytes: int


def _sum_of_least(rounds: list[list[float]]) -> float:
    """Return the sum over calls of the least seconds a call took in any round."""
    total: float = sum(min(call) for call in zip(*rounds, strict=True))
    return total


def time_whole(federation: OurFederation, flower: FlowerSteps, *, repeats: int) -> WholeTimes:
    """Run whole rounds of ours and the steps of Flower's in turn; keep the least seconds of each call or step."""
    rounds: list[WholeRound] = []
    steps = {"ours": lambda: rounds.append(federation.run_round()), **flower.site, **flower.server}
    best = best_seconds(steps, repeats=repeats, clock=time.process_time)
    return WholeTimes(
        site_s=_sum_of_least([each.site_s for each in rounds]),
        server_s=_sum_of_least([each.server_s for each in rounds]),
        masked_bytes=rounds[0].masked_bytes,
        flower_site_s=sum(best[name] for name in flower.site),
        flower_server_extra_s=sum(best[name] for name in flower.server),
        flower_masked_bytes=flower.masked_bytes,
    )

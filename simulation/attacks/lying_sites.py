"""Hospitals that answer every message as they should but one: around a real session, signed with the real identity."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.secagg.session import SiteSession
from client.secagg.state import MaskedState, UnmaskedState
from common.secagg.keys import sign
from common.secagg.messages import Masked, Packet, Unmask, decode, encode
from common.secagg.stages import SITE_SENDS
from common.secagg.statements import masked_statement, unmask_statement

When = Callable[[frozenset[str]], bool]


def always(cohort: frozenset[str]) -> bool:
    """Lie in every cohort."""
    del cohort
    return True


def beside(*victims: str) -> When:
    """Lie only where one of these takes part too: so that it is suspected."""
    return lambda cohort: bool(cohort & set(victims))


class LyingSite:
    """A site's session whose answers pass through ``lie``; everything else is the session's own."""

    def __init__(self, session: SiteSession, identity: Ed25519PrivateKey, when: When = always) -> None:
        self._session, self.identity, self._when = session, identity, when

    def receive(self, message: bytes | memoryview, payload: bytes | memoryview = b"") -> Packet:
        """Answer, and lie where it is time."""
        packet = self._session.receive(message, payload)
        state = self._session._state  # noqa: SLF001 (its owner may look)
        if isinstance(state, MaskedState | UnmaskedState) and self._when(frozenset(state.order.cohort)):
            return self.lie(decode(packet.message, SITE_SENDS)[1], packet, state)
        return packet

    def lie(self, sent: Any, packet: Packet, state: MaskedState | UnmaskedState) -> Packet:
        """Return what is sent instead."""
        del sent, state
        return packet

    def __getattr__(self, name: str) -> Any:
        """Everything else is the session's."""
        return getattr(self._session, name)


class GarbageSite(LyingSite):
    """Sends random words as its masked vector, and signs them: nothing but the check of the sum can see it."""

    def lie(self, sent: Any, packet: Packet, state: MaskedState | UnmaskedState) -> Packet:
        """Replace the vector."""
        if not (isinstance(sent, Masked) and isinstance(state, MaskedState)):
            return packet
        noise = np.frombuffer(os.urandom(len(packet.payload)), np.uint8)
        vector = np.frombuffer(packet.payload, np.uint8) ^ noise
        digest = hashlib.sha256(vector.data).digest()
        statement = masked_statement(sent.session_id, state.dealers_digest, sent.site_id, digest)
        forged = replace(sent, vector_digest=digest, signature=sign(self.identity, *statement))
        return Packet(encode(forged), vector.data)


class WrongShareSite(LyingSite):
    """Opens zeros instead of the shares that it holds, and signs them: without a spare share no secret is rebuilt."""

    def lie(self, sent: Any, packet: Packet, state: MaskedState | UnmaskedState) -> Packet:
        """Replace the shares."""
        if not (isinstance(sent, Unmask) and isinstance(state, UnmaskedState)):
            return packet
        forged = replace(sent, seed_shares=tuple(replace(each, share=bytes(66)) for each in sent.seed_shares))
        statement = unmask_statement(forged, state.survivors_digest)
        return Packet(encode(replace(forged, signature=sign(self.identity, *statement))))

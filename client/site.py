"""One hospital as the network meets it: messages in, recorded messages out, everything else behind.

    site = Site.open(folder)
    packet = site.answer(Kind.ORDER, message, payload)     # never raises; what comes back may leave

A message is handed to the session of the approved study it belongs to; the answer goes through the outbox, which
records it before it leaves. One study at a time: an order of another study ends the session of the first. The site
holds no open connection and obeys no message but those of ``common.secagg.stages``.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from client.consent.continuity.losses import require_whole
from client.consent.open_studies import OpenStudies, OpenStudy
from client.installation.audit_log import audit
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from client.installation.outbox import HELLO, Outbox
from client.learning.speed import Speed
from client.round_work import StudyWork
from client.secagg.journal import SiteJournal
from client.secagg.session import SiteSession
from common.errors import FedwardError
from common.plan.shape import ShapesOf
from common.plan.shapes_here import shapes_here
from common.secagg.keys import sign
from common.secagg.messages import Packet, Refusal, SignedOrder, decode, encode
from common.secagg.order import decode_order, order_digest
from common.secagg.refusals import TABLE, Check, RefusedError
from common.secagg.stages import SITE_RECEIVES, SITE_SENDS, Kind
from common.secagg.statements import refusal_statement
from common.secagg.wire import WireError
from common.trust.identity import public_bytes, read_signing_key
from common.trust.provenance import code_digest
from common.trust.roster import read_roster

_log = logging.getLogger("fedward.site")
_UNSIGNED = bytes(64)
_TWO_TRUTHS = frozenset({Check.R0_RESULT, Check.R1_RESULTS})

WorkMaker = Callable[[SiteFolder, OpenStudy], StudyWork]


@dataclass(frozen=True)
class _Running:
    """A study with its session; ``payload_bytes``: exactly what its masked vectors have."""

    study: OpenStudy
    session: SiteSession
    payload_bytes: int


class Site:
    """A site folder in use. Safe to call from several threads; messages are worked on one after the other.

    ``holds_replies``: an answer to an order waits for the end of its slot; only simulated hospitals do not.

    Raises (on opening): NotEnrolledError, KeyExposedError, RosterBadSignatureError, PolicyInvalidError,
    ChainBrokenError, RecordLostError: a site that is not in order does not start.
    """

    def __init__(
        self,
        folder: SiteFolder,
        work_for: WorkMaker,
        *,
        threads: int = 1,
        shapes_of: ShapesOf = shapes_here,
        holds_replies: bool = True,
    ) -> None:
        folder.require()
        require_whole(folder)
        self.folder = folder
        self._identity = read_signing_key(folder.key)
        self.site_id = _own_name(folder, public_bytes(self._identity.public_key()))
        self.outbox = Outbox(folder.outbox)
        self._journal = SiteJournal(folder.journal)
        self._studies = OpenStudies(folder, shapes_of)
        self._studies.current()
        self._work_for, self._threads, self._holds_replies = work_for, threads, holds_replies
        self._turn = threading.Lock()
        self._sessions: dict[bytes, _Running] = {}
        self._active: bytes | None = None

    @classmethod
    def open(
        cls, path: Path, *, speed: Speed | None = None, engines: Path | None = None, holds_replies: bool = True
    ) -> "Site":
        """Open the site at ``path``, training in this process. ``speed``: settings that change nothing but time.

        ``engines``: folder of engines chosen before, the site's own if not given; simulated hospitals share one.
        """
        from client.trainer.local_work import local_work  # noqa: PLC0415 (PyTorch: an agent leaves it to its trainer)

        chosen = speed or Speed()
        return cls(
            SiteFolder(path),
            lambda folder, study: local_work(folder, study, chosen, engines),
            threads=chosen.masking_threads,
            holds_replies=holds_replies,
        )

    def hello(self) -> str:
        """Record that this site says who it is, and return the digest of the code that it runs."""
        self.outbox.release(HELLO, Packet(code_digest().encode()), study="")
        return code_digest()

    def answer(self, kind: Kind, message: bytes, payload: memoryview) -> Packet:
        """Answer one message of the server; a refusal is an answer. Never raises for what a message holds.

        ``payload``: comes back released where it was a model that is trained on: it may be large.
        Raises: OutboxRefusedError, ChainBrokenError, OSError when the answer cannot be recorded: nothing leaves then.
        """
        came_s = time.time()  # what opening a study takes follows its patients too
        with self._turn:
            if kind is Kind.ORDER:
                self._active = self._route(message)
            if self._active is None:
                return self._release(self._refusal(Check.R0_PLAN, _order_in(message)), study="", most=0)
            running = self._sessions[self._active]
            packet = running.session.receive(message, payload, came_s=came_s)
            released = self._release(packet, study=self._active.hex(), most=running.payload_bytes)
            return released if self._holds_replies else replace(released, delay_s=0.0)

    def expire(self) -> None:
        """Wipe sessions whose deadline has passed; the agent calls this now and then."""
        for running in self._sessions.values():
            running.session.expire()

    def leave(self) -> None:
        """End the session under way, as when the site's staff pause it: the federation sees a dropout."""
        with self._turn:
            if self._active is not None:
                self._sessions[self._active].session.wipe()
            self._active = None

    def _route(self, message: bytes) -> bytes | None:
        """Return the digest of the approved plan that an order names, with a session for it; None when there is none.

        A paused site, a withdrawn approval and a tightened policy all show here, at each order.
        """
        if self._active is not None:
            self._sessions[self._active].session.wipe()
        if self.folder.paused.exists():
            _log.warning("an order came while this site is paused")
            return None
        try:
            _, signed = decode(message, SITE_RECEIVES)
            plan = decode_order(signed.order).plan_digest if isinstance(signed, SignedOrder) else b""
            study = self._studies.current().get(plan)
            if study is None:
                _log.warning("an order came for a plan that is not approved here")
                return None
            if plan not in self._sessions or self._sessions[plan].study is not study:
                self._sessions[plan] = self._begin(study)
        except (RefusedError, WireError):
            _log.warning("an order came that could not be read")
            return None
        except FedwardError as error:
            _log.error("this site cannot work on the study: code %d", error.exit_code)
            return None
        return plan

    def _begin(self, study: OpenStudy) -> _Running:
        require_whole(self.folder)
        work = self._work_for(self.folder, study)
        session = SiteSession(
            policy=study.rules, identity=self._identity, journal=self._journal, work=work, threads=self._threads
        )
        return _Running(study, session, work.payload_bytes)

    def _release(self, packet: Packet, *, study: str, most: int) -> Packet:
        kind, sent = decode(packet.message, SITE_SENDS)
        if kind is Kind.REFUSAL and sent.check in _TWO_TRUTHS:
            entry: dict[str, object] = {"what": "two truths", "plan": study, "check": str(sent.check)}
            audit(self.folder, {**entry, "told_otherwise": sent.about, "time": int(time.time())})
            _log.error("two truths (%s): this site was told another result of an earlier attempt", sent.check)
        return self.outbox.release(kind, packet, study=study, max_payload_bytes=most)

    def _refusal(self, check: Check, reference: bytes) -> Packet:
        """Return a signed refusal of a message that belongs to no session; ``reference``: the order it is about."""
        refusal = Refusal(
            reference=reference, site_id=self.site_id, code=TABLE[check].code, about="", signature=_UNSIGNED
        )
        signature = sign(self._identity, *refusal_statement(refusal))
        return Packet(
            encode(
                Refusal(
                    reference=refusal.reference,
                    site_id=refusal.site_id,
                    code=refusal.code,
                    about=refusal.about,
                    signature=signature,
                )
            )
        )


def _order_in(message: bytes) -> bytes:
    """Return the digest of the order in a message, so that a refusal says of what; zeros where there is none."""
    try:
        _, signed = decode(message, SITE_RECEIVES)
    except (RefusedError, WireError):
        return bytes(32)
    return order_digest(signed.order) if isinstance(signed, SignedOrder) else bytes(32)


def _own_name(folder: SiteFolder, own_key: bytes) -> str:
    """Return the name under which the roster lists this site's key."""
    roster = read_roster(folder.roster)
    names = [name for name, key in roster.sites.items() if public_bytes(key) == own_key]
    if not names:
        raise NotEnrolledError(f"{folder.roster}: this site's key is not in the roster; ask the coordinator")
    return names[0]


# The sites that this process keeps open: in a hospital one, in a simulation many. A site stays open between messages,
# because the secrets of a session live in memory only.
_open: dict[Path, Site] = {}
_lock = threading.Lock()


def keep_open(site: Site) -> None:
    """Use this site from now on for its folder (the agent and the simulation open sites with their own settings)."""
    with _lock:
        _open[site.folder.path.resolve()] = site


def site_at(folder: str) -> Site:
    """Return the open site of a folder, opening it at the first call.

    The folder comes from the node's own configuration, never from a message or a run config.
    Raises: what ``Site`` raises on opening.
    """
    path = _resolved(folder)
    with _lock:
        if path not in _open:
            _open[path] = Site.open(path)
        return _open[path]


def forget(folder: Path) -> None:
    """Close a site: its session's secrets are gone, which the federation sees as a dropout."""
    with _lock:
        _open.pop(folder.resolve(), None)


@lru_cache(maxsize=4096)
def _resolved(folder: str) -> Path:
    """Return where a folder really is; remembered, because it is asked at each message."""
    return Path(folder).resolve()

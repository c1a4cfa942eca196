"""Alarms: a program or an address is told when a study waits, goes on, or ends.

What is told are names of hospitals and studies, fixed codes, times and sentences made of them: nothing of a patient. It
is told by a thread of its own, so that a program that hangs holds nobody up; what cannot be told is in the log, and in
``fedward-server status``.
"""

import json
import logging
import queue
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from server.deployment.federation_status import keeping
from server.federation.alarm_settings import AlarmsSection
from server.federation.folder import FederationFolder

FORMAT: Final = "fedward-event/1"
TELL_TIMEOUT_S: Final = 30.0
MOST_WAITING: Final = 100  # events that were not told yet; more are dropped, and that is logged

_log = logging.getLogger("fedward.alarms")


@dataclass
class _Known:
    """What was last seen of a study. ``told``: the event that was told last."""

    situation: str
    since_s: float
    told: str


@dataclass
class Alarms:
    """Looks at the studies of a federation, and tells what changed. ``failure``: why the last event was not told."""

    folder: FederationFolder
    settings: AlarmsSection
    failure: str = ""
    _known: dict[str, _Known] = field(default_factory=dict)
    _queue: "queue.Queue[dict[str, Any]]" = field(default_factory=lambda: queue.Queue(MOST_WAITING))
    _thread: threading.Thread | None = None

    def look(self, now_s: float) -> None:
        """Look at every study; an event is told once the study has been in it for ``after_s``. ``now_s``: monotonic."""
        if not self.settings.on_event and not self.settings.webhook:
            return
        for name in self.folder.study_names():
            facts = keeping(self.folder.study(name))
            situation = _situation(facts)
            known = self._known.get(name)
            if known is None:  # what is so already when this process starts is news only if the study waits
                known = self._known[name] = _Known(situation, now_s, "goes_on" if situation == "waiting" else situation)
            if known.situation != situation:
                known.situation, known.since_s = situation, now_s
            after_s = self.settings.after_s if situation == "waiting" else 0.0
            if situation != known.told and now_s >= known.since_s + after_s:
                if situation == "ended" or "waiting" in {situation, known.told}:
                    self._put(event(name, situation, facts))
                known.told = situation

    def _put(self, told: dict[str, Any]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="alarms", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(told)
        except queue.Full:
            self.failure = f"{MOST_WAITING} events wait to be told; this one was dropped"
            _log.error("%s", self.failure)

    def _work(self) -> None:
        while True:
            self.failure = tell(self.settings, self._queue.get())
            self._queue.task_done()


def event(study: str, situation: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of a study: ``waiting``, ``goes_on`` or ``ended``, with names, codes and sentences."""
    waiting, ended = facts["waiting"], facts["ended"]
    told: dict[str, Any] = {"format": FORMAT, "study": study, "event": situation, "unix_s": time.time()}
    if situation == "waiting" and waiting:
        told |= {"since_unix_s": waiting["since_unix_s"], "for": waiting["for"]}
    if situation == "ended" and ended:
        told |= ended
    return told


def tell(settings: AlarmsSection, told: dict[str, Any]) -> str:
    """Give one event to the program and the address; return why that failed, in a sentence, or nothing."""
    content, failures = json.dumps(told).encode(), []
    if settings.on_event:
        try:
            done = subprocess.run(
                settings.command, input=content, capture_output=True, timeout=TELL_TIMEOUT_S, check=False
            )
            if done.returncode:
                failures.append(f"on_event ended with {done.returncode}")
        except (OSError, subprocess.TimeoutExpired) as error:
            failures.append(f"on_event did not work ({type(error).__name__})")
    if settings.webhook:
        try:
            headers = {"content-type": "application/json"}
            with httpx.Client(timeout=TELL_TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
                answer = client.post(settings.webhook, content=content, headers=headers)
            if not answer.is_success:
                failures.append(f"the webhook answered {answer.status_code}")
        except httpx.HTTPError as error:
            failures.append(f"the webhook could not be reached ({type(error).__name__})")
    for failure in failures:
        _log.error("an alarm was not told: %s", failure)
    return "; ".join(failures)


def _situation(facts: dict[str, Any]) -> str:
    if facts["waiting"]:
        return "waiting"
    return "ended" if facts["ended"] and not facts["wanted"] and not facts["running"] else "goes_on"

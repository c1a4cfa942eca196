"""The agent's side of choosing engines: one short-lived child after the other, looked at now and then."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from client.consent.approval import CheckedPlan
from client.installation.config import SpeedSection
from client.installation.folder import SiteFolder
from client.processes.child_process import end
from common.files import parsed_json
from common.flower.environment import child_environment

PATIENCE_S: Final = 0.0
KILLED_S: Final = 5.0
LONGEST_LINE: Final = 4096

_log = logging.getLogger("fedward.agent")

Told = Callable[[str, int | None], None]  # plan digest, seconds of processor time left at most; None: it is over


class WarmUp:
    """Tries engines for each approved plan, once in this process's life; ``look`` at it often. Close it in the end.

    A child that fails costs nothing but the choice: one patient at a time is what stands then.
    """

    def __init__(self, folder: SiteFolder, speed: SpeedSection, told: Told) -> None:
        self._folder, self._speed, self._told = folder, speed, told
        self._begun: set[str] = set()
        self._child: subprocess.Popen[bytes] | None = None
        self._plan, self._heard = "", b""

    @property
    def is_busy(self) -> bool:
        """Tell whether a child is at work."""
        return self._child is not None

    def look(self, studies: Iterable[CheckedPlan]) -> None:
        """Hear what the child says; without one start the next. Never waits."""
        if self._child is not None:
            self._listen(self._child)
            return
        for study in studies:
            if study.plan.digest() not in self._begun:
                self._begun.add(study.plan.digest())
                self._start(study)
                return

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            end(self._child, patience_s=PATIENCE_S, killed_s=KILLED_S)
            self._child = None

    def _start(self, study: CheckedPlan) -> None:
        self._plan, self._heard = study.plan.digest(), b""
        asked = {
            "plan": study.plan.canonical().decode(),
            "site": study.site_id,
            "speed": self._speed.model_dump_json(),
            "engines": str(self._folder.engines.resolve()),
        }
        try:
            child = subprocess.Popen(
                (sys.executable, "-m", "client.trainer.measuring"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
                bufsize=0,
            )
            assert child.stdin is not None  # noqa: S101 (for the type checker; started with pipes)
            assert child.stdout is not None  # noqa: S101
            os.set_blocking(child.stdout.fileno(), False)
            with suppress(BrokenPipeError):  # its end says so
                child.stdin.write(json.dumps(asked).encode() + b"\n")
        except OSError as error:
            _log.warning("engines are not tried (%s); gradients are made one patient at a time", error.strerror)
            return
        self._child = child

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        """Take the lines that have come; at the end of them say how it ended."""
        assert child.stdout is not None  # noqa: S101
        try:
            came = os.read(child.stdout.fileno(), LONGEST_LINE)
        except BlockingIOError:
            return
        *lines, self._heard = (self._heard + came).split(b"\n")
        said = [_read(line) for line in lines]
        for line in said:
            if type(line.get("left_s")) is int:
                self._told(self._plan, line["left_s"])
        last = said[-1] if said else {}
        if came == b"" or len(self._heard) > LONGEST_LINE or not last.keys().isdisjoint({"done", "failed"}):
            end(child, patience_s=KILLED_S, killed_s=KILLED_S)
            child.stdout.close()
            self._child = None
            self._over(last, child.returncode)

    def _over(self, last: dict[str, Any], status: int | None) -> None:
        if "done" not in last:
            why = str(last.get("sentence", f"its process ended with status {status}"))
            _log.warning("no engine was chosen for plan %s: %s; one patient at a time", self._plan[:12], why)
        self._told(self._plan, None)


def _read(line: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        found = parsed_json(line)
        if isinstance(found, dict):
            return found
    return {}

"""The commands' side of computing features: one fenced child at a time, watched, and started again where it stopped."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from client.consent.policy import read_policy
from client.errors import TrainerFailedError
from client.features.counting import count_features
from client.features.site_encoder import site_encoder
from client.installation.folder import SiteFolder
from client.processes.child_process import end
from client.trainer import fence
from client.trainer.process import told
from common.encoders.checking import check_encoder
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.files import parsed_json
from common.flower.environment import child_environment
from common.plan.plan import StudyPlan

MOST_CRASHES: Final = 20  # of children in the middle of a scan; then it is not the scans
PATIENCE: Final = 2  # crashes at one scan before it is given up: it has no features then
KILLED_S: Final = 5.0
READY_S: Final = 900.0  # to load the encoder and try it on a made-up image; a checked file takes seconds
PROGRAM: Final[tuple[str, ...]] = ("-m", "client.trainer.feature_work")

_log = logging.getLogger("fedward.site")

Told = Callable[[int, int], None]  # scans that are done, of how many


def compute_features(folder: SiteFolder, plan: StudyPlan, told_of: Told = lambda _done, _of: None) -> int:
    """Compute the features that a study's scans lack here; return for how many scans it was done.

    Interrupted at any moment, what was computed stays. A scan at which the child ends twice has no features.
    Raises: EncoderInvalidError (also where it is not here), PlanInvalidError, DiskFullError;
    TrainerFailedError when the child ends before the first scan, or again and again.
    """
    found, lacking = site_encoder(folder, plan), count_features(folder, plan)
    if found is None or lacking is None or lacking.missing == 0:
        return 0
    check_encoder(*found, limit_bytes=read_policy(folder.policy).largest_encoder_bytes)
    before, at_one_scan = 0, 0
    for _ in range(MOST_CRASHES):
        child = _Child(folder, plan, give_up_first=at_one_scan >= PATIENCE)
        for done in child.lines():
            told_of(before + done, lacking.missing)
        if child.has_ended:
            return lacking.missing
        if child.was_slow:
            raise EncoderInvalidError(
                f"the encoder {found[1].name} was not loaded and tried on a made-up image in {READY_S:g} s",
                EncoderFault.RUN,
            )
        if not child.is_ready:
            raise TrainerFailedError(
                f"the process that computes features ended ({child.status}) before the first scan; is there enough "
                "memory for the encoder?"
            )
        at_one_scan = at_one_scan + 1 if child.done == 0 else 0
        before += child.done
        _log.warning("the process that computes features ended (%s) after %d scans; again", child.status, before)
    raise TrainerFailedError("the process that computes features ended again and again; see the system's log")


class _Child:
    """One run of ``client.trainer.feature_work``.

    ``done``: scans; ``has_ended``: as it should; ``was_slow``: not ready in ``READY_S``, so it was ended.
    """

    def __init__(self, folder: SiteFolder, plan: StudyPlan, *, give_up_first: bool) -> None:
        where = str(folder.path.resolve())
        fenced = (sys.executable, "-I", "-S", fence.__file__, where)
        self.done, self.is_ready, self.has_ended, self.was_slow, self.status = 0, False, False, False, ""
        self._asked = json.dumps({"plan": plan.canonical().decode(), "give_up_first": give_up_first}).encode() + b"\n"
        try:
            self._child = subprocess.Popen(
                (*fenced, sys.executable, *PROGRAM, where),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=child_environment(),
            )
        except OSError as error:
            raise TrainerFailedError(f"no process can be started to compute features ({error.strerror})") from None

    def lines(self) -> Iterator[int]:
        """Yield how many scans are done, as the child says it. Raises: the child's own FedwardError."""
        assert self._child.stdin is not None  # noqa: S101 (for the type checker; started with pipes)
        assert self._child.stdout is not None  # noqa: S101
        patience = threading.Timer(READY_S, self._end_slow)
        patience.daemon = True
        patience.start()
        try:
            with suppress(BrokenPipeError):  # its end says so
                self._child.stdin.write(self._asked)
                self._child.stdin.flush()
            for line in self._child.stdout:
                said = _read(line)
                if "failed" in said:
                    raise told(said)
                if "ready" in said:
                    self.is_ready = True
                    patience.cancel()
                self.has_ended = self.has_ended or "ended" in said
                if type(said.get("done")) is int:
                    self.done = said["done"]
                    yield self.done
        finally:
            patience.cancel()
            end(self._child, patience_s=KILLED_S if self.has_ended else 0.0, killed_s=KILLED_S)
            code = self._child.returncode
            self.status = "killed" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"
            self._child.stdout.close()

    def _end_slow(self) -> None:
        if not self.is_ready:
            self.was_slow = True
            self._child.kill()


def _read(line: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        found = parsed_json(line)
        if isinstance(found, dict):
            return found
    return {}

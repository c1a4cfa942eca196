"""The agent's side of the trainer: starts it, asks it, survives it, and ends it when a person says so."""

import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from client.errors import MemoryEndedError, TrainerFailedError, TrainingStoppedError
from client.installation.config import SpeedSection
from client.installation.folder import SiteFolder
from client.processes.child_process import end
from client.processes.frames import ChannelClosedError, receive, send
from client.trainer import fence
from common.errors import FedwardError, error_of
from common.files import replace_atomically
from common.flower.environment import child_environment

LOOK_EVERY_S: Final = 0.1  # whether training may go on
ANSWER_S: Final = 600.0  # to a question without a deadline of its own
PATIENCE_S: Final = 1.0  # for an orderly end
KILLED_S: Final = 10.0  # for the kernel to take a killed process away
KILLED: Final = "signal 9"
REPLY_S: Final = 60.0  # from the first byte of an answer to its last
_log = logging.getLogger("fedward.agent")

Answer = tuple[dict[str, Any], bytearray]


class TrainerProcess:
    """The process that trains for one site; a dead one is replaced at the next question.

    ``ended_by_staff``: asked while the trainer works; once it says yes, the process is killed.
    For one thread that stays until the end: the kernel ends the process with it. ``close`` it.
    """

    def __init__(
        self, folder: SiteFolder, speed: SpeedSection, *, ended_by_staff: Callable[[], bool] = lambda: False
    ) -> None:
        self._folder, self._speed, self._ended_by_staff = folder, speed, ended_by_staff
        self._pid_file = folder.state / "trainer.pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._replies = -1
        self._deadline_unix_s = 0.0
        self.starts = 0

    def warm_up(self) -> None:
        """Start the process if there is none, without waiting for it: loading PyTorch takes seconds."""
        self._running()

    def ask(
        self,
        question: dict[str, Any],
        body: memoryview | None = None,
        *,
        max_body_bytes: int = 0,
        deadline_unix_s: float | None = None,
    ) -> Answer:
        """Return the trainer's answer. ``body``: flat bytes; comes back released, because it may be large.

        ``deadline_unix_s``: when nobody wants the answer any more; ten minutes from now if not given.
        Raises: the trainer's own FedwardError; TrainerFailedError when it ended, met a fault or was late, of these
        MemoryEndedError when it was killed or said so;
        TrainingStoppedError when ``ended_by_staff`` said so, before the deadline.
        """
        self._deadline_unix_s = time.time() + ANSWER_S if deadline_unix_s is None else deadline_unix_s
        process = self._running()
        try:
            head, reply = self._asked(process, question, body, max_body_bytes)
        except ChannelClosedError:
            status = self._end()
            if status == KILLED:  # by the system when memory ends: training goes first (``client.trainer.fence``)
                raise MemoryEndedError(f"the process that trains ended ({status}) at work") from None
            raise TrainerFailedError(f"the process that trains ended ({status}) at work") from None
        except BaseException:
            self._end(patience_s=0)  # what it computes now, nobody waits for
            raise
        if "failed" in head:
            raise told(head)
        return head, reply

    def close(self) -> None:
        """End the process; it holds nothing worth keeping."""
        self._end(patience_s=0)

    def _asked(
        self,
        process: subprocess.Popen[bytes],
        question: dict[str, Any],
        body: memoryview | None,
        max_body_bytes: int,
    ) -> Answer:
        assert process.stdin is not None  # noqa: S101 (for the type checker; started with a pipe)
        questions = process.stdin.fileno()
        with memoryview(b"") if body is None else body as content:
            send(questions, question, content, wait=lambda: self._wait(questions, select.POLLOUT))
        self._wait(self._replies, select.POLLIN)
        try:
            return receive(self._replies, max_body_bytes=max_body_bytes, timeout_s=REPLY_S)
        except TimeoutError:
            raise TrainerFailedError("the process that trains stopped in the middle of its answer") from None

    def _wait(self, descriptor: int, event: int) -> None:
        """Wait until the trainer reads or writes.

        The deadline comes first: whoever pauses because a round hangs gives no reason that is independent of the data.
        Raises: TrainerFailedError past the deadline; TrainingStoppedError when the staff ended it before.
        """
        poller = select.poll()
        poller.register(descriptor, event)
        while not poller.poll(LOOK_EVERY_S * 1000):
            if time.time() >= self._deadline_unix_s:
                raise TrainerFailedError("the process that trains was not done in time")
            if self._ended_by_staff():
                raise TrainingStoppedError("training was ended: the site was paused, or the approval withdrawn")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and _has_ended(self._process):
            _log.warning("the process that trains had ended (%s); starting another", self._end())
        if self._process is None:
            self._process = self._started()
            self.starts += 1
            self._introduce(self._process)
        return self._process

    def _started(self) -> subprocess.Popen[bytes]:
        self._replies, child_end = os.pipe2(os.O_CLOEXEC)
        folder = str(self._folder.path.resolve())
        fenced = (sys.executable, "-I", "-S", fence.__file__, folder)
        command = (*fenced, sys.executable, "-m", "client.trainer", str(child_end), folder)
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, pass_fds=(child_end,), env=child_environment(), bufsize=0
            )
        except OSError as error:
            os.close(self._replies)
            raise TrainerFailedError(f"no process can be started to train ({error.strerror})") from None
        finally:
            os.close(child_end)
        return process

    def _introduce(self, process: subprocess.Popen[bytes]) -> None:
        """Tell scripts of the process, and the process of its settings."""
        try:
            replace_atomically(self._pid_file, f"{process.pid}\n".encode(), 0o600)
        except (OSError, FedwardError):
            _log.warning("trainer.pid cannot be written; is the disk full?")
        assert process.stdin is not None  # noqa: S101
        os.set_blocking(process.stdin.fileno(), False)
        with suppress(ChannelClosedError):  # whoever asks finds out
            send(process.stdin.fileno(), {"speed": self._speed.model_dump_json()})

    def _end(self, patience_s: float = PATIENCE_S) -> str:
        """End the process and return how it ended, in words."""
        process, self._process = self._process, None
        if process is None:
            return "not running"
        os.close(self._replies)
        end(process, patience_s=patience_s, killed_s=KILLED_S)
        self._pid_file.unlink(missing_ok=True)
        status = process.returncode
        if status is None:
            return "killed, and still there"
        return f"signal {-status}" if status < 0 else f"exit status {status}"


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether nobody reads questions any more; a process that was killed a moment ago may still have a status."""
    assert process.stdin is not None  # noqa: S101
    poller = select.poll()
    poller.register(process.stdin.fileno(), 0)  # nothing but errors: the other end is closed
    return process.poll() is not None or bool(poller.poll(0))


def told(head: dict[str, Any]) -> FedwardError:
    """Return the error that the trainer tells of. It cannot say that a person ended it: that gives budget back."""
    sentence = str(head.get("sentence", ""))
    code = head["failed"] if type(head["failed"]) is int else -1
    known = error_of(code, sentence, name=str(head.get("name", "")))
    if known is None or isinstance(known, TrainingStoppedError):
        return TrainerFailedError(f"the trainer met {sentence}")
    return known

"""The parent's side of the worker processes: starts them, feeds them, survives them.

Results come back in the order of the requests whatever the number of workers, so two runs over one folder make the same
decisions (which of two equal files is the duplicate).
"""

import os
import queue
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from client.dicom.errors import WorkerStartError
from client.dicom.facts import Facts, checked
from client.dicom.limits import MIB, SILENCE_WALL_S, processor_time_s
from client.dicom.person_rules import PersonRules
from client.dicom.pseudonyms import NOBODY_DECIDED, derive
from client.dicom.reject import RejectCode, Rejected
from client.dicom.settings import IngestSettings
from client.processes.child_process import end
from client.processes.frames import ChannelClosedError, receive, send

FILES_BEFORE_RENEWAL = 4096
START_WALL_S = 120.0
SOURCE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Request:
    """One piece of work: ``items`` are answered one after the other, each with a verdict.

    ``body``: an array that goes with the request, at most ``Pool``'s ``max_request_bytes`` long.
    """

    task: str
    items: list[Any]
    body: bytes = b""


@dataclass(slots=True)
class Outcome:
    """What became of one item: a code, or records and further facts.

    ``is_transient``: silent for too long, which may be the disk's or the network's fault: tried again. ``body``: bytes
    that came with the verdict.
    """

    code: RejectCode | None = None
    is_transient: bool = False
    records: list[tuple[Facts, bytearray]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)
    body: bytes | bytearray = b""


class WorkerProcess:
    """One fenced process; dead ones are replaced on the next use."""

    def __init__(self, module: str, roots: tuple[int, ...], start: dict[str, Any], max_record_bytes: int) -> None:
        self._module, self._roots, self._start, self._max_record_bytes = module, roots, start, max_record_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._replies = -1
        self._answered = 0
        self._stopped = False

    def stop(self) -> None:
        """Give up what is under way (called from another thread, which may not close this one's pipes)."""
        self._stopped = True
        if (process := self._process) is not None:
            process.kill()

    def run(self, request: Request) -> list[Outcome]:
        """Have every item answered; an item that kills its worker gets a code, the rest goes to a new worker.

        After ``stop`` the list may be shorter.
        """
        outcomes: list[Outcome] = []
        while len(outcomes) < len(request.items) and not self._stopped:
            remaining = request.items[len(outcomes) :]
            try:
                self._ask(request, remaining, outcomes)
            except TimeoutError:
                self.close()
                outcomes.append(Outcome(RejectCode.TIME_LIMIT, is_transient=True))
            except (ChannelClosedError, Rejected):
                outcomes.append(Outcome(self._cause_of_death()))
        return outcomes

    def _ask(self, request: Request, remaining: list[Any], outcomes: list[Outcome]) -> None:
        process = self._running()
        assert process.stdin is not None  # noqa: S101 (for the type checker; started with a pipe)
        send(process.stdin.fileno(), {"task": request.task, "files": remaining}, request.body)
        for _ in remaining:
            outcomes.append(self._next_outcome())
            self._answered += 1
        if self._answered >= FILES_BEFORE_RENEWAL or any(o.code is RejectCode.MEMORY for o in outcomes):
            self.close()

    def _next_outcome(self) -> Outcome:
        outcome = Outcome()
        while True:
            self._await_message()
            head, body = receive(self._replies, max_body_bytes=self._max_record_bytes, timeout_s=SILENCE_WALL_S)
            if head.get("end") is True:
                outcome.end, outcome.body = head, body
                outcome.code = _code(head.get("code"))
                return outcome
            if head.get("alive") is True:
                continue
            facts = head.get("facts")
            outcome.records.append((checked(facts if isinstance(facts, dict) else {}), body))

    def _await_message(self) -> None:
        """Wait as long as the worker lives: it speaks, or uses processor time (of which the kernel limits it).

        Raises: TimeoutError after ``SILENCE_WALL_S`` without either.
        """
        process = self._process
        assert process is not None  # noqa: S101 (it was just asked)
        poller, used_s = select.poll(), processor_time_s(process.pid)
        poller.register(self._replies, select.POLLIN)
        while not poller.poll(SILENCE_WALL_S * 1000):
            before_s, used_s = used_s, processor_time_s(process.pid)
            if used_s <= before_s:
                raise TimeoutError

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._replies, child_end = os.pipe2(os.O_CLOEXEC)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module, str(child_end), *map(str, self._roots)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(child_end, *self._roots),
                env=_environment(),
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the parent, which ends its workers by closing their pipes
            )
            os.close(child_end)
            self._answered = 0
            assert self._process.stdin is not None  # noqa: S101
            self._greet(self._process)
        return self._process

    def _greet(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101
        try:
            send(process.stdin.fileno(), self._start)
            receive(self._replies, timeout_s=START_WALL_S)
        except (ChannelClosedError, TimeoutError):
            self.close()
            raise WorkerStartError(
                "a worker process that reads scans did not start; is the program installed completely, "
                "and is there memory for 1.5 GB a worker?"
            ) from None

    def _cause_of_death(self) -> RejectCode:
        process = self._process
        self.close(patience_s=0.5)
        too_long = process is not None and process.returncode == -signal.SIGXCPU
        return RejectCode.TIME_LIMIT if too_long else RejectCode.WORKER_DIED

    def close(self, patience_s: float = 0) -> None:
        """End the process (it holds nothing worth keeping); one that hangs in the kernel (a dead mount) is left."""
        if self._process is None:
            return
        process, self._process = self._process, None
        os.close(self._replies)
        end(process, patience_s=patience_s, killed_s=1.0)


class Pool:
    """A fixed number of workers of one module; use as a context manager.

    ``folders``: the scan folder, and where segmentation files lie, if any; workers get them as open descriptors.
    ``max_record_bytes``: size of the largest array a worker may send (checked before it is allocated);
    ``max_request_bytes``: of the largest one that goes with a request.
    """

    def __init__(
        self,
        module: str,
        folders: Sequence[Path],
        settings: IngestSettings,
        *,
        secret: bytes,
        workers: int,
        max_record_bytes: int,
        max_request_bytes: int = 0,
        rules: PersonRules = NOBODY_DECIDED,
    ) -> None:
        start = {
            "settings": settings.model_dump_json(),
            "identity_key": derive(secret, "fedward identity/1"),
            "persons": rules.to_wire(),
            "extra_memory_bytes": 6 * (max_record_bytes + max_request_bytes),
            "max_request_bytes": max_request_bytes,
        }
        self._roots = tuple(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for folder in folders)
        self._workers = [WorkerProcess(module, self._roots, start, max_record_bytes) for _ in range(workers)]
        self._idle: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="ingest")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            for worker in self._workers:
                worker.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        for root in self._roots:
            os.close(root)

    def outcomes(self, requests: Iterable[Request]) -> Iterator[tuple[Request, list[Outcome]]]:
        """Yield each request with the outcomes of its items, in order; at most a few requests are under way."""
        under_way: deque[tuple[Request, Future[list[Outcome]]]] = deque()
        for request in requests:
            under_way.append((request, self._threads.submit(self._run, request)))
            if len(under_way) > 2 * len(self._workers):
                first, future = under_way.popleft()
                yield first, future.result()
        for request, future in under_way:
            yield request, future.result()

    def _run(self, request: Request) -> list[Outcome]:
        worker = self._idle.get()
        try:
            return worker.run(request)
        finally:
            self._idle.put(worker)


def _code(value: object) -> RejectCode | None:
    if value == "":
        return None
    try:
        return RejectCode(str(value))
    except ValueError:
        raise Rejected(RejectCode.WORKER_DIED) from None


def _environment() -> dict[str, str]:
    """Return an environment with nothing of ours in it but where the program lies and one thread for arithmetic.

    glibc gives blocks of a picture's size back to the kernel after each use; fetching them again costs as much as the
    arithmetic (3.5 against 2.0 ms for a slice), so workers keep them. Other C libraries ignore the two names.
    """
    keep = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(256 * MIB))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"PYTHONPATH": str(SOURCE_ROOT), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8", **threads, **keep}

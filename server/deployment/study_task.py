"""One study's ServerApp in a process of its own, over the SuperLink's runtime interface (Flower 1.41 internals).

The same as Flower's ``flwr-serverapp`` with three differences: the token comes on standard input, so that nobody reads
it in the list of processes; nothing that came with the run is unpacked or executed, and another bundle than the pointer
ends the process; and of the run's configuration nothing is read: the executor names the study, and everything else is
in its signed plan.
"""

import logging
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import httpx
from flwr.common.constant import SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PullTaskInputResponse, PushTaskOutputRequest
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.retry import exponential
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity

from common.errors import FedwardError, of_system
from common.faults import fault_without_text
from common.flower.environment import require_flower
from common.flower.objects import spare_memory
from common.flower.pointer import pointer_digest
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.plan.shape import longest_sum
from common.plan.sizes import largest_payload_bytes
from server.app import run_study
from server.attempts.retries import WAITS_FOR_EVER
from server.attempts.run_options import RunOptions
from server.deployment.endings import forget_ending, write_ending
from server.deployment.going_on import GoOnSignal
from server.deployment.loopback_tls import loopback_authority
from server.deployment.score_noise import ScoreNoise
from server.deployment.study_grid import SMALL_REPLY_BYTES, StudyGrid
from server.deployment.study_readiness import say_ready
from server.errors import StudyFolderInvalidError
from server.federation.config import read_coordinator_config
from server.federation.folder import FederationFolder
from server.model.evaluation import take_noise_from
from server.study.events import LoggedEvents, RunEnd
from server.study.folder import StudyFolder
from server.study.live_status import LiveFile

LONGEST_RETRY_S: Final = 2
LINGER_S: Final = 3.0  # a SuperNode may be fetching the last message, see ``server.deployment.executor``
EXIT_FAILED: Final = 1

_log = logging.getLogger("fedward.study")


@dataclass(frozen=True)
class StopSignals:
    """When to stop: the mark that wants the study is gone, or the process was asked to end."""

    asked: threading.Event
    folder: FederationFolder
    study: str

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self.asked.is_set() or not self.folder.wanted(self.study).exists()


def main(folder: FederationFolder, study: str, tokens: IO[str]) -> int:
    """Say that the process is ready, wait for the token, run the study until it ends, and return the exit status.

    How it ended is in ``server.deployment.endings``.
    """
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {study} %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request
    logging.getLogger("flwr").propagate = False  # it has an output of its own
    require_flower()
    place, asked = folder.existing_study(study), threading.Event()
    try:
        say_ready(folder, study)
    except FedwardError as error:  # a full disk: the executor starts another process later
        _log.error("%s", error)
        return EXIT_FAILED
    token = tokens.readline().strip()
    if not token:
        return EXIT_FAILED  # the executor has gone
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    forget_ending(place)
    grid = _grid(folder, token)
    status, details = SubStatus.FAILED, "failed"
    try:
        ended = _run(folder, study, grid, StopSignals(asked, folder, study))
        write_ending(place, ended.state, ended.sentence)
        time.sleep(LINGER_S)
        status, details = SubStatus.COMPLETED, ended.state.value
    except FedwardError as error:
        _note_failure(place, error)
    except Exception as error:  # noqa: BLE001 (the last net: what became of the study must be noted)
        if lacking := of_system(error):
            _note_failure(place, lacking)
        else:
            _log.exception("the study met an unexpected fault")
            write_ending(place, None, f"unexpected {fault_without_text(error)}: this is a bug; see the log")
    finally:
        _hand_in(grid, status, details)
    return 0 if status == SubStatus.COMPLETED else EXIT_FAILED


def _note_failure(place: Path, error: FedwardError) -> None:
    """Say why the run failed; where the disk is full, in the log alone."""
    _log.error("%s", error)
    with suppress(FedwardError):
        write_ending(place, None, str(error))


def _grid(folder: FederationFolder, token: str) -> StudyGrid:
    spare_memory()
    authority = loopback_authority(folder).read_bytes()
    address = read_coordinator_config(folder.config).superlink_address
    grid = StudyGrid(address, authority=authority, token=token)
    # a SuperLink that starts again is found within two seconds, not within twenty
    grid._retry_invoker.wait_gen_factory = lambda: exponential(base_delay=0.2, max_delay=LONGEST_RETRY_S)  # noqa: SLF001
    return grid


def _run(folder: FederationFolder, study: str, grid: StudyGrid, should_stop: StopSignals) -> RunEnd:
    """Take the task, check that it is the pointer's, and run the study."""
    config = read_coordinator_config(folder.config)
    client = grid._runtime_client  # noqa: SLF001 (Flower keeps it to itself; the version is pinned)
    HeartbeatSender(make_task_heartbeat_fn_http(client)).start()
    task = client.PullTaskInput(PullTaskInputRequest())
    _check_bundle(task)
    TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
    TaskIdentity.node_id = task.context.node_id
    grid.set_run(run_from_proto(task.run))
    place = folder.existing_study(study)
    plan = read_plan(StudyFolder(place).plan)
    grid.largest_reply_bytes = SMALL_REPLY_BYTES + largest_payload_bytes(plan, longest_body=longest_sum(plan))
    _find_score_noise(plan)
    watcher = LiveFile(place, LoggedEvents())
    poll_s = config.running.poll_interval_s
    # a look costs the SuperLink 10 ms and more of its one interpreter, so the first comes no sooner than the others
    options = RunOptions(
        events=watcher,
        should_stop=should_stop,
        asked_to_go_on=GoOnSignal(place),
        settings=WAITS_FOR_EVER,
        longest_poll_s=poll_s,
        first_poll_s=poll_s,
    )
    return run_study(grid, place, options)


def _find_score_noise(plan: StudyPlan) -> None:
    """Have the noise of the study's scores found beside this process, where there are scores with noise."""
    if plan.evaluation.held_out and plan.privacy.delta is not None:
        take_noise_from(plan, ScoreNoise(plan))


def _check_bundle(task: PullTaskInputResponse) -> None:
    if task.run.fab_hash != pointer_digest():
        raise StudyFolderInvalidError(
            f"the run names bundle {task.run.fab_hash[:12]}…, this installation runs {pointer_digest()[:12]}… only; "
            "nothing of it was executed"
        )


def _hand_in(grid: StudyGrid, status: str, details: str) -> None:
    """Tell the SuperLink that the task is over; one that is away learns it from the missing heartbeats."""
    grid._retry_invoker.max_tries = 1  # noqa: SLF001 (else it would try for ever)
    try:
        request = PushTaskOutputRequest(sub_status=status, details=details)
        grid._runtime_client.PushTaskOutput(request)  # noqa: SLF001
    except (httpx.HTTPError, RunNotRunningException) as error:
        _log.warning("the SuperLink was not told (%s)", type(error).__name__)

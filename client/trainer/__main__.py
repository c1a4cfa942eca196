"""The trainer's process: ``python -m client.trainer REPLIES SITE_FOLDER``, started by ``client.trainer.process``.

Questions come through standard input, answers go to the descriptor REPLIES. It ends when the agent does, also in the
middle of training. It holds the cache's secret and no other key, opens no connection, and leaves no core file.
"""

import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from client.installation.config import SpeedSection
from client.installation.folder import SiteFolder
from client.learning.assignment import Assignment, Sums
from client.learning.speed import Speed, speed_of
from client.processes.frames import ChannelClosedError, receive, send
from client.trainer.device_memory import free_on, require_device
from client.trainer.memory_limit import limit_of
from client.trainer.study_training import StudyTraining
from common.errors import ExitCode, FedwardError
from common.faults import fault_without_text
from common.plan.plan import StudyPlan
from common.processes.hardening import shut_process

MAX_MODEL_BYTES: Final = 1 << 33  # the agent has compared the model's size with the plan's

_log = logging.getLogger("fedward.trainer")


class Trainer:
    """The studies that this process trains for, and its answers."""

    def __init__(self, folder: SiteFolder, speed: Speed) -> None:
        self._folder, self._speed = folder, speed
        self._studies: dict[str, StudyTraining] = {}

    def open(self, question: dict[str, Any]) -> int:
        """Open a study: cache, patients, public images; return how many patients may go side by side.

        Raises: as ``StudyTraining.open``; TrainerFailedError for a GPU that is gone.
        """
        plan = StudyPlan.model_validate_json(question["plan"], strict=False)
        require_device(self._speed.device)
        limit = limit_of(self._folder, plan, device=self._speed.device, free=free_on(self._speed.device))
        speed = replace(self._speed, limit=limit)
        self._studies[plan.digest()] = StudyTraining.open(self._folder, plan, site_id=question["site"], speed=speed)
        return min(limit, speed.patients_at_once)

    def begin(self, question: dict[str, Any], model: memoryview) -> tuple[Sums, Sums]:
        """Begin one round. Raises: as ``StudyTraining.begin``."""
        assignment = Assignment(
            question["phase"],
            question["round"],
            question["evaluated"],
            question["scored"],
            trained=question["trained"],
        )
        return self._studies[question["plan"]].begin(assignment, model)

    def go_on(self, question: dict[str, Any], difference: memoryview) -> Sums:
        """Take the next local step. Raises: as ``StudyTraining.go_on``."""
        return self._studies[question["plan"]].go_on(np.frombuffer(difference, "<f4"))


def serve(trainer: Trainer, replies: int) -> None:
    """Answer questions until the agent closes the pipe; whatever fails is an answer."""
    while True:
        question, body = receive(sys.stdin.fileno(), max_body_bytes=MAX_MODEL_BYTES)
        model = memoryview(body)
        del body  # from here on it goes when the training lets go of the view
        if question["do"] == "open":
            _answer(replies, lambda question=question: ({"at_once": trainer.open(question)}, []))  # type: ignore[misc]
        else:
            _answer(replies, lambda question=question, model=model: ({}, _work(trainer, question, model)))  # type: ignore[misc]
        with suppress(BufferError):  # something of a failed training still looks at it
            model.release()


def _work(trainer: Trainer, question: dict[str, Any], model: memoryview) -> list[memoryview]:
    found = trainer.begin(question, model) if question["do"] == "begin" else [trainer.go_on(question, model)]
    return [each.data.cast("B") for each in found]


def _answer(replies: int, work: Callable[[], tuple[dict[str, Any], list[memoryview]]]) -> None:
    try:
        head, parts = work()
    except FedwardError as error:
        _log.error("refused: %s", fault_without_text(error))
        send(replies, {"failed": int(error.exit_code), "name": type(error).__name__, "sentence": str(error)})
    except Exception as error:  # noqa: BLE001 (its text may hold what is in a scan)
        _log.error("training met %s", fault_without_text(error))
        send(replies, {"failed": int(ExitCode.INTERNAL), "sentence": fault_without_text(error)})
    else:
        send(replies, head, *parts)


def end_with_the_agent() -> None:
    """End this process as soon as the other end of standard input is closed, whatever it does at the moment."""
    poller = select.poll()
    poller.register(sys.stdin.fileno(), 0)  # nothing but the end of the pipe

    def watch() -> None:
        poller.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Serve the agent that started this process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent, which ends this process
    shut_process()
    os.umask(0o077)
    end_with_the_agent()
    try:
        start, _ = receive(sys.stdin.fileno())
        speed = speed_of(SpeedSection.model_validate_json(start["speed"], strict=False))
        serve(Trainer(SiteFolder(Path(sys.argv[2])), speed), int(sys.argv[1]))
    except ChannelClosedError:
        return


if __name__ == "__main__":
    main()

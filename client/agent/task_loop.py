"""The agent's day: take a task, check it, let the locally installed ClientApp work, hand back the reply; again.

    1. acquire            only CLIENT_APP tasks, with the runtime secret; keep the claim on disk
    2. pull               message, context, bundle; the message's identity joins the claim
    3. check              client.agent.task_checks; a rejection is a fixed code and a line in the local log
    4. work               client.app, with a context of our own making: this folder, no run config, no state
    5. reply, then finish the claim is dropped in between: an answered task is over for us

Nothing of an exception's text leaves: ``client.app`` turns faults into one code, and what escapes it is caught here.
A SuperNode that is away, restarts or forgets a task ends that task for us, never this loop.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flwr.app import Context, Error, Message, RecordDict

from client.agent.claim import Claim, drop_claim, read_claim, write_claim
from client.agent.flower_runtime import PulledTask, Runtime, RuntimeAwayError, RuntimeRefusedError, RuntimeTask
from client.agent.pace import Pace
from client.agent.progress import ProgressFeed
from client.agent.task_checks import Rejection, check_task
from client.app import FAULT_CODE, SITE_FOLDER, app
from common.control.site_control_pb2 import Connection, Step
from common.faults import fault_without_text

LONGEST_PAUSE_S: Final = 2.0  # between two looks for a SuperNode that is away

_log = logging.getLogger("fedward.agent")


class TaskLoop:
    """Tasks of one SuperNode, one after the other, for the site in ``folder``.

    ``between``: called between two tasks (expiry of sessions). Attributes: connection, tasks, rejected: for ``Status``.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        folder: Path,
        claim_file: Path,
        feed: ProgressFeed,
        pace: Pace,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._runtime, self._folder, self._claim_file = runtime, folder.resolve(), claim_file
        self._feed, self._pace, self._between = feed, pace, between
        self.connection = Connection.CONNECTION_AWAY
        self.tasks, self.rejected = 0, 0
        self._ending = False

    def end(self) -> None:
        """Let ``run`` end now, whatever is under way; for a signal handler. Raises: SystemExit."""
        self._ending = True
        raise SystemExit(0)

    def run(self) -> None:
        """Work until ``end``."""
        self.answer_for_the_dead()
        while not self._ending:
            worked = self.step()
            self._between()
            if not worked:
                time.sleep(self._pause_s())

    def step(self) -> bool:
        """Look for a task once, and work on it; tell whether there was one."""
        try:
            token = self._runtime.acquire()
        except RuntimeAwayError:
            self._note(Connection.CONNECTION_AWAY)
            return False
        except RuntimeRefusedError:
            self._note(Connection.CONNECTION_REFUSED)
            return False
        self._note(Connection.CONNECTION_UP)
        if token is None:
            return False
        self._pace.work_came()
        write_claim(self._claim_file, token)
        self._serve(token)
        self._pace.work_came()
        return True

    def answer_for_the_dead(self) -> None:
        """Reply for the task in which an agent before this one was killed; work on one that it had only taken."""
        claim = read_claim(self._claim_file)
        if claim is None:
            drop_claim(self._claim_file)
        elif claim.metadata is None:
            self._serve(claim.token)
        else:
            self._give_up(claim)

    def _serve(self, token: str) -> None:
        task = self._runtime.open(token)
        try:
            self._answer(task, token, task.pull())
        except (RuntimeAwayError, RuntimeRefusedError) as error:
            _log.warning("the SuperNode is away or forgot the task (%s); the task is dropped", error)
        finally:
            task.close()
        drop_claim(self._claim_file)

    def _answer(self, task: RuntimeTask, token: str, pulled: PulledTask) -> None:
        reply = _interrupted(pulled.message)
        try:
            write_claim(self._claim_file, token, pulled.message.metadata)
            self.tasks += 1
            reply = self._rejected(pulled) or self._worked(pulled)
        finally:  # also when this process is told to end: the SuperNode waits for a reply
            task.reply(reply, pulled.context)
            drop_claim(self._claim_file)
            task.finish(pulled.context, completed=not reply.has_error())

    def _rejected(self, pulled: PulledTask) -> Message | None:
        said = pulled.message.metadata
        why = check_task(pulled.bundle, said.message_type, expires_at_s=said.created_at + said.ttl, now_s=time.time())
        if why is None:
            return None
        self.rejected += 1
        self._feed.publish(Step.STEP_REJECTED, code=why)
        _log.error("a task was rejected before any work: %s (code %d)", why.name, why)
        return _error(pulled.message, why)

    def _worked(self, pulled: PulledTask) -> Message:
        """Let the app answer. Folder and configuration are ours; what came with the task is not looked at."""
        own = Context(
            run_id=pulled.context.run_id,
            node_id=pulled.context.node_id,
            node_config={SITE_FOLDER: str(self._folder)},
            state=RecordDict(),
            run_config={},
        )
        try:
            reply = app(message=pulled.message, context=own)
        except Exception as error:  # noqa: BLE001 (its text must not travel)
            _log.error("the app met %s", fault_without_text(error))
            reply = _error(pulled.message, FAULT_CODE)
        if reply.has_error():
            self._feed.publish(Step.STEP_FAILED, code=reply.error.code)
        return reply

    def _give_up(self, claim: Claim) -> None:
        assert claim.metadata is not None  # noqa: S101 (for the type checker)
        asked = Message(metadata=claim.metadata, content=RecordDict())  # type: ignore[call-overload] # as Flower's own
        task = self._runtime.open(claim.token)
        try:
            context = Context(claim.metadata.run_id, claim.metadata.dst_node_id, {}, RecordDict(), {})
            task.reply(_interrupted(asked), context)
            task.finish(None, completed=False)
            self._feed.publish(Step.STEP_FAILED, code=Rejection.INTERRUPTED)
            _log.warning("answered for a task in which the agent before this one was killed")
        except (RuntimeAwayError, RuntimeRefusedError):
            _log.warning("the SuperNode no longer knows the task in which the agent before this one was killed")
        finally:
            task.close()
        drop_claim(self._claim_file)

    def _note(self, connection: Connection) -> None:
        if connection != self.connection:
            self.connection = connection
            _log.info("SuperNode: %s", Connection.Name(connection))

    def _pause_s(self) -> float:
        pause_s = self._pace.pause_s()
        return pause_s if self.connection == Connection.CONNECTION_UP else min(LONGEST_PAUSE_S, max(pause_s, 0.2))


def _interrupted(message: Message) -> Message:
    return _error(message, Rejection.INTERRUPTED)


def _error(message: Message, code: int) -> Message:
    return Message(Error(code=int(code), reason="rejected" if code != FAULT_CODE else "fault"), reply_to=message)

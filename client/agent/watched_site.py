"""The site as the agent keeps it open: it says what it does, and a pause or a withdrawal ends what is under way."""

from contextlib import suppress

from client.agent.progress import ProgressFeed
from client.consent.approval import CheckedPlan
from client.consent.open_studies import OpenStudy
from client.installation.audit_log import standing_approvals
from client.installation.config import SpeedSection
from client.installation.folder import SiteFolder
from client.round_work import StudyWork
from client.site import Site
from client.trainer.process import TrainerProcess
from client.trainer.remote_training import RemoteTraining
from client.trainer.warm_up import WarmUp
from common.control.site_control_pb2 import Step
from common.errors import FedwardError
from common.plan.shape import ShapesOf
from common.secagg.messages import Packet, Refusal, SignedOrder, decode
from common.secagg.order import decode_order
from common.secagg.refusals import RefusedError
from common.secagg.stages import SITE_RECEIVES, SITE_SENDS, Kind
from common.secagg.wire import WireError

STEPS = {
    Kind.KEYS: Step.STEP_KEYED,
    Kind.SHARES: Step.STEP_SHARED,
    Kind.MASKED: Step.STEP_MASKED,
    Kind.CONSISTENT: Step.STEP_CONSISTENT,
    Kind.UNMASK: Step.STEP_UNMASKED,
    Kind.RECORDED: Step.STEP_DONE,
    Kind.REFUSAL: Step.STEP_REFUSED,
}


class WatchedSite(Site):
    """A site that publishes each step, and whose training is done by a process of its own (``client.trainer``).

    A paused site refuses whatever comes, also in the middle of a round; training under way is ended. Close it in the
    end.
    """

    def __init__(self, folder: SiteFolder, speed: SpeedSection, feed: ProgressFeed, shapes_of: ShapesOf) -> None:
        self._feed = feed
        self._plan, self._round = "", 0
        self._audit_seen: object = None
        self._is_approved = True
        self._trainer = TrainerProcess(folder, speed, ended_by_staff=self._ended_by_staff)
        self._warm_up = WarmUp(folder, speed, self._measuring)
        super().__init__(folder, self._work, threads=speed.threads, shapes_of=shapes_of)
        if self._studies.current():
            self._trainer.warm_up()

    def close(self) -> None:
        """End the process that trains, and the one that tries engines."""
        self._warm_up.close()
        self._trainer.close()

    def warm_up(self) -> None:
        """Have engines tried for plans that were approved; to be called between two tasks, again and again."""
        studies: list[CheckedPlan] = []
        if not self._warm_up.is_busy:
            with suppress(FedwardError):  # the next order meets it, and says so
                studies = [study.checked for study in self._studies.current().values()]
        self._warm_up.look(studies)

    def _measuring(self, plan: str, left_s: int | None) -> None:
        step = Step.STEP_MEASURED if left_s is None else Step.STEP_MEASURING
        self._feed.publish(step, plan_digest=plan, left_s=left_s or 0)

    def _work(self, folder: SiteFolder, study: OpenStudy) -> StudyWork:
        plan, shapes = study.checked.plan, study.checked.shapes
        training = RemoteTraining(folder, self._trainer, plan, shapes, site_id=study.checked.site_id)
        return StudyWork.open(folder, study, training)

    def hello(self) -> str:
        """Say so, and do as every site does."""
        digest = super().hello()
        self._feed.publish(Step.STEP_GREETED)
        return digest

    def answer(self, kind: Kind, message: bytes, payload: memoryview) -> Packet:
        """Publish what begins and what it came to, and do as every site does."""
        if kind is Kind.ORDER:
            self._plan, self._round = _named(message)
            self._feed.publish(Step.STEP_TRAINING, plan_digest=self._plan, round_number=self._round)
        elif kind is not Kind.RESULT and not self._may_go_on():  # what was released is still recorded
            self.leave()
        packet = super().answer(kind, message, payload)
        sent, answer = decode(packet.message, SITE_SENDS)
        code = answer.code if isinstance(answer, Refusal) else 0
        self._feed.publish(STEPS[sent], plan_digest=self._plan, round_number=self._round, code=code)
        return packet

    def _ended_by_staff(self) -> bool:
        """Paused, or approval taken back: decisions of people, nothing else. Raises: ChainBrokenError, OSError."""
        if self.folder.paused.exists():
            return True
        state = self.folder.audit.stat()
        seen = (self._plan, state.st_ino, state.st_size, state.st_mtime_ns)
        if seen != self._audit_seen:
            self._is_approved = self._plan in standing_approvals(self.folder)
            self._audit_seen = seen
        return not self._is_approved

    def _may_go_on(self) -> bool:
        """Not paused, and the approval not withdrawn since the order came."""
        return not self.folder.paused.exists() and bytes.fromhex(self._plan) in self._studies.current()


def _named(message: bytes) -> tuple[str, int]:
    """Return plan digest and round that an order claims; the site has not checked it yet."""
    try:
        _, signed = decode(message, SITE_RECEIVES)
        order = decode_order(signed.order) if isinstance(signed, SignedOrder) else None
    except (RefusedError, WireError):
        order = None
    return (order.plan_digest.hex(), order.round_number) if order else ("", 0)

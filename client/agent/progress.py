"""What the agent is doing, as numbered events that whoever watches can follow. Nothing here leaves the building."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from common.control.site_control_pb2 import ProgressEvent, Step

KEPT: Final = 256  # a watcher that is slower than this misses events, and sees so by their numbers


@dataclass
class ProgressFeed:
    """The last events; safe from several threads."""

    def __post_init__(self) -> None:
        """Begin with the event that nothing has come yet."""
        self._changed = threading.Condition()
        self._events: deque[ProgressEvent] = deque(maxlen=KEPT)
        self._closed = False
        self.publish(Step.STEP_WAITING)

    @property
    def last(self) -> ProgressEvent:
        """The newest event."""
        with self._changed:
            return self._events[-1]

    def publish(
        self, step: Step, *, plan_digest: str = "", round_number: int = 0, code: int = 0, left_s: int = 0
    ) -> None:
        """Add an event; wake those who wait."""
        with self._changed:
            number = self._events[-1].number + 1 if self._events else 1
            self._events.append(
                ProgressEvent(
                    number=number,
                    time_s=int(time.time()),
                    step=step,
                    plan_digest=plan_digest,
                    round_number=round_number,
                    code=code,
                    left_s=left_s,
                )
            )
            self._changed.notify_all()

    def close(self) -> None:
        """Let every watcher come to its end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, after: int, timeout_s: float) -> list[ProgressEvent]:
        """Return the events newer than number ``after``; an empty list after ``timeout_s`` without any."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._events[-1].number > after, timeout_s)
            return [event for event in self._events if event.number > after]

    def follow(self, *, look_again_s: float = 1.0) -> Iterator[ProgressEvent | None]:
        """Yield the last event, then every new one, until ``close``; None now and then while nothing happens."""
        seen = self.last.number - 1
        while not self._closed:
            events = self.wait(seen, look_again_s)
            if not events:
                yield None
                continue
            yield from events
            seen = events[-1].number

"""Values that take seconds to compute, for a page that answers at once: the last one, while the next is made."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from common.errors import FedwardError
from common.web.freshness import Mark

T = TypeVar("T")


@dataclass(frozen=True)
class Known(Generic[T]):
    """What is known at the moment. ``trouble``: why there is no value. Neither: the first one is being computed."""

    value: T | None = None
    trouble: str | None = None


class Background(Generic[T]):
    """Computes a value in a thread whenever its sources' ``mark`` changed; one computation at a time."""

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute = compute
        self._lock = threading.Lock()
        self._known: Known[T] = Known()
        self._mark: Mark | None = None
        self._worker: threading.Thread | None = None

    def look(self, mark: Mark) -> Known[T]:
        """Return what is known; start computing where ``mark`` is not that of the last computation. Never blocks."""
        with self._lock:
            if self._worker is None and mark != self._mark:
                self._worker = threading.Thread(target=self._work, args=(mark,), daemon=True)
                self._worker.start()
            return self._known

    def wait(self, timeout_s: float) -> None:
        """Wait for the computation that is under way, if any."""
        worker = self._worker
        if worker is not None:
            worker.join(timeout_s)

    def _work(self, mark: Mark) -> None:
        try:
            known = Known(value=self._compute())
        except FedwardError as error:
            known = Known(trouble=str(error))
        except Exception as error:  # noqa: BLE001 (a page shows that something is wrong, whatever it is)
            known = Known(trouble=type(error).__name__)
        with self._lock:
            self._known, self._mark, self._worker = known, mark, None

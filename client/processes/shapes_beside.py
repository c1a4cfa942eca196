"""``python -m client.processes.shapes_beside``: what a plan's network makes of its phases, found beside the agent.

Finding it needs PyTorch, which takes 200 MB for as long as a process lives; the agent needs a few numbers, once for
each plan, so a child finds them. It runs also while the trainer is busy for hours.
"""

import json
import os
import subprocess
import sys
import threading
from typing import Final

from client.errors import TrainerFailedError
from common.errors import ExitCode, FedwardError, error_of
from common.faults import fault_without_text
from common.files import parsed_json
from common.flower.environment import child_environment
from common.plan.plan import StudyPlan
from common.plan.shape import PhaseShape, Shapes
from common.plan.shapes_here import shapes_here

TIMEOUT_S: Final = 120.0
KEPT: Final = 64  # plans


class ShapesBeside:
    """``shapes(plan)`` is ``common.plan.shapes_here`` of a plan, and is remembered. Safe for several threads."""

    def __init__(self) -> None:
        self._known: dict[str, Shapes] = {}
        self._turn = threading.Lock()

    def __call__(self, plan: StudyPlan) -> Shapes:
        """Return the shape of every phase.

        Raises: NetworkUnsuitableError, WeightsInvalidError; TrainerFailedError when the child fails.
        """
        digest = plan.digest()
        with self._turn:
            if digest not in self._known:
                self._known[digest] = _asked(plan)
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
            return self._known[digest]


def _asked(plan: StudyPlan) -> Shapes:
    try:
        child = subprocess.run(
            (sys.executable, "-m", "client.processes.shapes_beside"),
            input=plan.canonical(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            timeout=TIMEOUT_S,
            check=False,
        )
        said = parsed_json(child.stdout)
        if "failed" in said:
            raise error_of(said["failed"], said["sentence"]) or TrainerFailedError(said["sentence"])
        return tuple(
            PhaseShape(trained, layout_hash, travelling, length, bytes.fromhex(frozen))
            for trained, layout_hash, travelling, length, frozen in said["phases"]
        )
    except (OSError, ValueError, TypeError, KeyError, subprocess.TimeoutExpired) as error:
        raise TrainerFailedError(f"the plan's network could not be looked at ({type(error).__name__})") from None


def _counts_of(shape: PhaseShape) -> tuple[int, str, int, int]:
    return shape.num_parameters, shape.layout_hash, shape.travelling_parameters, shape.sum_length


def main() -> None:
    """Read a plan in its canonical form, and write the shape of each phase, or what is wrong with its network."""
    os.umask(0o077)
    try:
        plan = StudyPlan.model_validate_json(sys.stdin.buffer.read(), strict=False)
        phases = [(*_counts_of(shape), shape.frozen_digest.hex()) for shape in shapes_here(plan)]
        json.dump({"phases": phases}, sys.stdout)
    except FedwardError as error:
        json.dump({"failed": int(error.exit_code), "sentence": str(error)}, sys.stdout)
    except Exception as error:  # noqa: BLE001 (the last net: the agent learns its kind)
        json.dump({"failed": int(ExitCode.INTERNAL), "sentence": fault_without_text(error)}, sys.stdout)


if __name__ == "__main__":
    main()

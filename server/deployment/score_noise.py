"""``python -m server.deployment.score_noise``: the noise in a study's scores, found beside the study's own process.

Finding it needs the accountant (``common.privacy.accounting``), whose libraries take 75 MB for as long as a process
lives, and two seconds. A study's process holds two models at a time and needs the numbers once, so a child finds them.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
from functools import cached_property
from typing import Final

from common.files import parsed_json
from common.plan.plan import StudyPlan
from common.plan.selection import noise_stddev_of_counts

TIMEOUT_S: Final = 120.0
_LESS_URGENT: Final = 10  # the first score is read a round later
_log = logging.getLogger("fedward.study")


class ScoreNoise:
    """``noise(participants)`` is ``common.plan.selection.noise_stddev_of_counts`` of a plan, to the last bit.

    The child starts at once; the first call waits for it. What it does not give is computed here.
    """

    def __init__(self, plan: StudyPlan) -> None:
        self._plan = plan
        command = (sys.executable, "-m", "server.deployment.score_noise")
        self._child: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):  # no memory or no process left for a child
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            asked, self._child.stdin = self._child.stdin, None
            if asked is not None:
                with asked:
                    asked.write(plan.canonical())

    def __call__(self, participants: int) -> float:
        """Return the standard deviation of the noise in one count summed over ``participants`` sites, in patients."""
        found = self._found.get(participants)
        return noise_stddev_of_counts(self._plan, participants) if found is None else found

    @cached_property
    def _found(self) -> dict[int, float]:
        child, self._child = self._child, None
        try:
            said = b"" if child is None else child.communicate(timeout=TIMEOUT_S)[0]
            return dict(enumerate((float.fromhex(number) for number in parsed_json(said)), start=1))
        except (OSError, ValueError, TypeError, subprocess.TimeoutExpired):
            if child is not None:
                child.kill()
                child.wait()
            _log.warning("the noise of the scores was not found beside this process; it is computed here")
            return {}


def main() -> None:
    """Read a plan in its canonical form, and write the numbers for one site to the full cohort."""
    os.nice(_LESS_URGENT)
    plan = StudyPlan.model_validate_json(sys.stdin.buffer.read(), strict=False)
    sites = range(1, plan.round_size + 1)
    json.dump([noise_stddev_of_counts(plan, count).hex() for count in sites], sys.stdout)


if __name__ == "__main__":
    main()

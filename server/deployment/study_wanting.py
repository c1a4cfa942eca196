"""Wanting a study to run: a mark in its folder, which the executor and the study's own process look at."""

from common.files import replace_atomically, sync_folder
from server.deployment.endings import forget_ending, read_ending
from server.deployment.going_on import say_go_on
from server.errors import StudyStoppedError
from server.federation.admission import audit
from server.federation.folder import FederationFolder
from server.study.events import RunState
from server.study.folder import open_study, read_order_key
from server.study.live_status import is_running

NEVER_AGAIN = {RunState.FINISHED, RunState.NOT_SCORED, RunState.NO_ATTEMPT_LEFT, RunState.NO_ORDER_LEFT}


def want(folder: FederationFolder, study: str) -> None:
    """Have a study run until it is finished; one that runs already and waits asks every hospital at once.

    Raises: StudyStoppedError when nothing is left to run; what an incomplete or unsigned study raises.
    """
    place = folder.existing_study(study)
    read_order_key(open_study(place))
    ending = read_ending(place)
    if ending and ending.state in NEVER_AGAIN:
        raise StudyStoppedError(f"{study}: {ending.sentence}")
    if is_running(place):
        say_go_on(place)
    else:
        forget_ending(place)
    if not folder.wanted(study).exists():
        replace_atomically(folder.wanted(study), b"")
        audit(folder, "wanted", study=study)


def unwant(folder: FederationFolder, study: str) -> None:
    """Let a study stop after the attempt that is under way. Raises: FederationInvalidError."""
    place = folder.existing_study(study)
    if folder.wanted(study).exists():
        folder.wanted(study).unlink(missing_ok=True)
        sync_folder(place)
        audit(folder, "stopped", study=study)


def has_ended(folder: FederationFolder, study: str) -> bool:
    """Tell whether no run of the study is under way or to come."""
    return not folder.wanted(study).exists() and is_running(folder.existing_study(study)) is not True

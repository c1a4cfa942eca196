"""What a running study is doing at this moment, in one small file beside the journal that a status page reads.

The journal knows what was decided; this file knows what is under way: who is waited for, which stage, until when. It
is replaced at each event, holds names of sites, counts and codes, and nothing depends on it. A page shows it only while
the study's lock is held: after a crash it is old.
"""

import contextlib
import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from common.errors import FileTooLargeError, FileUnreadableError
from common.files import parsed_json, read_bounded
from server.study.events import AttemptStart, RoundEnd, RoundEvents, RunEnd
from server.study.journal_rows import AbortRow, AnswerRow

FILE_NAME: Final = "live.json"
ANSWERS_WITHIN_S: Final = 0.1
_MAX_BYTES: Final = 1 << 20


@dataclass
class LiveStatus:
    """The moment. ``doing``: ``waiting``, ``asking``, ``pausing`` (before the next attempt), ``applied``, ``ended``.

    online, needed: while waiting for sites. asked: kind of the message that is out, to ``sites``, to be answered before
    ``until_unix_s``. outcomes: site -> what became of it in this stage. sentence: how a run ended.
    """

    doing: str = "starting"
    unix_s: float = 0.0
    attempt: int | None = None
    online: int | None = None
    needed: int | None = None
    asked: str = ""
    sites: list[str] = field(default_factory=list)
    until_unix_s: float | None = None
    outcomes: dict[str, str] = field(default_factory=dict)
    sentence: str = ""


def read_live_status(study_folder: Path) -> LiveStatus | None:
    """Return what was written last; None where nothing (or nothing readable) lies there."""
    try:
        document = parsed_json(read_bounded(study_folder / FILE_NAME, _MAX_BYTES))
        return LiveStatus(**{name: document[name] for name in LiveStatus.__dataclass_fields__})
    except (FileUnreadableError, FileTooLargeError, ValueError, KeyError, TypeError):
        return None


class LiveFile:
    """Watches a run: writes ``live.json``, then tells ``then``. A disk that refuses the file disturbs nothing.

    Answers come in bursts, and may be hundreds: they are shown together, ``ANSWERS_WITHIN_S`` after the first.
    """

    def __init__(self, study_folder: Path, then: RoundEvents) -> None:
        self._path, self._then = study_folder / FILE_NAME, then
        self._now, self._turn = LiveStatus(), threading.Lock()
        self._later: threading.Timer | None = None

    def on_waiting(self, online: int, needed: int) -> None:
        """Note how many sites are there."""
        self._show(doing="waiting", online=online, needed=needed, attempt=None, sites=[], outcomes={}, asked="")
        self._then.on_waiting(online, needed)

    def on_attempt(self, start: AttemptStart) -> None:
        """Note the attempt."""
        self._show(doing="asking", attempt=start.attempt, sites=list(start.cohort), outcomes={}, asked="", sentence="")
        self._then.on_attempt(start)

    def on_stage(self, asked: str, sites: tuple[str, ...], timeout_s: float) -> None:
        """Note the stage."""
        until = time.time() + timeout_s
        self._show(doing="asking", asked=str(asked), sites=list(sites), outcomes={}, until_unix_s=until)
        self._then.on_stage(asked, sites, timeout_s)

    def on_answer(self, answer: AnswerRow) -> None:
        """Note one site's answer."""
        with self._turn:
            self._now.outcomes[answer.site] = answer.outcome
            if self._later is None:
                self._later = threading.Timer(ANSWERS_WITHIN_S, self._show)
                self._later.daemon = True
                self._later.start()
        self._then.on_answer(answer)

    def on_aborted(self, abort: AbortRow, wait_s: float) -> None:
        """Note that the attempt was given up."""
        self._show(doing="pausing", asked="", until_unix_s=time.time() + wait_s)
        self._then.on_aborted(abort, wait_s)

    def on_round(self, end: RoundEnd) -> None:
        """Note that a round was applied."""
        self._show(doing="applied", asked="", until_unix_s=None)
        self._then.on_round(end)

    def on_finished(self, end: RunEnd) -> None:
        """Note how the run ended."""
        self._show(doing="ended", asked="", sites=[], outcomes={}, until_unix_s=None, sentence=end.sentence)
        self._then.on_finished(end)

    def _show(self, **changed: Any) -> None:
        """Change the moment and write it; without a change from the timer's thread."""
        with self._turn:
            if self._later is None and not changed:
                return  # cancelled too late: it is written already
            if self._later is not None:
                self._later.cancel()
                self._later = None
            for name, value in changed.items():
                setattr(self._now, name, value)
            self._now.unix_s = time.time()
            beside = self._path.with_suffix(f".{os.getpid()}.tmp")
            with contextlib.suppress(OSError):  # whoever watches sees an old moment; the run goes on
                beside.write_text(json.dumps(asdict(self._now)), encoding="utf-8")
                beside.replace(self._path)


def is_running(study_folder: Path) -> bool | None:
    """Tell whether a process holds the study's lock, without touching it; None where the system does not say.

    Source: proc(5), /proc/locks: one line a lock, with major:minor:inode of its file. Only the inode is compared: an
    overlay file system shows another device than the lock's.
    """
    try:
        inode = (study_folder / ".lock").stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return False if Path("/proc/locks").exists() else None
    except OSError:
        return None
    return any(" FLOCK " in line and f":{inode} " in line for line in locks)

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
from server.study.waiting import Missing

FILE_NAME: Final = "live.json"
ANSWERS_WITHIN_S: Final = 0.1
LATER: Final = {"missing", "since_unix_s"}  # a file of before has none
_MAX_BYTES: Final = 1 << 20


@dataclass
class LiveStatus:
    """The moment. ``doing``: ``waiting``, ``asking``, ``pausing`` (before the next attempt), ``applied``, ``ended``.

    online, needed: while waiting for sites. asked: kind of the message that is out, to ``sites``, to be answered before
    ``until_unix_s``. outcomes: site -> what became of it in this stage. sentence: how a run ended. missing: for whom is
    waited (``server.study.waiting``), with what to do and a sentence for a person. since_unix_s: when a wait began,
    over attempts that came to nothing.
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
    missing: list[dict[str, Any]] = field(default_factory=list)
    since_unix_s: float | None = None


def read_live_status(study_folder: Path) -> LiveStatus | None:
    """Return what was written last; None where nothing (or nothing readable) lies there."""
    try:
        document = parsed_json(read_bounded(study_folder / FILE_NAME, _MAX_BYTES))
        known = LiveStatus.__dataclass_fields__
        return LiveStatus(**{name: document[name] for name in known if name in document or name not in LATER})
    except (FileUnreadableError, FileTooLargeError, ValueError, KeyError, TypeError):
        return None


def waiting_of(study_folder: Path) -> dict[str, Any] | None:
    """Return what a run waits for, by the file alone; None where it does not wait.

    ``hospitals`` and ``needed``: how many can be asked, of how many at least (None before the next attempt, which is
    then due at ``until_unix_s``). ``for``: each that is missing (``server.study.waiting``), with a sentence.
    """
    live = read_live_status(study_folder)
    if live is None or live.doing not in {"waiting", "pausing"} or (live.doing == "pausing" and not live.missing):
        return None
    is_pause = live.doing == "pausing"
    return {
        "since_unix_s": live.since_unix_s,
        "hospitals": None if is_pause else live.online,
        "needed": None if is_pause else live.needed,
        "until_unix_s": live.until_unix_s if is_pause else None,
        "for": live.missing,
    }


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
        since = self._now.since_unix_s or time.time()
        facts = {"online": online, "needed": needed, "since_unix_s": since}
        self._show(doing="waiting", attempt=None, sites=[], outcomes={}, asked="", **facts)
        self._then.on_waiting(online, needed)

    def on_missing(self, missing: tuple[Missing, ...]) -> None:
        """Note for whom is waited."""
        self._show(missing=[asdict(each) | {"do": each.do, "sentence": each.sentence} for each in missing])
        self._then.on_missing(missing)

    def on_attempt(self, start: AttemptStart) -> None:
        """Note the attempt."""
        self._show(
            doing="asking",
            attempt=start.attempt,
            sites=list(start.cohort),
            outcomes={},
            asked="",
            sentence="",
            missing=[],
        )
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
        since = self._now.since_unix_s or time.time()
        self._show(doing="pausing", asked="", until_unix_s=time.time() + wait_s, since_unix_s=since)
        self._then.on_aborted(abort, wait_s)

    def on_round(self, end: RoundEnd) -> None:
        """Note that a round was applied."""
        self._show(doing="applied", asked="", until_unix_s=None, since_unix_s=None)
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

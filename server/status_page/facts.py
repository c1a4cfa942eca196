"""What the page shows of one study, gathered from plan, journal and ``live.json``; nothing is written."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from common.errors import FedwardError
from common.plan.guarantee import seen_by
from common.plan.plan import StudyPlan
from common.web.freshness import mark_of
from server.deployment.endings import Ending, read_ending
from server.deployment.federation_status import machine_waits, sites_online
from server.federation.folder import FederationFolder
from server.study.folder import Study, open_study
from server.study.history import AttemptRecord, attempt_records
from server.study.journal_rows import AnswerRow
from server.study.live_status import LiveStatus, is_running, read_live_status, waiting_of
from server.study.status import read_journal, study_status

WANTED_NAME: Final = "wanted"  # the coordinator asked for this study to run
ROUNDS_FOR_ESTIMATE: Final = 5
ATTEMPTS_SHOWN: Final = 60  # one by one; earlier ones are in the counts


@dataclass(frozen=True, eq=False)
class StudyFacts:
    """One study at one moment.

    ``status``: as ``study_status`` returns it. ``running``: None where nobody can tell. ``ending``: how its last run
    ended. ``answers``: of the last ``ATTEMPTS_SHOWN`` attempts. ``connected``: sites whose node is there; None where
    nobody knows (the folder of a study alone).
    """

    study: Study
    status: dict[str, Any]
    attempts: tuple[AttemptRecord, ...]
    answers: tuple[AnswerRow, ...]
    live: LiveStatus | None
    running: bool | None
    wanted: bool
    ending: Ending | None = None
    connected: frozenset[str] | None = None

    @property
    def plan(self) -> StudyPlan:
        """The study's plan."""
        return self.study.plan

    @property
    def waiting(self) -> dict[str, Any] | None:
        """For whom the run waits (``server.study.live_status.waiting_of``); None where it does not, or none goes on."""
        place = self.study.folder.path
        machine = machine_waits(place) if self.wanted or self.running else None
        return machine or (waiting_of(place) if self.running else None)

    @property
    def is_finished(self) -> bool:
        """Tell whether the last round was applied."""
        return bool(self.status["state"] == "finished")

    def last_heard_unix_s(self) -> dict[str, float]:
        """Return when each site last answered in time, as far as the journal knows (an attempt is noted at its end)."""
        started = {record.ordered.attempt: record.ordered.unix_s for record in self.attempts}
        heard: dict[str, float] = {}
        for answer in self.answers:
            if answer.outcome not in {"timeout", "slow"} and answer.attempt in started:
                heard[answer.site] = started[answer.attempt] + answer.seconds
        return heard

    def sites_online(self) -> set[str]:
        """Return the sites that are there: by their nodes, where the executor looks after them.

        Elsewhere those that answered the latest question, or answer the one that is out now; empty while nothing runs.
        """
        if self.connected is not None:
            return {site.name for site in self.plan.sites} & self.connected
        if not self.running:
            return set()
        if self.live and self.live.outcomes:
            out = set(self.live.sites) - set(self.live.outcomes)
            return out | {site for site, outcome in self.live.outcomes.items() if outcome == "taken"}
        if self.live and self.live.doing == "asking":
            return set(self.live.sites)
        return self._answered_last()

    def seconds_left(self) -> float | None:
        """Return how long the rest may take, by the mean time of the last rounds; None before there are two."""
        done = [record.applied.unix_s for record in self.attempts if record.applied][-ROUNDS_FOR_ESTIMATE:]
        left = self.status["rounds_planned"] - self.status["rounds_applied"]
        if len(done) < 2 or self.is_finished or not self.running:
            return None
        return float((done[-1] - done[0]) / (len(done) - 1) * left)

    def _answered_last(self) -> set[str]:
        last = self.answers[-1].attempt if self.answers else 0
        return {answer.site for answer in self.answers if answer.attempt == last and answer.outcome == "taken"}


@dataclass
class StudyReader:
    """Reads one study folder again and again; what did not change is not computed again. Safe for several threads."""

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _study: tuple[tuple[int, ...], Study] | None = None
    _journal: tuple[tuple[int, ...], dict[str, Any], tuple[AttemptRecord, ...], tuple[AnswerRow, ...]] | None = None
    _seen_by: dict[str, dict[str, float] | None] = field(default_factory=dict)

    def read(self, connected: frozenset[str] | None = None) -> StudyFacts:
        """Return the study as it is now; ``connected``: sites whose node is there, where that is known.

        Raises: StudyFolderInvalidError and what plan, roster and signatures raise; sqlite3.Error.
        """
        with self._lock:
            study = self._open()
            status, attempts, answers = self._read_journal(study)
        return StudyFacts(
            study=study,
            status=status,
            attempts=attempts,
            answers=answers,
            live=read_live_status(self.path),
            running=is_running(self.path),
            wanted=(self.path / WANTED_NAME).exists(),
            ending=read_ending(self.path),
            connected=connected,
        )

    def epsilon_seen_by(self, plan: StudyPlan) -> dict[str, float] | None:
        """Return the plan's epsilon towards each kind of observer; accounted once."""
        with self._lock:
            if plan.digest() not in self._seen_by:
                seen = seen_by(plan)
                self._seen_by[plan.digest()] = None if seen is None else dict(vars(seen))
            return self._seen_by[plan.digest()]

    def _open(self) -> Study:
        mark = mark_of(self.path / "study.toml", self.path / "study.toml.sig", self.path / "roster.json")
        if self._study is None or self._study[0] != mark:
            self._study = mark, open_study(self.path)
        return self._study[1]

    def _read_journal(self, study: Study) -> tuple[dict[str, Any], tuple[AttemptRecord, ...], tuple[AnswerRow, ...]]:
        file = study.folder.journal
        mark = mark_of(file, file.with_name(file.name + "-wal"))
        if self._journal is None or self._journal[0] != mark:
            journal = read_journal(study)
            try:
                records = tuple(attempt_records(study, journal)) if journal else ()
                first = records[-1].ordered.attempt - ATTEMPTS_SHOWN if records else 0
                answers = tuple(answer for answer in journal.answers() if answer.attempt > first) if journal else ()
                self._journal = mark, study_status(study, journal), records, answers
            finally:
                if journal:
                    journal.close()
        return self._journal[1:]


@dataclass(frozen=True)
class UnreadableStudy:
    """A study folder that cannot be shown, and the sentence that says why."""

    name: str
    sentence: str


class Studies:
    """The studies of a coordinator's folder (``studies/NAME``), or the one study whose folder was given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._readers: dict[str, StudyReader] = {}

    def connected(self) -> frozenset[str] | None:
        """Return the sites whose node is there; None where no executor runs that would know."""
        online = sites_online(FederationFolder(self._folder))
        return frozenset(site for site, there in online.items() if there) if online else None

    def names(self) -> list[str]:
        """Return the names of the study folders, sorted."""
        return sorted(self._paths())

    def reader(self, name: str) -> StudyReader | None:
        """Return the reader of a study by its folder's name; None for a name that is not there."""
        path = self._paths().get(name)
        return None if path is None else self._readers.setdefault(name, StudyReader(path))

    def all(self) -> list[StudyFacts | UnreadableStudy]:
        """Return every study, readable or not."""
        return [self._read(name) for name in self.names()]

    def _read(self, name: str) -> StudyFacts | UnreadableStudy:
        reader = self.reader(name)
        if reader is None:
            return UnreadableStudy(name, "it was removed")
        try:
            return reader.read(self.connected())
        except FedwardError as error:
            return UnreadableStudy(name, str(error))

    def _paths(self) -> dict[str, Path]:
        if (self._folder / "study.toml").exists():
            return {self._folder.resolve().name: self._folder}
        return {file.parent.name: file.parent for file in (self._folder / "studies").glob("*/study.toml")}

"""What a person sees while a run is on: phase, round, each site's stage, score, epsilon, bytes out, time left."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.plan.plan import StudyPlan
from common.plan.schedule import total_rounds, version_before
from server.study.events import AttemptStart, RoundEnd, RunEnd
from server.study.journal_rows import AbortRow, AnswerRow
from simulation.report.facts import Estimate
from simulation.report.words import amount, duration
from simulation.study.watching import SilentEvents

STAGES = {
    "order": "training",
    "keylist": "exchanging keys",
    "forward": "sending the masked update",
    "survivors": "confirming who is in",
    "certificate": "opening the sum",
    "result": "taking note",
}
OUTCOMES = {"taken": "[green]in[/]", "timeout": "[red]silent[/]", "slow": "[red]slow[/]"}
LINE_EVERY_S = 10.0  # without a terminal: one line at most so often
REFRESHES_PER_S = 4


@dataclass
class Shown:
    """What the display knows at the moment."""

    start: AttemptStart | None = None
    stage: str = "waiting for the hospitals"
    version: int = 0
    outcomes: dict[str, str] = field(default_factory=dict)
    bytes_out: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    score: Estimate | None = None
    epsilon: float | None = None
    note: str = ""


class LiveDisplay(SilentEvents):
    """Shows a run on a terminal; elsewhere prints a line now and then; quiet prints nothing."""

    def __init__(self, plan: StudyPlan, console: Console, *, quiet: bool, seconds_before: float = 0.0) -> None:
        self._plan, self._console, self._quiet = plan, console, quiet
        self._started_s, self._before_s = time.monotonic(), seconds_before
        self._first_version: int | None = None
        self._last_line_s = 0.0
        self.shown = Shown()
        live = not quiet and console.is_terminal
        self._live = Live(console=console, refresh_per_second=REFRESHES_PER_S, transient=True) if live else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def on_waiting(self, online: int, needed: int) -> None:
        """Show that too few sites are there."""
        self.shown.stage = f"{online} hospitals are there, {needed} are needed"
        self._refresh()

    def on_attempt(self, start: AttemptStart) -> None:
        """Show a new attempt."""
        self.shown.start, self.shown.outcomes = start, {}
        self.shown.version = version_before(self._plan, start.phase, start.round_number)
        if self._first_version is None:
            self._first_version = self.shown.version
        self._refresh()

    def on_stage(self, asked: str, sites: tuple[str, ...], timeout_s: float) -> None:
        """Show the stage."""
        del timeout_s
        self.shown.stage = STAGES.get(asked, asked)
        self.shown.outcomes |= dict.fromkeys(sites, self.shown.stage)
        self._refresh()

    def on_answer(self, answer: AnswerRow) -> None:
        """Note a site's answer."""
        self.shown.bytes_out[answer.site] += answer.bytes_from_site
        self.shown.outcomes[answer.site] = OUTCOMES.get(answer.outcome, f"[yellow]{answer.outcome}[/]")
        self.shown.missed[answer.site] += answer.outcome != "taken"

    def on_aborted(self, abort: AbortRow, wait_s: float) -> None:
        """Show that an attempt was given up."""
        self.shown.note = f"attempt {abort.attempt} was given up: {abort.sentence}"
        self.shown.stage = f"next attempt in {wait_s:.0f} s"
        self._refresh()

    def on_round(self, end: RoundEnd) -> None:
        """Show a finished round."""
        self.shown.version += not end.start.is_closing
        self._refresh()

    def on_finished(self, end: RunEnd) -> None:
        """Show the end."""
        self.shown.stage = end.sentence
        self._refresh()

    def left_s(self) -> float | None:
        """Return how long the rest may take, by the mean of the rounds so far."""
        done = self.shown.version - (self._first_version or 0)
        if done < 1:
            return None
        return (time.monotonic() - self._started_s) / done * (total_rounds(self._plan) - self.shown.version)

    def render(self) -> Group:
        """Return the picture."""
        shown, start = self.shown, self.shown.start
        rounds = total_rounds(self._plan)
        head = Text(self._plan.study.title, style="bold")
        where = Text("starting")
        if start:
            closing = ", closing round" if start.is_closing else ""
            where = Text(
                f"phase {start.phase_name}, round {start.round_number} of {start.rounds}{closing}: {shown.stage}"
            )
        facts = Table.grid(padding=(0, 3))
        facts.add_row(*self._facts())
        sites = Table(box=None, padding=(0, 2), header_style="dim")
        for title in ("hospital", "now", "bytes out", "missed"):
            sites.add_column(title, justify="left" if title in {"hospital", "now"} else "right")
        names = [site.name for site in self._plan.sites]
        for name in names[:MOST_SITES]:
            missed = str(shown.missed[name]) if shown.missed[name] else ""
            sites.add_row(name, shown.outcomes.get(name, ""), amount(shown.bytes_out[name]), missed)
        if len(names) > MOST_SITES:
            sites.add_row(f"and {len(names) - MOST_SITES} more", "", amount(shown.bytes_out.total()), "")
        bar = ProgressBar(total=rounds, completed=shown.version, width=60)
        return Group(head, where, bar, facts, sites, Text(shown.note, style="yellow"))

    def _facts(self) -> list[str]:
        shown, left = self.shown, self.left_s()
        found = [f"round {shown.version}/{total_rounds(self._plan)}"]
        if shown.score:
            found.append(f"test score [bold]{shown.score.value:.3f}[/] ({shown.score.low:.3f}-{shown.score.high:.3f})")
        if shown.epsilon is not None:
            found.append(f"epsilon [bold]{shown.epsilon:.2f}[/] of {self._plan.privacy.epsilon:g}")
        found.append(f"{duration(self._before_s + time.monotonic() - self._started_s)} so far")
        if left is not None:
            found.append(f"about {duration(left)} left")
        return found

    def _refresh(self) -> None:
        if self._live:
            self._live.update(self.render())
        elif not self._quiet and time.monotonic() - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self._console.print(", ".join(self._facts()))


MOST_SITES = 12

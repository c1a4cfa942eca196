"""Scores of the shared model on the public test images, and epsilon spent, as the rounds go by."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import torch

from common.networks.parameters import load
from common.plan.plan import StudyPlan
from common.plan.schedule import total_rounds
from common.plan.start import start_network
from common.privacy.accounting import COARSE_INTERVAL, epsilon
from server.model.phase_facts import Vector
from server.model.state import ModelState
from server.study.events import RoundEnd
from server.study.folder import Study
from server.study.journal import Journal
from server.study.progress import current_state, open_journal
from simulation.report.facts import Estimate, PublicScore
from simulation.report.figures import spent_events
from simulation.study.live_display import LiveDisplay
from simulation.study.run_folder import RunFolder, read_json, write_json
from simulation.study.test_set import load_test_set
from simulation.study.watching import SilentEvents


class Scorekeeper(SilentEvents):
    """Judges the model every ``evaluation.every_rounds`` rounds; the scores are in the run folder at once.

    It looks at checkpoints after they are durable, so it changes nothing of a run.
    """

    def __init__(self, folder: RunFolder, study: Study, display: LiveDisplay) -> None:
        self._folder, self._study, self._display = folder, study, display
        self._tests = load_test_set(folder.test_set, study.plan)
        self._network = start_network(study.plan)
        self.scores = {int(number): _score(kept) for number, kept in read_json(folder.scores, {}).items()}
        if 0 not in self.scores:
            self._keep(0, self._tests.judge(self._network))

    def judge(self, parameters: Vector, *, curve: bool = False) -> PublicScore:
        """Judge a model by all its weights. Shapes: parameters (num_parameters,) float32."""
        load(self._network, self._study.network.everything, torch.from_numpy(parameters.copy()))
        return self._tests.judge(self._network, curve=curve)

    def on_round(self, end: RoundEnd) -> None:
        """Score the model after a round, where one is due."""
        plan, version = self._study.plan, self._display.shown.version
        if end.start.is_closing or (version % plan.evaluation.every_rounds and version != total_rounds(plan)):
            return
        journal = open_journal(self._study)
        try:
            self._keep(version, self.judge(selected(plan, current_state(self._study, journal))))
            self._display.shown.epsilon = epsilon_so_far(plan, journal)
        finally:
            journal.close()

    def _keep(self, version: int, score: PublicScore) -> None:
        self.scores[version], self._display.shown.score = score, score.estimate
        write_json(self._folder.scores, {str(number): asdict(kept) for number, kept in self.scores.items()})


def selected(plan: StudyPlan, state: ModelState) -> Vector:
    """Return the model that the study would give out now: the average in a phase, the chosen one at its end."""
    ended = state.finished or state.round_number > plan.phases[state.phase].rounds or state.round_number == 1
    return state.parameters if ended or plan.aggregation.model_selection == "last" else state.average


def epsilon_so_far(plan: StudyPlan, journal: Journal) -> float | None:
    """Return an upper bound of what a patient of a site that was always there has spent; None without a promise."""
    delta = plan.privacy.delta
    if delta is None:
        return None
    steps = Counter(attempt.phase for attempt in journal.attempts())
    strata = (spent_events(plan, steps, stratum) for stratum in ("labelled", "unlabelled"))
    return max(epsilon(events, delta, interval=COARSE_INTERVAL) for events in strata)


def _score(kept: dict[str, Any]) -> PublicScore:
    """Return a score as it was written; curves are drawn for the last model only and not kept."""
    shares, dice = ({name: Estimate(**one) for name, one in kept.get(part, {}).items()} for part in ("shares", "dice"))
    return PublicScore(kept["measure"], Estimate(**kept["estimate"]), kept["images"], shares, dice=dice)

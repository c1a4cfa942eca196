"""Which round is which: model versions, evaluations, the closing round. A public function of the plan.

A *version* is the number of planned rounds that lie behind, over all phases: version 0 is the public start. A phase
that ends early (``common.plan.selection``) leaves out the versions of the rounds it did not run. Round ``r`` (from 1)
of a phase trains on version ``rounds of earlier phases + r - 1`` and, where that version is due, also scores it. After
the last round of the last phase one *closing* round more scores the final model: an ordinary attempt whose update the
server throws away. It is charged like any other (but after ridge: ``takes_patients``), which is why the last phase
needs an attempt to spare.
"""

from common.plan.phases import Method
from common.plan.plan import StudyPlan
from common.privacy.metrics import CountKind, CountLayout


def total_rounds(plan: StudyPlan) -> int:
    """Return the version of the final model."""
    return sum(phase.rounds for phase in plan.phases)


def last_round(plan: StudyPlan, phase_index: int) -> int:
    """Return the largest round number of a phase; the last phase has the closing round on top."""
    closing = phase_index == len(plan.phases) - 1
    return plan.phases[phase_index].rounds + closing


def version_before(plan: StudyPlan, phase_index: int, round_number: int) -> int:
    """Return the version of the model that round ``round_number`` of a phase starts from."""
    return sum(phase.rounds for phase in plan.phases[:phase_index]) + round_number - 1


def is_closing(plan: StudyPlan, phase_index: int, round_number: int) -> bool:
    """Tell whether this is the closing round: it scores the final model, and its update is thrown away."""
    return version_before(plan, phase_index, round_number) == total_rounds(plan)


def takes_patients(plan: StudyPlan, phase_index: int, round_number: int) -> bool:
    """Tell whether a round reads patients to learn from: all but the closing round after a ridge phase.

    Ridge is one release: a second one that the server throws away would cost as much as the first. So its closing round
    carries noise alone beside the scores, and nobody is charged for it but held-out patients.
    """
    return plan.phases[phase_index].method is not Method.RIDGE or not is_closing(plan, phase_index, round_number)


def learning_attempts(plan: StudyPlan, phase_index: int) -> int:
    """Return how many attempts of a phase read patients at most: what its noise is accounted for."""
    phase = plan.phases[phase_index]
    kept_for_closing = phase.method is Method.RIDGE and phase_index == len(plan.phases) - 1
    return phase.maximum_attempts - kept_for_closing


def is_evaluated(plan: StudyPlan, version: int) -> bool:
    """Tell whether a version is scored: every ``evaluation.every_rounds``, and the final one; never the start."""
    due = version % plan.evaluation.every_rounds == 0 or version == total_rounds(plan)
    return version > 0 and due and plan.evaluation.held_out


def count_layout(plan: StudyPlan) -> CountLayout:
    """Return the layout of the evaluation counts that ride in the meta segment of every round."""
    return CountLayout(CountKind(plan.task.kind.value), len(plan.task.classes), plan.evaluation.score_bins)

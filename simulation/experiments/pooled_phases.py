"""Phases of a pooled study whose noise adds up to the budget: each phase takes what the ones before left over."""

from client.learning.training_settings import Method, Task, TrainingSettings
from common.privacy.accounting import SampledGaussian, epsilon, noise_multiplier_for
from simulation.experiments.pooled import PooledPhase

CLASS_WEIGHTS = (1.0, 0.35)  # public: about three pneumonia images for one normal image are expected


class PhaseMaker:
    """Makes phases for a binary task, one 2-D scan a patient; keeps what each stratum has spent.

    ``labelled``, ``unlabelled``: declared numbers of patients (public under the zero-out relation).
    """

    def __init__(self, *, labelled: int, unlabelled: int, epsilon: float, delta: float) -> None:
        self._counts = {True: labelled, False: unlabelled}
        self._epsilon, self._delta = epsilon, delta
        self._spent: dict[bool, list[SampledGaussian]] = {True: [], False: []}

    def standardise_labelled(self, rounds: int, *, epsilon: float) -> PooledPhase:
        """Standardise the features on labelled patients."""
        return self._standardise(rounds, epsilon=epsilon, labelled=True)

    def standardise_unlabelled(self, rounds: int, *, epsilon: float) -> PooledPhase:
        """Standardise the features on unlabelled patients."""
        return self._standardise(rounds, epsilon=epsilon, labelled=False)

    def head(self, *, rounds: int, sampling_rate: float = 1.0) -> PooledPhase:
        """Train the head on labelled patients with all that is left of their budget."""
        noise = self._rest(sampling_rate, rounds, labelled=True)
        settings = TrainingSettings(
            task=Task.CLASSIFICATION,
            classes=2,
            dimensions=2,
            trainable="head",
            labelled_sampling_rate=sampling_rate,
            noise_multiplier=noise,
            expected_batch=sampling_rate * self._counts[True],
            most_scans=1,
            class_weights=CLASS_WEIGHTS,
        )
        return PooledPhase(settings, rounds, learning_rate=8.0)

    def student(self, *, rounds: int, sampling_rate: float = 0.2) -> PooledPhase:
        """Train the whole network on the teacher's confident pseudo-labels with the rest of the unlabelled budget."""
        noise = self._rest(sampling_rate, rounds, labelled=False)
        settings = TrainingSettings(
            task=Task.CLASSIFICATION,
            classes=2,
            dimensions=2,
            method=Method.TEACHER_STUDENT,
            labelled_sampling_rate=0.0,
            unlabelled_sampling_rate=sampling_rate,
            unlabelled_clip_ratio=1.0,
            noise_multiplier=noise,
            expected_batch=sampling_rate * self._counts[False],
            most_scans=1,
            views_per_scan=1,
            class_weights=CLASS_WEIGHTS,
            confidence_threshold=0.7,
        )
        return PooledPhase(settings, rounds, learning_rate=0.25, momentum=0.9, average_from=0.6)

    def _standardise(self, rounds: int, *, epsilon: float, labelled: bool) -> PooledPhase:
        noise = noise_multiplier_for(epsilon=epsilon, delta=self._delta, sampling_rate=1.0, steps=rounds)
        self._spent[labelled].append(SampledGaussian(1.0, noise, rounds))
        settings = TrainingSettings(
            task=Task.CLASSIFICATION,
            classes=2,
            dimensions=2,
            method=Method.STANDARDISE,
            trainable="feature_norm",
            labelled_sampling_rate=float(labelled),
            unlabelled_sampling_rate=float(not labelled),
            unlabelled_clip_ratio=1.0,
            clipping_norm=2.0,
            noise_multiplier=noise,
            expected_batch=self._counts[labelled],
            most_scans=1,
        )
        return PooledPhase(settings, rounds)

    def _rest(self, sampling_rate: float, rounds: int, *, labelled: bool) -> float:
        """Return the least noise multiplier (to 1e-3) whose rounds fit beside what the stratum has spent; charge it."""
        low, high = 0.3, 100.0
        while high - low > 1e-3:
            middle = (low + high) / 2
            events = [*self._spent[labelled], SampledGaussian(sampling_rate, middle, rounds)]
            if epsilon(events, self._delta, interval=1e-3) > self._epsilon:
                low = middle
            else:
                high = middle
        self._spent[labelled].append(SampledGaussian(sampling_rate, high, rounds))
        return high


def semi_supervised(maker: PhaseMaker, *, standardise_rounds: int) -> list[PooledPhase]:
    """Return the experiment's semi-supervised arm: unlabelled patients standardise, labelled ones train the head."""
    return [maker.standardise_unlabelled(standardise_rounds, epsilon=3.0), maker.head(rounds=40)]

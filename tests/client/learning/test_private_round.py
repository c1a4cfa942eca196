"""The agent's half of a round: whatever the training says, fails at or makes up, what leaves carries the noise."""

import numpy as np
import pytest

from client.errors import TrainerFailedError, TrainingStoppedError
from client.learning.assignment import Assignment
from client.learning.mechanism import Mechanism, SumRules
from client.learning.noise import PrivacyRandomness
from client.learning.private_round import PrivateRound
from client.learning.training_settings import Placement, Task, TrainingSettings

LENGTH, COUNTS, STEP = 4000, 2000, 2.0**-10
STDDEV = 500.0


class Training:
    """Hands back what it is told, notes what it was asked, and raises when told to."""

    def __init__(self, *, counts=0, sums=0, raises_at=None, error=None, kind=np.int32):
        self.asked, self.differences = 0, []
        self._counts, self._sums, self._kind = counts, sums, kind
        self._raises_at, self._error = raises_at, error or KeyError("patient-0815")

    def begin(self, assignment, model):
        return np.full(COUNTS, self._counts, np.int64), self._step()

    def go_on(self, difference):
        self.differences.append(difference.copy())
        return self._step()

    def _step(self):
        self.asked += 1
        if self.asked - 1 == self._raises_at:
            raise self._error
        return np.full(LENGTH, self._sums, self._kind)


class NoNoise:
    def integers(self, length, stddev):
        return np.zeros(length, np.int64)


def settings(placement, **changes):
    usual = {"task": Task.CLASSIFICATION, "classes": 2, "dimensions": 2, "labelled_sampling_rate": 1.0}
    return TrainingSettings(**(usual | {"placement": placement, "noise_multiplier": 1.0} | changes))


def private_round(chosen, *, noise=None, stddev=STDDEV, weight=1.0):
    def mechanism(length):
        rules = SumRules(length=length, stddev=stddev, largest_norm=1e6, room=10_000)
        return Mechanism(rules, noise or PrivacyRandomness())

    return PrivateRound(chosen, sums=mechanism(LENGTH), counts=mechanism(COUNTS), step=STEP, weight=weight)


DISTRIBUTED = settings(Placement.DISTRIBUTED)
LOCAL = settings(Placement.LOCAL, local_steps=3, local_learning_rate=0.5, proximal_weight=0.25, expected_batch=4.0)
EVALUATED = Assignment(0, 1, evaluated=True, scored=True)
NOT_EVALUATED = Assignment(0, 1, evaluated=False, scored=False)
MODEL = memoryview(b"")


def test_a_sum_and_its_scores_leave_with_noise_of_their_own():
    work = private_round(DISTRIBUTED)
    counts, body = work.run(Training(counts=100, sums=-70), EVALUATED, MODEL)
    assert (counts.dtype, body.dtype, work.fault) == (np.int64, np.int32, "")
    for found, middle in ((counts, 100), (body, -70)):
        assert found.mean() == pytest.approx(middle, abs=5 * STDDEV / 40)
        assert found.std() == pytest.approx(STDDEV, rel=0.1)


def test_a_sum_of_patients_whom_nobody_charged_is_noise_alone_whatever_the_training_hands_over():
    work = private_round(DISTRIBUTED)
    assignment = Assignment(0, 2, evaluated=True, scored=True, trained=False)
    counts, body = work.run(Training(counts=100, sums=9000), assignment, MODEL)
    assert counts.mean() == pytest.approx(100, abs=5 * STDDEV / 40)
    assert abs(body.mean()) < 5 * STDDEV / 40
    assert body.std() == pytest.approx(STDDEV, rel=0.1)


def test_counts_beyond_the_charged_scores_are_noise_alone_whatever_the_training_hands_over():
    work = private_round(DISTRIBUTED)
    counts, _ = work.run(Training(counts=9000), Assignment(0, 1, evaluated=True, scored=False), MODEL)
    assert work.fault == ""
    assert abs(counts.mean()) < 5 * STDDEV / 40
    assert counts.std() == pytest.approx(STDDEV, rel=0.1)


def test_counts_that_were_not_asked_for_never_leave():
    counts, _ = private_round(DISTRIBUTED).run(Training(counts=5), NOT_EVALUATED, MODEL)
    assert not counts.any()


FAILURES = {
    "a record raises": {"raises_at": 0},
    "the process died": {"raises_at": 0, "error": TrainerFailedError("ended")},
    "a sum that these patients cannot have": {"sums": 20_000},
    "counts that these patients cannot have": {"counts": 30_000},
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_training_that_fails_is_noise_alone_and_looks_like_any_other(case):
    work = private_round(DISTRIBUTED)
    counts, body = work.run(Training(**FAILURES[case]), EVALUATED, MODEL)
    assert work.fault
    assert "0815" not in work.fault
    assert (counts.shape, body.shape, counts.dtype, body.dtype) == ((COUNTS,), (LENGTH,), np.int64, np.int32)
    for found in (counts, body):
        assert abs(found.mean()) < 5 * STDDEV / 40
        assert found.std() == pytest.approx(STDDEV, rel=0.1)


def test_a_person_who_ends_the_training_is_no_failure():
    with pytest.raises(TrainingStoppedError):
        private_round(DISTRIBUTED).run(Training(raises_at=0, error=TrainingStoppedError("paused")), EVALUATED, MODEL)
    with pytest.raises(TrainingStoppedError):
        private_round(LOCAL).run(Training(raises_at=2, error=TrainingStoppedError("paused")), EVALUATED, MODEL)


def test_without_privacy_a_failure_is_a_failure():
    bare = settings(Placement.NONE, noise_multiplier=0.0)
    with pytest.raises(KeyError):
        private_round(bare, stddev=0.0).run(Training(raises_at=0), EVALUATED, MODEL)


def test_local_steps_follow_the_equation_and_are_taken_from_noised_sums_alone():
    training = Training(sums=200, kind=np.int64)
    _, body = private_round(LOCAL, noise=NoNoise(), weight=0.5).run(training, NOT_EVALUATED, MODEL)
    mean, expected, d = 200 * STEP / 4.0, [], 0.0
    for _ in range(3):
        d -= 0.5 * (mean + 0.25 * d)
        expected.append(d)
    assert body.dtype == np.float32
    assert np.allclose(body, 0.5 * expected[-1], rtol=1e-6)
    assert [each.dtype for each in training.differences] == [np.float32, np.float32]
    assert np.allclose([each[0] for each in training.differences], expected[:-1], rtol=1e-6)


def test_with_local_noise_every_step_is_noised_in_full():
    plain = settings(Placement.LOCAL, local_steps=4, local_learning_rate=1.0, expected_batch=1.0)
    training = Training(kind=np.int64)
    _, body = private_round(plain).run(training, NOT_EVALUATED, MODEL)
    assert body.std() == pytest.approx(2 * STDDEV * STEP, rel=0.1)
    for number, difference in enumerate(training.differences, 1):
        assert difference.std() == pytest.approx(np.sqrt(number) * STDDEV * STEP, rel=0.1), "the trainer sees noise"


@pytest.mark.parametrize("raises_at", [0, 1, 2])
def test_local_training_that_fails_in_the_middle_goes_on_as_noise(raises_at):
    plain = settings(Placement.LOCAL, local_steps=4, local_learning_rate=1.0, expected_batch=1.0)
    training = Training(raises_at=raises_at, kind=np.int64)
    work = private_round(plain)
    _, body = work.run(training, NOT_EVALUATED, MODEL)
    assert work.fault
    assert training.asked == raises_at + 1, "a training that failed is not asked again in this round"
    assert body.std() == pytest.approx(2 * STDDEV * STEP, rel=0.1)

"""Training on a public encoder's features: rows are chosen, never changed, and nobody is in what a neighbour adds."""

import numpy as np
import pytest
import torch

from client.dicom.record import Stratum
from client.learning.evaluation import count_patients
from client.learning.lessons import lesson_for
from client.learning.made_up_patient import made_up_scans
from client.learning.patients import UNKNOWN, ArrayPatients, PatientScans
from client.learning.private_training import PrivateTraining
from client.learning.record_form import has_form
from client.learning.round_randomness import RoundRandomness
from client.learning.training import PhaseTraining
from client.learning.training_settings import Method, Task, TrainingSettings
from client.learning.views import chosen_rows
from client.private_gradients.settings import SpeedSettings
from common.networks.registry import build_network
from common.privacy.metrics import CountKind, CountLayout

ROWS, FEATURES = 4, 12
KEY = bytes(range(32))
KINDS = {"labelled": [1], "mixed": [0, UNKNOWN], "labelled NaN": [0], "three scans": [1, 0, UNKNOWN],
         "unlabelled": [UNKNOWN], "unlabelled NaN": [UNKNOWN], "unlabelled too": [UNKNOWN, UNKNOWN]}  # fmt: skip


class NoNoise:
    def integers(self, length, stddev):
        assert stddev > 0
        return np.zeros(length, np.int64)


def settings(**changes):
    usual = {
        "task": Task.CLASSIFICATION, "classes": 2, "dimensions": 2, "method": Method.FIXMATCH, "trainable": "all",
        "labelled_sampling_rate": 1.0, "unlabelled_sampling_rate": 1.0, "unlabelled_clip_ratio": 1.0,
        "clipping_norm": 0.05, "noise_multiplier": 1.0, "most_scans": 3, "confidence_threshold": 0.0,
        "teacher_decay": 0.0,
    }  # fmt: skip
    return TrainingSettings(**(usual | changes))


def site(present=tuple(KINDS)):
    """Patients of every kind; those who are not ``present`` have no record."""
    random, owners = np.random.default_rng(5), [kind for kind, labels in KINDS.items() for _ in labels]
    images = random.normal(0, 3, (len(owners), ROWS, FEATURES)).astype(np.float32)
    labels = np.array([label for of_one in KINDS.values() for label in of_one])
    images[[row for row, owner in enumerate(owners) if "NaN" in owner]] = np.nan
    kept = [row for row, owner in enumerate(owners) if owner in present]
    where = [owners[row] for row in kept]
    return ArrayPatients(images[kept], labels[kept], where, dimensions=2, are_features=True)


def head(hidden_units=0):
    size = {"features": FEATURES, "hidden_units": hidden_units}
    return build_network("encoder", dimensions=2, classes=2, width=16, zero_head=False, seed=1, **size)


def clean_sum(chosen, present, *, hidden_units=0, engine="loop"):
    training = PrivateTraining(
        head(hidden_units), site(present), chosen, noise=NoNoise(), speed=SpeedSettings(engine=engine),
        patients_at_once=8, input_shape=(ROWS, FEATURES),
    )  # fmt: skip
    return training.train_round(3, randomness=RoundRandomness(KEY)).values


CASES = {
    "a head": ({"trainable": "head"}, 0),
    "head and norm": ({}, 0),
    "a hidden layer": ({"views_per_scan": 2}, 6),
    "standardised": ({"method": Method.STANDARDISE, "trainable": "feature_norm"}, 0),
    "labels only": ({"method": Method.SUPERVISED, "unlabelled_sampling_rate": 0.0}, 0),
}


@pytest.mark.parametrize("engine", ["loop", "auto"])
@pytest.mark.parametrize("case", CASES)
def test_a_round_on_features_is_to_the_bit_the_sum_of_what_each_patient_gives_alone(case, engine):
    changes, hidden_units = CASES[case]
    how = {"hidden_units": hidden_units, "engine": engine}
    alone = {kind: clean_sum(settings(**changes), (kind,), **how) for kind in KINDS}
    assert sum(found.any() for found in alone.values()) >= 3, "or there would be nothing to see"
    assert not any(alone[kind].any() for kind in KINDS if "NaN" in kind)
    whole = clean_sum(settings(**changes), tuple(KINDS), **how)
    assert np.array_equal(whole, sum(alone.values()))


def test_patients_with_features_go_side_by_side_in_parts_of_one_size():
    training = PhaseTraining(
        head(), site(("labelled",)), settings(method=Method.SUPERVISED, unlabelled_sampling_rate=0.0, trainable="head"),
        patients_at_once=16, input_shape=(ROWS, FEATURES),
    )  # fmt: skip
    training.begin_round(1, randomness=RoundRandomness(KEY))
    ways = [(way.patients, way.smaller) for way in training.gradient._chosen.values()]
    assert ways == [(16, ())], "one who comes alone is computed with fifteen empty places beside"


def test_a_view_is_one_of_the_kept_rows_bit_for_bit_and_never_the_unchanged_scan():
    images = torch.randn(50, ROWS, FEATURES)
    drawn = chosen_rows(images, lambda: torch.Generator().manual_seed(3))
    places = [(images[scan] == drawn[scan]).all(1).nonzero().item() for scan in range(50)]
    assert set(places) == {1, 2, 3}


def test_without_views_every_view_is_the_unchanged_scan():
    images = torch.randn(3, 1, FEATURES)
    assert torch.equal(chosen_rows(images, lambda: torch.Generator().manual_seed(3)), images[:, 0])


def test_standardising_and_scoring_read_the_unchanged_scan():
    random = torch.Generator().manual_seed(0)
    patient = PatientScans(torch.randn(2, ROWS, FEATURES, generator=random), torch.tensor([1, 1]), are_features=True)
    lesson = lesson_for(Stratum.LABELLED, settings(method=Method.STANDARDISE, trainable="feature_norm"), None)
    rows = lesson.rows(patient, RoundRandomness(KEY).of_patient("a", step=0))
    assert torch.equal(rows.inputs, patient.images[:, 0])
    other = PatientScans(torch.cat([patient.images[:, :1], torch.randn(2, 3, FEATURES)], 1), patient.labels, True)
    counts = CountLayout(CountKind.CLASSIFICATION, 2, 16)
    assert np.array_equal(*(count_patients(head(), [each], counts) for each in (patient, other)))


@pytest.mark.parametrize("stratum", Stratum)
def test_whoever_is_made_up_has_the_form_of_a_patient_with_features(stratum):
    scans = made_up_scans(settings(), (ROWS, FEATURES), stratum)
    assert has_form(scans, settings(), (ROWS, FEATURES))


OTHER_FORMS = {
    "an image": PatientScans(torch.rand(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)),
    "other features": PatientScans(torch.rand(1, ROWS, 5), torch.zeros(1, dtype=torch.int64), True),
    "other views": PatientScans(torch.rand(1, 2, FEATURES), torch.zeros(1, dtype=torch.int64), True),
    "a strange label": PatientScans(torch.rand(1, ROWS, FEATURES), torch.full((1,), 7), True),
}


@pytest.mark.parametrize("scans", OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_a_record_of_another_form_is_an_empty_one(scans):
    assert not has_form(scans, settings(), (ROWS, FEATURES))

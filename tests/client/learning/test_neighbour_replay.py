"""Neighbour replay (docs/privacy.md section 6): one round with and without one patient, everything else held fixed.

The un-noised sum may move by the clipping norm and by nothing more; all else that leaves is bit-identical. What one
patient adds is the same integers whoever else is there: with patients who have scans with and without a label, whose
scans are not a number, whose record is empty. The same test must flag each planted fault, or it would prove nothing.
"""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from torch import nn

from client.dicom.record import Stratum
from client.learning import lessons, pseudo_labels
from client.learning.patch_rule import PatchRule
from client.learning.patients import UNKNOWN, ArrayPatients, PatientScans
from client.learning.private_training import PrivateTraining
from client.learning.round_randomness import RoundRandomness
from client.learning.training_settings import Method, Placement, Task, TrainingSettings
from client.private_gradients import engine as engine_module
from client.private_gradients.choice import Way
from client.private_gradients.engine import ENGINES
from client.private_gradients.settings import SpeedSettings
from client.private_gradients.verdict import RememberedVerdicts
from common.networks.errors import NetworkUnsuitableError
from common.networks.parameters import flatten, layout
from common.networks.registry import build_network
from common.plan.phases import Loss

SIZE = 8
KEY = bytes(range(32))
LABELLED, UNLABELLED = 4, 6
EVERYBODY = frozenset(f"patient-{i}" for i in range(LABELLED + UNLABELLED))
SOME = frozenset({"patient-1", "patient-5", "patient-8"})  # two labelled scans, three and three unlabelled ones


class SameNoise:
    """Integers that are the same in every replay."""

    def integers(self, length, stddev):
        assert stddev > 0
        return np.random.default_rng(7).integers(-1000, 1000, length)


class Without:
    """The same patients less one."""

    def __init__(self, patients, missing):
        self._patients, self._missing = patients, missing

    def keys(self, stratum):
        return [key for key in self._patients.keys(stratum) if key != self._missing]

    def read(self, patient_key):
        assert patient_key != self._missing
        return self._patients.read(patient_key)


def site(task=Task.CLASSIFICATION, *, dimensions=2, seed=0):
    """Ten patients, one to three scans each, of very different brightness."""
    random = np.random.default_rng(seed)
    owners = [f"patient-{i}" for i in range(LABELLED + UNLABELLED) for _ in range(1 + i % 3)]
    size = (SIZE,) * dimensions
    bright = {owner: random.uniform(0.1, 1.0) for owner in owners}
    images = np.stack([bright[owner] * random.random(size) for owner in owners]).astype(np.float32)
    shapes = {Task.CLASSIFICATION: (), Task.MULTI_LABEL: (3,), Task.SEGMENTATION: size}
    labels = random.integers(0, 2, (len(owners), *shapes[task]))
    for row, owner in enumerate(owners):
        if int(owner.split("-")[1]) >= LABELLED:
            labels[row] = UNKNOWN
    return ArrayPatients(images, labels, owners, dimensions=dimensions)


def settings(**changes):
    usual = {
        "task": Task.CLASSIFICATION,
        "classes": 2,
        "dimensions": 2,
        "method": Method.FIXMATCH,
        "labelled_sampling_rate": 1.0,
        "unlabelled_sampling_rate": 1.0,
        "unlabelled_clip_ratio": 1.0,
        "clipping_norm": 0.05,
        "noise_multiplier": 1.0,
        "most_scans": 2,
        "confidence_threshold": 0.0,
        "teacher_decay": 0.0,
    }
    return TrainingSettings(**(usual | changes))


def small_network(name="small_cnn", *, dimensions=2, classes=2):
    return build_network(name, dimensions=dimensions, classes=classes, width=4, zero_head=False, seed=1)


def released_sum(patients, chosen, *, network=None, engine="loop", training_class=PrivateTraining, patients_at_once=4):
    """Return what leaves one round whose randomness is fixed."""
    network = network or small_network(dimensions=chosen.dimensions)
    training = training_class(
        network,
        patients,
        chosen,
        noise=SameNoise(),
        speed=SpeedSettings(engine=engine),
        patients_at_once=patients_at_once,
    )
    start = flatten(network, layout(network, chosen.trainable))
    return training.train_round(3, start, randomness=RoundRandomness(KEY))


def largest_move(chosen, *, make_network=None, make_patients=site, removed=SOME, **how):
    """Return the largest move of the sum over the ``removed`` patients, in clipping norms of their stratum."""
    patients = make_patients()
    network = make_network or (lambda: small_network(dimensions=chosen.dimensions))
    whole = released_sum(patients, chosen, network=network(), **how)
    moves = []
    for stratum in Stratum:
        for key in patients.keys(stratum):
            if key not in removed:
                continue
            part = released_sum(Without(make_patients(), key), chosen, network=network(), **how)
            assert (part.step, part.values.shape, part.values.dtype) == (
                whole.step,
                whole.values.shape,
                whole.values.dtype,
            )
            clip = chosen.clipping_norm_of(stratum) + part.step * len(part.values) ** 0.5
            moves.append(np.linalg.norm(part.vector - whole.vector) / clip)
    return max(moves)


PATCHES = "patches, with a mean teacher"
CASES = {
    "labels only": (Task.CLASSIFICATION, {"method": Method.SUPERVISED}, "small_cnn", 2),
    "fixmatch": (Task.CLASSIFICATION, {}, "small_cnn", 2),
    "fixmatch with a threshold that leaves some scans out": (
        Task.CLASSIFICATION,
        {"confidence_threshold": 0.6},
        "small_cnn",
        2,
    ),
    "unlabelled patients clipped at a tenth": (Task.CLASSIFICATION, {"unlabelled_clip_ratio": 0.1}, "small_cnn", 2),
    "teacher and student on several views": (
        Task.CLASSIFICATION,
        {"method": Method.TEACHER_STUDENT, "views_per_scan": 2, "teacher_decay": 1.0},
        "residual",
        2,
    ),
    "several labels at once": (Task.MULTI_LABEL, {"task": Task.MULTI_LABEL, "classes": 3}, "small_cnn", 2),
    "segmentation with a mean teacher": (
        Task.SEGMENTATION,
        {"task": Task.SEGMENTATION, "method": Method.MEAN_TEACHER},
        "unet",
        2,
    ),
    PATCHES: (
        Task.SEGMENTATION,
        {
            "task": Task.SEGMENTATION,
            "method": Method.MEAN_TEACHER,
            "patches": PatchRule((4, 4), 3, 0.5),
            "loss": Loss.DICE_FOCAL,
            "class_weights": (0.2, 1.0),
        },
        "unet",
        2,
    ),
    "reconstruction": (Task.CLASSIFICATION, {"method": Method.RECONSTRUCTION}, "autoencoder", 2),
    "feature standardisation": (
        Task.CLASSIFICATION,
        {"method": Method.STANDARDISE, "trainable": "feature_norm"},
        "small_cnn",
        2,
    ),
    "a local step, all noise added by the site": (
        Task.CLASSIFICATION,
        {"placement": Placement.LOCAL, "local_learning_rate": 1.0, "expected_batch": 1.0},
        "small_cnn",
        2,
    ),
    "volumes": (Task.CLASSIFICATION, {"dimensions": 3}, "small_cnn", 3),
}


@pytest.mark.parametrize("case", CASES)
def test_one_patient_moves_the_sum_by_at_most_the_clipping_norm(case):
    task, changes, name, dimensions = CASES[case]
    chosen = settings(**changes)
    move = largest_move(
        chosen,
        make_network=lambda: small_network(name, dimensions=dimensions, classes=chosen.classes),
        make_patients=lambda: site(task, dimensions=dimensions),
    )
    assert 0.5 < move <= 1.0, "more than C breaks the promise; far less would mean the test sees nothing"


@pytest.mark.parametrize("engine", ["vmap", "book_keeping"])
def test_the_batched_engines_keep_the_bound_too(engine):
    assert 0.5 < largest_move(settings(), engine=engine) <= 1.0


def with_extra(patient, *, first=False):
    """Return what makes the site with one more unlabelled patient, the first or the last of all."""

    class Extra:
        def __init__(self):
            self._patients = site()

        def keys(self, stratum):
            more = ["extra"] if stratum is Stratum.UNLABELLED else []
            others = self._patients.keys(stratum)
            return [*more, *others] if first else [*others, *more]

        def read(self, patient_key):
            return patient if patient_key == "extra" else self._patients.read(patient_key)

    return Extra


def scans(count, value=None):
    random = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, SIZE, SIZE, generator=random)
    if value is not None:
        images[0, 0, 0, 0] = value
    return PatientScans(images, torch.full((count,), UNKNOWN))


STRANGE_PATIENTS = {
    "a NaN in a scan": scans(1, float("nan")),
    "an infinite value in a scan": scans(2, float("inf")),
    "a value near the largest float": scans(1, 3e38),
    "a thousand scans": scans(1000),
    "no scan at all": scans(0),
}


@pytest.mark.parametrize("strange", STRANGE_PATIENTS)
def test_a_strange_patient_moves_the_sum_by_at_most_the_clipping_norm_and_raises_nothing(strange):
    move = largest_move(settings(), make_patients=with_extra(STRANGE_PATIENTS[strange]), removed={"extra"})
    assert move <= 1.0


# -- bit-equality: nothing of a patient is in what a neighbour adds ------------------------------------------------


class Only:
    """The same patients, of whom only some have a record; the others keep their place, or lose it as well."""

    def __init__(self, patients, present, *, keep_place):
        self._patients, self._present, self._keep_place = patients, present, keep_place

    def keys(self, stratum):
        return [key for key in self._patients.keys(stratum) if self._keep_place or key in self._present]

    def read(self, patient_key):
        scans = self._patients.read(patient_key)
        return scans if patient_key in self._present else scans.chosen(torch.zeros(0, dtype=torch.int64))


def uneven_site(task, *, dimensions):
    """Patients of every kind beside one another: labelled, mixed, unlabelled, and two whose scan is not a number."""
    kinds = {
        "labelled": [1],
        "mixed": [0, UNKNOWN],
        "labelled too": [1, 0, 1],
        "labelled NaN": [0],
        "mixed too": [UNKNOWN, UNKNOWN, 1],
        "unlabelled": [UNKNOWN],
        "unlabelled NaN": [UNKNOWN],
        "unlabelled too": [UNKNOWN, UNKNOWN],
    }
    owners = [name for name, labels in kinds.items() for _ in labels]
    random, size = np.random.default_rng(5), (SIZE,) * dimensions
    images = random.random((len(owners), *size)).astype(np.float32)
    shape = {Task.CLASSIFICATION: (), Task.MULTI_LABEL: (3,), Task.SEGMENTATION: size}[task]
    labels = random.integers(0, 2, (len(owners), *shape))
    for row, label in enumerate(label for labels_of_one in kinds.values() for label in labels_of_one):
        if label == UNKNOWN:
            labels[row] = UNKNOWN
        if "NaN" in owners[row]:
            images[row].flat[3] = np.nan
    return ArrayPatients(images, labels, owners, dimensions=dimensions)


def hangs_on_a_bit(network):
    """Weights of a coordinator that wants to see a neighbour: two equal channels, summed in another order.

    Their difference is what is left of rounding, and the head turns it into a certain answer.
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    with torch.no_grad():
        convolutions[0].weight[1].copy_(convolutions[0].weight[0])
        weight = convolutions[1].weight
        weight[1].copy_(weight[0])
        weight[1, 0], weight[1, 1] = weight[0, 1].clone(), weight[0, 0].clone()
        network.head.weight.zero_()
        width = convolutions[0].weight.shape[0]
        network.head.weight[1, width], network.head.weight[1, width + 1] = 1e9, -1e9
    return network


ALONE = {name: (*case, lambda network: network) for name, case in CASES.items() if "local step" not in name}
ALONE["weights that hang on a bit"] = (Task.CLASSIFICATION, {}, "small_cnn", 2, hangs_on_a_bit)
ALONE["volumes, and weights that hang on a bit"] = (
    Task.CLASSIFICATION,
    {"dimensions": 3},
    "small_cnn",
    3,
    hangs_on_a_bit,
)


def clean_sum(case, present, *, keep_place=True, engine="loop"):
    """The integers of one round without their noise."""
    task, changes, name, dimensions, prepare = ALONE[case]
    chosen = settings(most_scans=3, **changes)
    network = prepare(small_network(name, dimensions=dimensions, classes=chosen.classes))
    patients = Only(uneven_site(task, dimensions=dimensions), present, keep_place=keep_place)
    found = released_sum(patients, chosen, network=network, engine=engine, patients_at_once=8).values
    return found - SameNoise().integers(len(found), 1.0)


KINDS = ("labelled", "mixed", "labelled too", "labelled NaN", "mixed too", "unlabelled", "unlabelled NaN",
         "unlabelled too")  # fmt: skip


def test_a_round_of_patches_is_to_the_bit_the_sum_of_what_each_patient_gives_alone():
    """A patch beside a voxel that is not a number teaches, so such a patient may add something: its own."""
    alone = {kind: clean_sum(PATCHES, {kind}) for kind in KINDS}
    assert sum(found.any() for found in alone.values()) >= 4, "or there would be nothing to see"
    assert np.array_equal(clean_sum(PATCHES, KINDS), sum(alone.values()))


@pytest.mark.parametrize("case", [case for case in ALONE if case != PATCHES])
def test_a_round_is_to_the_bit_the_sum_of_what_each_patient_gives_alone(case):
    alone = {kind: clean_sum(case, {kind}) for kind in KINDS}
    teaching = [kind for kind, found in alone.items() if found.any()]
    assert len(teaching) >= 4, "or there would be nothing to see"
    assert not alone["labelled NaN"].any()
    assert not alone["unlabelled NaN"].any()
    assert np.array_equal(clean_sum(case, KINDS), sum(alone.values()))


@pytest.mark.parametrize("case", ["fixmatch", "volumes", "volumes, and weights that hang on a bit"])
@pytest.mark.parametrize("keep_place", [True, False], ids=["an empty record", "no record"])
@pytest.mark.parametrize("missing", ["mixed", "labelled NaN", "unlabelled NaN", "unlabelled"])
def test_without_one_patient_the_others_add_the_same_integers(case, keep_place, missing):
    others = [kind for kind in KINDS if kind != missing]
    whole, part = clean_sum(case, KINDS), clean_sum(case, others, keep_place=keep_place)
    assert np.array_equal(whole - part, clean_sum(case, {missing}))


@pytest.mark.parametrize("engine", ["vmap", "book_keeping"])
def test_a_batched_engine_gives_the_same_integers_beside_an_empty_record(engine):
    """On every processor measured; the proof itself rests on ``choice``'s trial for these engines."""
    whole = clean_sum("fixmatch", KINDS, engine=engine)
    for missing in ("mixed", "labelled NaN", "unlabelled"):
        others = [kind for kind in KINDS if kind != missing]
        part = clean_sum("fixmatch", others, engine=engine)
        assert np.array_equal(whole - part, clean_sum("fixmatch", {missing}, engine=engine))


def test_an_empty_site_sends_noise_of_the_same_shape():
    nobody = ArrayPatients(np.zeros((0, SIZE, SIZE), np.float32), np.zeros(0, np.int64), [], dimensions=2)
    empty, full = released_sum(nobody, settings()), released_sum(site(), settings())
    assert np.array_equal(empty.values, SameNoise().integers(len(empty.values), 1.0))
    assert (empty.step, empty.values.shape, empty.values.dtype) == (full.step, full.values.shape, full.values.dtype)


def test_a_round_logs_and_prints_nothing_that_depends_on_a_patient(caplog, capsys):
    with caplog.at_level(logging.DEBUG):
        released_sum(with_extra(STRANGE_PATIENTS["a NaN in a scan"])(), settings())
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


def test_others_keep_their_draws_when_a_patient_is_removed():
    randomness = RoundRandomness(KEY)
    keys = [f"patient-{i}" for i in range(200)]
    sampled = randomness.sampled(keys, sampling_rate=0.3, step=0)
    without = randomness.sampled(keys[1:], sampling_rate=0.3, step=0)
    assert [key for key in sampled if key != keys[0]] == without


def test_the_engine_refuses_a_network_with_batch_statistics():
    with pytest.raises(NetworkUnsuitableError, match="apart"):
        released_sum(site(), settings(), network=seeded(BatchNormNetwork)(), engine="book_keeping")


# -- planted faults: each must be seen ----------------------------------------------------------------------------


class BatchNormNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False, track_running_stats=False)
        self.head = nn.Linear(SIZE * SIZE, 2)

    def forward(self, images):
        return self.head(self.norm(images).flatten(1))


def unproven_book_keeping(engines, problem, stack, **_):
    return Way("book_keeping", ENGINES["book_keeping"], stack.patients, autocast=False)


def batch_norm():
    with pytest.MonkeyPatch.context() as patch:  # the engine refuses such a network by itself: take that away first
        patch.setattr(engine_module, "choose", unproven_book_keeping)
        patch.setattr(engine_module, "KNOWN_HERE", RememberedVerdicts())
        how = {"make_network": seeded(BatchNormNetwork), "removed": EVERYBODY, "engine": "book_keeping"}
        return largest_move(settings(), **how)


def seeded(network_class):
    def make():
        torch.manual_seed(0)
        return network_class()

    return make


class LinearNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(SIZE * SIZE, 2)

    def forward(self, images):
        return self.head(images.flatten(1))


class DatasetNormalised:
    """Patients whose images are normalised by mean and spread of the whole site: a fault."""

    def __init__(self, missing=None):
        self._patients = site()
        self._keys = {s: [k for k in self._patients.keys(s) if k != missing] for s in Stratum}
        everything = torch.cat([self._patients.read(key).images for keys in self._keys.values() for key in keys])
        self._mean, self._spread = everything.mean(), everything.std()

    def keys(self, stratum):
        return self._keys[stratum]

    def read(self, patient_key):
        found = self._patients.read(patient_key)
        return PatientScans((found.images - self._mean) / self._spread, found.labels)


def dataset_normalisation():
    chosen, network = settings(), seeded(LinearNetwork)
    whole = released_sum(DatasetNormalised(), chosen, network=network())
    keys = [key for stratum in Stratum for key in site().keys(stratum)]
    parts = [released_sum(DatasetNormalised(key), chosen, network=network()) for key in keys]
    return max(np.linalg.norm(part.vector - whole.vector) / chosen.clipping_norm for part in parts)


def adaptive_threshold():
    """As FreeMatch has it: the threshold follows the answers so far. A batch of several patients there is none."""
    answers = []

    def by_history(probabilities, _):
        top, pseudo_label = probabilities.max(1)
        answers.append(float(top.max()))
        return pseudo_labels.PseudoLabels(pseudo_label, top >= max(answers))

    def new_round():
        answers.clear()
        return seeded(LinearNetwork)()

    striking = PatientScans(torch.full((1, 1, SIZE, SIZE), 1e3), torch.tensor([UNKNOWN]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lessons.pseudo_labels, "one_class", by_history)
        return largest_move(
            settings(), make_network=new_round, make_patients=with_extra(striking, first=True), removed={"extra"}
        )


def realised_divisor():
    class Divided(PrivateTraining):
        def handed_over(self, total):
            batch = sum(len(self.patients.keys(stratum)) for stratum in Stratum)
            total.values = (total.values * ((LABELLED + UNLABELLED) / batch)).to(total.values.dtype)
            return super().handed_over(total)

    return largest_move(settings(), training_class=Divided, removed=EVERYBODY)


def clip_of_each_scan():
    class OneScanOnePatient:
        """Every scan pretends to be a patient, so that each has a clip of its own; removing a patient removes all."""

        def __init__(self, missing=None):
            self._patients, self._missing = site(), missing

        def keys(self, stratum):
            keys = [key for key in self._patients.keys(stratum) if key != self._missing]
            return [f"{key}/{scan}" for key in keys for scan in range(len(self._patients.read(key).images))]

        def read(self, patient_key):
            key, scan = patient_key.split("/")
            return self._patients.read(key).chosen(torch.tensor([int(scan)]))

    chosen = settings()
    whole = released_sum(OneScanOnePatient(), chosen)
    parts = [released_sum(OneScanOnePatient(f"patient-{i}"), chosen) for i in range(LABELLED + UNLABELLED)]
    return max(np.linalg.norm(part.vector - whole.vector) / chosen.clipping_norm for part in parts)


FAULTS = {
    "BatchNorm": batch_norm,
    "normalisation by the data set's mean and spread": dataset_normalisation,
    "a threshold that follows the patients before": adaptive_threshold,
    "the realised batch as divisor": realised_divisor,
    "a clip for each scan": clip_of_each_scan,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_flagged(fault):
    assert FAULTS[fault]() > 1.01


def test_settings_are_frozen_so_that_nothing_adapts_during_a_phase():
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings().clipping_norm = 2.0

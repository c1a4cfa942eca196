"""No setting of a plan is ignored silently: each key, set to another value, makes a difference or is refused.

A difference is one in what a site or the server *does*: records read, rules of a session, start weights, gradients of
real rounds, the model after real sums, the schedule of scores, the price, the deadlines. Echoes (digests, summaries)
do not count, but for what people are told (names, title, contact).
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest

from client.consent.approval import CheckedPlan
from client.consent.policy import SitePolicyFile, check_policy
from client.consent.session_policy import session_policy
from client.dicom.segment_codes import codes_of
from client.dicom.settings import settings_for
from client.features.preparation import preparation_of
from client.learning.patients import UNKNOWN, ArrayPatients
from client.learning.phase_settings import phase_settings
from client.learning.private_training import PrivateTraining
from client.learning.round_randomness import RoundRandomness
from client.private_gradients.settings import SpeedSettings
from common.errors import FedwardError
from common.networks.shipped_weights import available
from common.plan.combinations import check_combinations
from common.plan.fitting import check_fit, lattice_step
from common.plan.guarantee import check_guarantee, evaluation_noise_multiplier, seen_by
from common.plan.network import plan_network
from common.plan.part import PlanPart
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.reading import parse_plan
from common.plan.schedule import count_layout, is_evaluated, total_rounds
from common.plan.selection import check_selection
from common.plan.settings_read import check_settings_are_read
from common.plan.shape import phase_layouts
from common.plan.shapes_here import shapes_here
from common.plan.start import start_vector
from common.secagg.accumulator import SummedVector
from server.attempts.exchange import Late
from server.attempts.orders import session_length_s
from server.model.phase_facts import study_network
from server.model.state import apply_sum, result_so_far, start_state

SIZE = 8
SHIPPED = next(entry for entry in available() if (entry.network, entry.dimensions) == ("small_cnn", 2))

PHASE = {
    "rounds": 3, "maximum_attempts": 5, "labelled_sampling_rate": 1.0, "noise_multiplier": 20.0, "name": "only",
}  # fmt: skip
ENCODER = {"card": "1" * 64, "file": "2" * 64, "outputs": ["levels"], "features": 12, "views": 2}
TEACHER = {"unlabelled_sampling_rate": 1.0, "confidence_threshold": 0.5, "teacher_decay": 0.5}
BASES: dict[str, dict[str, Any]] = {
    "supervised": {},
    "a head on public weights": {
        "network": {"width": SHIPPED.width, "initialisation": SHIPPED.digest}, "phases": [{"trainable": "head"}],
    },
    "teacher and student": {
        "phases": [TEACHER | {"method": "teacher_student", "teacher_decay": 1.0, "unlabelled_clip_ratio": 0.5}],
    },
    "fixmatch without privacy": {
        "privacy": {"noise": "none"}, "phases": [TEACHER | {"method": "fixmatch", "noise_multiplier": 0.0}],
    },
    "mean teacher without privacy": {
        "task": {"kind": "segmentation"}, "network": {"name": "unet", "width": 4}, "privacy": {"noise": "none"},
        "phases": [TEACHER | {"method": "mean_teacher", "noise_multiplier": 0.0}],
    },
    "mean teacher": {
        "task": {"kind": "segmentation"}, "network": {"name": "unet", "width": 4},
        "phases": [TEACHER | {"method": "mean_teacher", "unlabelled_clip_ratio": 0.5}],
    },
    "reconstruction": {
        "network": {"name": "autoencoder", "width": 4}, "evaluation": {"held_out": False},
        "phases": [{"method": "reconstruction", "unlabelled_sampling_rate": 1.0, "unlabelled_clip_ratio": 0.5}],
    },
    "standardise, then a head": {
        "phases": [
            {"name": "first", "method": "standardise", "trainable": "feature_norm", "rounds": 2},
            {"name": "second", "trainable": "head"},
        ],
    },
    "ridge": {
        "phases": [
            {"name": "first", "method": "standardise", "trainable": "feature_norm", "rounds": 2},
            {
                "name": "second", "method": "ridge", "trainable": "head", "rounds": 1, "maximum_attempts": 2,
                "unlabelled_sampling_rate": 1.0, "unlabelled_clip_ratio": 0.5,
            },
        ],
    },
    "prior, then a segmentation": {
        "task": {"kind": "segmentation"}, "network": {"name": "unet", "width": 4, "prior": True},
        "phases": [
            {"name": "first", "method": "prior", "trainable": "prior", "rounds": 1, "maximum_attempts": 2},
            {"name": "second"},
        ],
    },
    "patches": {
        "task": {"kind": "segmentation"}, "network": {"name": "unet", "width": 4},
        "image": {"size_px": [12, 16], "patch_px": [8, 8]},
    },
    "local steps": {
        "privacy": {"noise": "local", "epsilon": 8.0, "delta": 1e-5},
        "aggregation": {"rule": "adam"}, "phases": [{"local_steps": 2}],
    },
    "several labels": {"task": {"kind": "multi_label"}},
    "volumes": {
        "task": {"dimensions": 3, "modalities": ["CT"]},
        "image": {"size_px": [8] * 3, "spacing_mm": [2.0] * 3, "intensity": "ct_window", "window_hu": [40.0, 400.0]},
    },
    "colour": {"task": {"modalities": ["OP"]}, "image": {"channels": 3, "intensity": "luminance"}},
    "encoder": {
        "network": {"name": "encoder", "width": 16, "encoder": ENCODER | {"views": 3}},
        "phases": [{"trainable": "head"}],
    },
    "encoder with a hidden layer": {
        "network": {"name": "encoder", "width": 16, "hidden_units": 4, "encoder": ENCODER},
        "phases": [
            {"name": "first", "method": "standardise", "trainable": "feature_norm", "rounds": 2},
            {"name": "second", "trainable": "head", **TEACHER, "method": "fixmatch"},
        ],
    },
    "uptake": {"task": {"modalities": ["PT"]}, "image": {"intensity": "suv_range", "range_suv": [0.0, 10.0]}},
}  # fmt: skip

OTHERS: dict[str, list[Any]] = {
    "format": ["fedward-plan/0"],
    "study.name": ["other-study"], "study.title": ["Another title"], "study.contact": ["Dr A. Meyer"],
    "study.roster_digest": ["f" * 64], "study.order_key": ["A" * 43 + "="],
    "task.kind": ["classification", "multi_label", "segmentation"], "task.classes": [["normal", "other", "third"]],
    "task.normal_class": ["abnormal"], "task.modalities": [["MR"]], "task.dimensions": [2, 3],
    "task.lesions": [["abnormal"], ["other"]],
    "image.size_px": [[16, 16], [8, 8, 12]], "image.intensity": ["luminance", "percentiles"],
    "image.spacing_mm": [[1.0, 1.0], [1.0, 1.0, 1.0]], "image.window_hu": [[0.0, 100.0]],
    "image.percentiles": [[0.0, 100.0]], "image.maximum_scans_per_patient": [1], "image.public_images": ["a" * 64],
    "image.presentation": ["for_processing"], "image.part": ["last"], "image.channels": [1, 3],
    "image.range_suv": [[0.0, 15.0]], "image.patch_px": [[8, 12]], "image.patches_per_patient": [3],
    "image.foreground_share": [1.0],
    "network.name": ["residual", "unet", "autoencoder", "small_cnn"], "network.width": [8],
    "network.initialisation": [SHIPPED.digest, "seeded"], "network.seed": [5],
    "network.hidden_units": [8], "network.projection": [8], "network.encoder": [ENCODER],
    "network.encoder.card": ["3" * 64], "network.encoder.file": ["3" * 64],
    "network.encoder.outputs": [["levels", "map"], ["other"]], "network.encoder.features": [24],
    "network.encoder.views": [5, 0],
    "privacy.noise": ["local", "none", "distributed"], "privacy.epsilon": [0.01], "privacy.delta": [1e-7],
    "privacy.unit": ["image"], "privacy.neighbouring_relation": ["replace_one"],
    "secure_aggregation.cohort_size": [3], "secure_aggregation.threshold": [4],
    "secure_aggregation.minimum_survivors": [4], "secure_aggregation.assumed_colluders": [0],
    "secure_aggregation.word_bits": [21], "secure_aggregation.guard_bits": [5],
    "secure_aggregation.coordinate_range": [512.0],
    "sites.name": ["zurich"], "sites.labelled_patients": [333], "sites.unlabelled_patients": [9_000_000],
    "phases.name": ["another"], "phases.rounds": [4], "phases.maximum_attempts": [9],
    "phases.method": [
        "supervised", "teacher_student", "mean_teacher", "reconstruction", "standardise", "ridge", "prior",
    ],
    "phases.view_range": ["wide"], "phases.mirrored_axes": [["width"], ["height", "width"]],
    "phases.ramp_up_rounds": [2], "phases.loss": ["ce", "dice_focal"], "phases.warm_up_rounds": [1],
    "phases.schedule": ["cosine"],
    "phases.prior_smoothing_px": [1.0], "network.prior": [True, False], "network.levels": [4],
    "phases.trainable": ["head", "all", "feature_norm"], "phases.layout_hash": ["0" * 64],
    "phases.labelled_sampling_rate": [0.4], "phases.unlabelled_sampling_rate": [0.4], "phases.clipping_norm": [0.01],
    "phases.unlabelled_clip_ratio": [0.05], "phases.noise_multiplier": [25.0], "phases.local_steps": [3],
    "phases.local_learning_rate": [0.3], "phases.proximal_weight": [0.5], "phases.views_per_scan": [2],
    "phases.confidence_threshold": [0.999], "phases.unlabelled_weight": [0.9], "phases.unlabelled_from_round": [2],
    "phases.learning_rate": [0.3], "phases.momentum": [0.2], "phases.teacher_decay": [0.0],
    "phases.gate_balanced_accuracy": [0.7], "phases.hidden_share": [0.2], "phases.class_weights": [[1.0, 0.25]],
    "aggregation.rule": ["mean", "yogi"], "aggregation.learning_rate": [0.3], "aggregation.momentum": [0.2],
    "aggregation.second_momentum": [0.5], "aggregation.adaptivity": [0.5], "aggregation.average_decay": [0.2],
    "aggregation.model_selection": ["last"], "aggregation.stop_after_scores": [1], "aggregation.least_gain": [0.2],
    "aggregation.robust": ["median_of_groups"],
    "evaluation.every_rounds": [1], "evaluation.epsilon": [0.5], "evaluation.held_out": [False, True],
    "evaluation.score_bins": [8],
    "timing.training_timeout_s": [60.0], "timing.stage_timeout_s": [60.0], "timing.reply_slot_s": [7.0],
    "timing.slow_multiple": [0.0],
}  # fmt: skip


class NoNoise:
    """Zeros, so that what is left comes from patients."""

    def integers(self, length, stddev):
        return np.zeros(length, np.int64)


def base_document(plan_document, name):
    document = copy.deepcopy(plan_document)
    changes = BASES[name]
    document["image"] |= {"size_px": [SIZE, SIZE]}
    document["network"] |= {"width": 4}
    document["secure_aggregation"]["coordinate_range"] = 256.0
    for section, values in changes.items():
        if section == "privacy":
            document[section] = values
        elif section != "phases":
            document.setdefault(section, {}).update(values)
    hashes = {"layout_hash": "0" * 64, "method": "supervised", "trainable": "all"}
    document["phases"] = [hashes | PHASE | phase for phase in changes.get("phases", [{}])]
    return document


def planned(document, *, keep_hashes=False) -> StudyPlan:
    """Read and check a plan as commands do; layouts are filled in, as whoever changes a plan does."""
    plan = parse_plan(document, "plan")
    check_combinations(plan, "plan")
    layouts = phase_layouts(plan)
    if not keep_hashes:
        pairs = zip(plan.phases, layouts, strict=True)
        phases = tuple(phase.model_copy(update={"layout_hash": found.layout_hash}) for phase, found in pairs)
        plan = plan.model_copy(update={"phases": phases})
    check_fit(plan, layouts, "plan")
    check_settings_are_read(plan, "plan")
    bought = check_guarantee(plan, "plan")
    check_selection(plan, "plan")
    check_policy(SitePolicyFile(format="fedward-policy/1", allow_without_privacy=True), plan, bought)
    return plan


def behaviour(plan, roster) -> Iterator[tuple[str, Any]]:
    """What sites and server do with a plan, cheap things first."""
    yield "what people are told", (plan.study, [site.name for site in plan.sites], [p.name for p in plan.phases])
    yield "whose recognition is called specificity", plan.task.normal_index
    lesions = plan.task.lesions
    yield "what masks say", [str(codes_of(name, is_lesion=name in lesions)) for name in plan.task.classes[1:]]
    yield "records of a scan", settings_for(plan.task, plan.image).digest()
    prepared = preparation_of(plan)
    yield "features of a scan", prepared and prepared.digest()
    yield "deadlines", (session_length_s(plan), plan.timing.training_timeout_s, plan.timing.stage_timeout_s)
    yield "whom a round goes on without", Late(plan.timing.slow_multiple, 0.0, lambda: True).after_s([10.0])
    scores = [version for version in range(total_rounds(plan) + 1) if is_evaluated(plan, version)]
    yield "scores", (scores, count_layout(plan) if scores else None, evaluation_noise_multiplier(plan) if scores else 0)
    yield "threshold of shares", plan.secure_aggregation.threshold
    yield "price", None if plan.privacy.delta is None else asdict(seen_by(plan))
    yield "a site's session", session(plan, roster)
    yield "start weights", start_vector(plan).numpy().tobytes()
    yield "the server's model", served(plan)
    yield "gradients", [taught(plan, index) for index in range(len(plan.phases))]


def session(plan, roster):
    """The rules that a site holds orders against, without digests over the whole plan."""
    policy = SitePolicyFile(format="fedward-policy/1", allow_without_privacy=True)
    rules = session_policy(CheckedPlan(plan, roster, "north", None, shapes_here(plan)), policy)
    phases = [replace(phase, task_digest=b"", privacy_digest=b"") for phase in rules.phases]
    return replace(rules, plan_digest=b"", phases=()), phases


def served(plan):
    """The result after a sum in each round, bit for bit."""
    network, random = study_network(plan), np.random.default_rng(1)
    state, attempt = start_state(network), 0
    names = tuple(site.name for site in plan.sites)
    while not state.finished:
        attempt += 1
        spec = network.phases[state.phase].vector
        body = random.integers(-1000, 1000, spec.body_length).astype(np.int32)
        total = SummedVector(np.zeros(spec.meta_words, np.uint64), body, len(names), spec.lattice)
        state = apply_sum(plan, network, state, attempt=attempt, participants=names, total=total).state
    return attempt, result_so_far(plan, state).tobytes()


def taught(plan, index):
    """The sums of a site's rounds in a phase, without noise, and the noise that would be added."""
    phase = plan.phases[index]
    settings = phase_settings(plan, phase, plan.sites[0])
    network = plan_network(plan)
    training = PrivateTraining(
        network,
        patients(plan),
        settings,
        noise=None if plan.privacy.noise is NoisePlacement.NONE else NoNoise(),
        lattice_step=None if plan.privacy.noise is NoisePlacement.LOCAL else lattice_step(plan),
        speed=SpeedSettings(engine="loop"),
        input_shape=plan.scan_shape,
    )
    random = np.random.default_rng(2)
    sums = []
    for number in range(1, phase.rounds + 1):
        for parameter in network.parameters():  # another released model each round, far from the last
            draw = random.normal(0, 1, parameter.shape) / math.sqrt(max(1, math.prod(parameter.shape[1:])))
            parameter.data.copy_(parameter.data.new_tensor(draw))
        sums.append(training.train_round(number, randomness=RoundRandomness(bytes([number]) * 32)).vector.tobytes())
    return settings.noise_stddev, sums


def patients(plan):
    """Three labelled patients, four with two scans of which one is labelled, six without a label."""
    random, classes, size = np.random.default_rng(3), len(plan.task.classes), plan.image.size_px
    owners = [f"a{n}" for n in range(3)] + [f"b{n // 2}" for n in range(8)] + [f"c{n}" for n in range(6)]
    count = len(owners)
    form = {"classification": (), "multi_label": (classes,), "segmentation": size}[plan.task.kind.value]
    most = 2 if plan.task.kind.value == "multi_label" else classes
    labels = random.integers(0, most, (count, *form))
    for row, owner in enumerate(owners):
        if owner[0] == "c" or (owner[0] == "b" and row % 2):
            labels[row] = UNKNOWN
    are_features = plan.network.encoder is not None
    whole = plan.scan_shape if are_features else plan.image.input_shape  # patches are taken of whole scans
    images = random.random((count, *whole), np.float32)
    return ArrayPatients(images, labels, owners, dimensions=len(size), are_features=are_features)


def leaves(part: PlanPart, place=()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield place and value of every key, those too that a plan of before does not write; of a list, its last entry."""
    for key in type(part).model_fields:
        value = getattr(part, key)
        if isinstance(value, PlanPart):
            yield from leaves(value, (*place, key))
        elif isinstance(value, tuple) and value and isinstance(value[0], PlanPart):
            yield from leaves(value[-1], (*place, key, len(value) - 1))
        else:
            yield (*place, key), list(value) if isinstance(value, tuple) else value


def changed(document, place, value):
    result = copy.deepcopy(document)
    part = result
    for step in place[:-1]:
        part = part.setdefault(step, {}) if isinstance(part, dict) else part[step]
    part[place[-1]] = value
    return result


def key_of(place):
    return ".".join(step for step in place if isinstance(step, str))


def silently_ignored(document, roster) -> list[str]:
    """Return every key of a plan for which no other value makes a difference or is refused."""
    plan = planned(document)
    known = list(behaviour(plan, roster))
    ignored = []
    for place, now in leaves(plan):
        key = key_of(place)
        tries = [value for value in OTHERS[key] if value != now]
        assert tries, f"the test knows no other value for {key}"
        if not all(makes_a_difference(changed(document, place, value), known, roster, key) for value in tries):
            ignored.append(key)
    return ignored


def makes_a_difference(document, known, roster, key):
    try:
        plan = planned(document, keep_hashes=key == "phases.layout_hash")
    except FedwardError:
        return True
    return any(before != after for before, after in zip_longest(known, behaviour(plan, roster)))


def test_every_key_of_a_plan_has_another_value_to_be_tried_with(plan_document):
    plans = [planned(base_document(plan_document, name)) for name in ("supervised", "encoder")]
    assert {key_of(place) for plan in plans for place, _ in leaves(plan)} == set(OTHERS)


SLOW = (
    "patches",
    "volumes",
    "uptake",
    "colour",
    "mean teacher",
    "mean teacher without privacy",
    "reconstruction",
    "local steps",
    "several labels",
    "fixmatch without privacy",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in BASES]
)
def test_no_setting_is_ignored_silently(name, plan_document, roster):
    assert silently_ignored(base_document(plan_document, name), roster) == []


def test_a_setting_that_nothing_reads_would_be_found(plan_document, roster, monkeypatch):
    """The test of the test: without the table nobody would be told."""
    document = base_document(plan_document, "supervised")
    monkeypatch.setitem(globals(), "check_settings_are_read", lambda plan, source: None)
    assert {"phases.hidden_share", "phases.unlabelled_weight", "image.public_images"} <= set(
        silently_ignored(document, roster)
    )

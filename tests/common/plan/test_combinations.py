"""What does not go together is refused before anybody signs, and again by every site; what nothing reads, too."""

import itertools
import tomllib

import numpy as np
import pytest

from client.consent.approval import approve, check_for_site
from client.dicom.limits import MAX_VOLUME_VOXELS
from client.learning.training_settings import Method as SiteMethod
from client.learning.training_settings import Task as SiteTask
from client.learning.training_settings import TrainingSettings
from common.plan.combinations import ANSWERS, METHODS, MOST_VOXELS, WITHOUT_ANSWER, check_combinations
from common.plan.errors import PlanInvalidError
from common.plan.phases import Method
from common.plan.reading import parse_plan, read_plan
from common.plan.settings_read import check_settings_are_read
from common.plan.shape import phase_layouts
from common.plan.signing import sign_plan
from common.plan.task import TaskKind
from server.commands.plan import checked_summary
from server.drafting.plan_text import plan_toml

UNLABELLED = {"unlabelled_sampling_rate": 0.2}
RIDGE = {"method": "ridge", "trainable": "head", "rounds": 1, "maximum_attempts": 3} | UNLABELLED
TRAINS = {Method.STANDARDISE: "feature_norm", Method.RIDGE: "head", Method.PRIOR: "prior"}
VOLUME = {"dimensions": 3, "modalities": ["CT"]}
REFUSED = {
    "segmentation with fixmatch": (
        {"task": {"kind": "segmentation"}, "network": {"name": "unet"}, "phase": UNLABELLED | {"method": "fixmatch"}},
        "fixmatch does not fit task.kind = segmentation; choose from: mean_teacher",
    ),
    "a side that the levels do not divide": (
        {
            "task": {"kind": "segmentation"}, "network": {"name": "unet", "levels": 5}, "image": {"size_px": [64, 72]},
        },
        "size_px has 72, which 5 levels .* do not divide: each side must be a multiple of 16",
    ),
    "patches of pictures with one class": ({"image": {"patch_px": [16, 16]}}, "patch_px is for a network that answers"),
    "a patch larger than the image": (
        {
            "task": {"kind": "segmentation"}, "network": {"name": "unet"},
            "image": {"size_px": [64, 64], "patch_px": [32, 96]},
        },
        r"patch_px is \[32, 96\], image.size_px \[64, 64\]: as many numbers, and none larger",
    ),
    "a patch that the levels do not divide": (
        {
            "task": {"kind": "segmentation"}, "network": {"name": "unet", "levels": 4},
            "image": {"size_px": [60, 64], "patch_px": [36, 32]},
        },
        "patch_px has 36, which 4 levels",
    ),
    "classification with a U-Net": (
        {"network": {"name": "unet"}},
        "unet, which does not answer task.kind = classification; choose from: encoder, residual",
    ),
    "segmentation with a classifier": (
        {"task": {"kind": "segmentation"}}, "small_cnn, which does not answer task.kind = segmentation",
    ),
    "several labels with a mean teacher": (
        {"task": {"kind": "multi_label"}, "phase": UNLABELLED | {"method": "mean_teacher"}}, "does not fit task.kind",
    ),
    "reconstruction with a classifier": (
        {"phase": UNLABELLED | {"method": "reconstruction"}}, "needs network.name = autoencoder",
    ),
    "labels for an autoencoder": (
        {"network": {"name": "autoencoder"}, "evaluation": {"held_out": False}}, "needs a network that answers",
    ),
    "scores of an autoencoder": (
        {"network": {"name": "autoencoder"}, "phase": {"method": "reconstruction"}}, "set held_out = false",
    ),
    "standardising a network without a feature norm": (
        {"network": {"name": "residual"}, "phase": {"method": "standardise", "trainable": "feature_norm"}},
        "needs network.name = small_cnn",
    ),
    "ridge on a network without a feature norm": (
        {"network": {"name": "residual"}, "phase": RIDGE}, "needs network.name = small_cnn",
    ),
    "a volume that no ingest reads": (
        {"task": VOLUME, "image": {"size_px": [1024, 512, 512], "spacing_mm": [1.0] * 3}},
        "268435456 voxels, no volume above 134217728 is read",
    ),
    "volumes of radiographs": (
        {"task": VOLUME | {"modalities": ["CT", "DX"]}, "image": {"size_px": [8] * 3, "spacing_mm": [1.0] * 3}},
        "has DX, whose pictures never make a volume",
    ),
    "a spacing with a side too many": ({"image": {"spacing_mm": [1.0] * 3}}, "spacing_mm has 3 numbers"),
    "Hounsfield units of a radiograph": (
        {"image": {"intensity": "ct_window", "window_hu": [40.0, 400.0]}}, "CR, DX .* has no Hounsfield units",
    ),
    "uptake of a CT": (
        {"task": {"modalities": ["CT"]}, "image": {"intensity": "suv_range", "range_suv": [0.0, 15.0]}},
        "CT .task.modalities. has no uptake values",
    ),
    "colours of a CT": (
        {"task": {"modalities": ["CT", "OP"]}, "image": {"channels": 3}}, "CT .* has no colour; choose from: OP",
    ),
    "volumes in colour": (
        {"task": VOLUME, "image": {"size_px": [8] * 3, "spacing_mm": [1.0] * 3, "channels": 3}}, "volumes are grey",
    ),
    "colours through the file's own window": (
        {"task": {"modalities": ["OP"]}, "image": {"channels": 3, "intensity": "voi_lut"}}, "voi_lut is for grey",
    ),
    "local steps without privacy": (
        {"privacy": {"noise": "none"}, "phase": {"local_steps": 3, "noise_multiplier": 0.0}}, "local_steps must be 1",
    ),
    "a gate on outlines": (
        {
            "task": {"kind": "segmentation"}, "network": {"name": "unet"}, "image": {"public_images": "a" * 64},
            "phase": UNLABELLED | {"method": "mean_teacher", "gate_balanced_accuracy": 0.7},
        },
        "judges one class an image",
    ),
    "unlabelled scans that come after the end": (
        {"phase": UNLABELLED | {"method": "fixmatch", "unlabelled_from_round": 999}}, "no unlabelled scan would ever",
    ),
}  # fmt: skip


def document_with(plan_document, changes):
    for section, values in changes.items():
        if section == "phase":
            plan_document["phases"][0] |= values
        elif section == "privacy":
            plan_document[section] = values
        else:
            plan_document[section] = plan_document.get(section, {}) | values
    return plan_document


def with_layouts(plan):
    if plan.network.name == "residual":  # which has no feature norm to lay out
        return plan
    pairs = zip(plan.phases, phase_layouts(plan), strict=True)
    phases = tuple(phase.model_copy(update={"layout_hash": found.layout_hash}) for phase, found in pairs)
    return plan.model_copy(update={"phases": phases})


@pytest.fixture
def signed(plan_document, coordinator_key, tmp_path):
    """A signed file of the changed plan, its layout hashes right, as a coordinator with other software makes it."""

    def make(changes):
        plan = with_layouts(parse_plan(document_with(plan_document, changes), "plan"))
        file = tmp_path / "changed.toml"
        file.write_text(plan_toml(plan))
        sign_plan(read_plan(file), file, coordinator_key)
        return plan, file

    return make


@pytest.mark.parametrize(("changes", "sentence"), REFUSED.values(), ids=REFUSED)
def test_parts_that_do_not_go_together_are_refused_by_check_sign_and_every_site(changes, sentence, signed, north):
    plan, file = signed(changes)
    for check in (lambda: checked_summary(plan, "plan"), lambda: check_for_site(north, file)):
        with pytest.raises(PlanInvalidError, match=sentence):
            check()
    with pytest.raises(PlanInvalidError, match=sentence):
        approve(north, file, approver="Dr A. Meyer")
    assert not north.audit.exists()


IGNORED = {
    "class weights of several labels": (
        {"task": {"kind": "multi_label"}, "phase": {"class_weights": [1.0, 0.5]}}, "class_weights is .* nothing reads",
    ),
    "a loss of label maps where there are none": ({"phase": {"loss": "ce"}}, "loss is ce, but nothing reads it"),
    "how many patches of none": ({"image": {"patches_per_patient": 4}}, "patches_per_patient is 4"),
    "the weight of a mean teacher": (
        {
            "task": {"kind": "segmentation"}, "network": {"name": "unet"},
            "secure_aggregation": {"coordinate_range": 16.0},
            "phase": UNLABELLED | {"method": "mean_teacher", "unlabelled_weight": 0.9},
        },
        "unlabelled_weight is 0.9",
    ),
    "a clip without privacy": (
        {"privacy": {"noise": "none"}, "phase": {"noise_multiplier": 0.0, "clipping_norm": 2.0}}, "clipping_norm is 2",
    ),
    "momentum of the mean": ({"aggregation": {"rule": "mean", "momentum": 0.5}}, r"aggregation\.momentum is 0\.5"),
    "a teacher that does not keep its name": (
        {"phase": UNLABELLED | {"method": "teacher_student", "teacher_decay": 0.5}}, "use method = fixmatch",
    ),
    "a threshold that no teacher reaches": (
        {"phase": UNLABELLED | {"method": "fixmatch", "teacher_decay": 0.5, "confidence_threshold": 1.0}},
        "which no teacher reaches",
    ),
    "a class that is present and absent at once": (
        {
            "task": {"kind": "multi_label"},
            "phase": UNLABELLED | {"method": "fixmatch", "teacher_decay": 0.5, "confidence_threshold": 0.3},
        },
        "present and absent at once",
    ),
    "pseudo-labels that weigh nothing": (
        {
            "privacy": {"noise": "none"},
            "phase": UNLABELLED | {"method": "teacher_student", "noise_multiplier": 0.0, "unlabelled_weight": 0.0},
        },
        "unlabelled_weight is 0, so",
    ),
    "a reconstruction that leaves the encoder as it is": (
        {
            "network": {"name": "autoencoder"}, "evaluation": {"held_out": False},
            "phase": UNLABELLED | {"method": "reconstruction", "trainable": "head"},
        },
        "leaves the encoder as it is",
    ),
    "scores that nobody makes": (
        {"evaluation": {"held_out": False}, "aggregation": {"stop_after_scores": 3}}, "nobody is held out to be scored",
    ),
    "several at once": (
        {"phase": {"hidden_share": 0.1, "teacher_decay": 0.3, "local_learning_rate": 0.3}}, "2 more settings like this",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), IGNORED.values(), ids=IGNORED)
def test_a_setting_that_nothing_reads_is_refused_by_check_and_at_approval(changes, sentence, signed, north):
    north.policy.write_text('format = "fedward-policy/1"\nallow_without_privacy = true\n')
    plan, file = signed(changes)
    with pytest.raises(PlanInvalidError, match=sentence):
        checked_summary(plan, "plan")
    with pytest.raises(PlanInvalidError, match=sentence):
        approve(north, file, approver="Dr A. Meyer")
    assert not north.audit.exists()


def test_a_study_approved_before_this_check_goes_on(signed, north):
    """An ignored setting harms nobody: only new approvals are refused for it."""
    _, file = signed({"aggregation": {"rule": "mean", "momentum": 0.5}})
    assert check_for_site(north, file).site_id == "north"


def test_settings_at_their_defaults_are_no_decision(plan_document, plan_text):
    document = document_with(tomllib.loads(plan_text), {"aggregation": {"rule": "mean", "momentum": 0.9}})
    check_settings_are_read(parse_plan(document, "plan"), "plan")


NETWORKS = {
    "encoder": {
        "name": "encoder", "width": 16,
        "encoder": {"card": "1" * 64, "file": "2" * 64, "outputs": ["levels"], "features": 12},
    },
}  # fmt: skip


@pytest.mark.parametrize(("kind", "network", "method"), itertools.product(TaskKind, ANSWERS, Method))
def test_the_table_and_the_training_agree(kind, network, method, plan_document):
    """What the table allows can be set up at a site; what it refuses, no site would have trained."""
    rest = "head" if network == "level_head" else "all"
    plan = document_with(plan_document, {
        "task": {"kind": kind.value}, "network": NETWORKS.get(network, {"name": network}),
        "evaluation": {"held_out": network != "autoencoder"},
        "phase": {
            "method": method.value, "trainable": TRAINS.get(method, rest), "rounds": 1,
            "unlabelled_sampling_rate": 0.0 if method in {Method.SUPERVISED, Method.PRIOR} else 0.2,
        },
    })  # fmt: skip
    if method is Method.PRIOR:  # which is the first phase of two, in a network that has one
        plan["network"] |= {"prior": True}
        plan["phases"].append(plan["phases"][0] | {"name": "next", "method": "supervised", "trainable": rest})
    suits = kind in ANSWERS[network] if method not in WITHOUT_ANSWER else network in WITHOUT_ANSWER[method]
    suits &= method is not Method.RIDGE or network in {"small_cnn", "residual_levels", "encoder"}
    answers = kind in ANSWERS[network] or network == "autoencoder"
    if suits and answers and method in METHODS[kind]:
        check_combinations(parse_plan(plan, "plan"), "plan")
    else:
        with pytest.raises(PlanInvalidError):
            check_combinations(parse_plan(plan, "plan"), "plan")
    settings = {"task": SiteTask(kind.value), "classes": 2, "dimensions": 2, "method": SiteMethod(method.value),
                "labelled_sampling_rate": 0.2, "noise_multiplier": 1.0,
                "trainable": TRAINS.get(method, "all")}  # fmt: skip
    if method in METHODS[kind]:
        TrainingSettings(**settings)
    else:
        with pytest.raises(PlanInvalidError, match="does not fit task"):
            TrainingSettings(**settings)


def test_the_largest_volume_of_a_plan_is_that_of_the_ingest():
    assert MAX_VOLUME_VOXELS == MOST_VOXELS
    assert np.prod([464, 464, 464]) < MOST_VOXELS

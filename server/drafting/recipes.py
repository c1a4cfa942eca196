"""The recipe for a study: the best measured way for its task and its numbers, as a draft of a plan.

    ridge        standardise, then the head from one release of each patient (docs/decisions/0042)
    head         standardise, then a linear head in as many rounds as public numbers are worth (docs/results.md)
    prior-head   segmentation: where structures lie, then a head at each pixel or voxel (docs/decisions/0044)
    plain        one supervised phase on the whole network, to be changed by hand (``server.study.plan_template``)

``auto``: segmentation takes ``prior-head``; the others ``ridge``, or ``head`` where nobody is unlabelled or the encoder
has more features than a ridge takes. What a recipe is worth, and where it was measured: docs/results.md.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import ValidationError

from common.encoders.card import EncoderCard
from common.networks.ridge import MOST_FEATURES
from common.plan.errors import PlanInvalidError
from common.plan.head_steps import head_steps
from common.plan.reading import complaint
from common.plan.task import Modality, TaskKind, sounds_normal
from common.privacy.accounting import noise_multiplier_for
from server.drafting.draft import StudyDraft

Counts = Mapping[str, tuple[int, int]]  # site -> labelled, unlabelled patients
Part = dict[str, Any]

SPARE: Final = 1  # attempts more than a phase of one round needs: one lost round is no lost study
STANDARDISE_ROUNDS: Final = 3
OF_STANDARDISING: Final = 0.3  # of the unlabelled patients' budget, in a ridge's study
OF_CENTRING: Final = 0.25  # of the labelled patients' budget, where nobody is unlabelled
LEVELS: Final = 7  # widths of features that small_cnn has
VOXEL_ROUNDS: Final = 60
OF_PRIOR, OF_FEATURES = 0.2, 0.05  # of the labelled patients' budget, in a segmentation


class Recipe(StrEnum):
    """Ways to learn that ``study new`` can write."""

    AUTO = "auto"
    RIDGE = "ridge"
    HEAD = "head"
    PRIOR_HEAD = "prior-head"
    PLAIN = "plain"


@dataclass(frozen=True)
class Question:
    """What a study is about, in a coordinator's words.

    ``size_px``: (height, width), or (depth, height, width); ``spacing_mm``: the same order, empty in 2-D where scans
    are taken as they are. ``window_hu``: (centre, width) for CT, empty: percentiles. ``mask_share``: of a scan's pixels
    that all structures together have, a public guess (segmentation). ``card``: of the public encoder to learn on.
    """

    kind: TaskKind
    classes: tuple[str, ...]
    modalities: tuple[Modality, ...]
    size_px: tuple[int, ...]
    epsilon: float
    delta: float
    spacing_mm: tuple[float, ...] = ()
    window_hu: tuple[float, ...] = ()
    channels: int = 1
    mask_share: float = 0.03
    card: EncoderCard | None = None


def choose(recipe: Recipe, question: Question, counts: Counts) -> Recipe:
    """Return the recipe that ``auto`` stands for, or any other one if it fits the task.

    Raises: PlanInvalidError for a recipe of another task, or without patients for it.
    """
    segments = question.kind is TaskKind.SEGMENTATION
    labelled, unlabelled = (sum(each) for each in zip(*counts.values(), strict=True))
    later = [name for name in question.classes[1:] if sounds_normal(name)]
    if segments and later and not sounds_normal(question.classes[0]):
        raise PlanInvalidError(
            f"--classes: the first class of a segmentation is the background; put {later[0]!r} first"
        )
    if len(question.size_px) == 3 and not question.spacing_mm:
        raise PlanInvalidError("--spacing is missing: volumes need depth,height,width in mm (image.spacing_mm)")
    if labelled == 0:
        raise PlanInvalidError("--patients: no hospital has a labelled patient, so nothing could be learnt")
    if recipe is Recipe.AUTO:
        wide = question.card is not None and _features(question.card) > MOST_FEATURES
        recipe = Recipe.HEAD if wide or unlabelled == 0 else Recipe.RIDGE
        recipe = Recipe.PRIOR_HEAD if segments else recipe
    if segments != (recipe is Recipe.PRIOR_HEAD):
        fitting = "prior-head" if segments else "ridge or head"
        raise PlanInvalidError(f"--recipe {recipe} does not fit --task {question.kind}; choose {fitting}, or auto")
    if recipe is Recipe.RIDGE and unlabelled == 0:
        raise PlanInvalidError("--recipe ridge needs unlabelled patients, nobody declares any; choose head")
    if segments and question.card is not None:
        raise PlanInvalidError("--encoder gives one vector for a scan, --task segmentation needs answers at each pixel")
    return recipe


def draft_of(recipe: Recipe, question: Question, counts: Counts, *, rate: float) -> StudyDraft:
    """Return the draft of a chosen recipe (not ``auto``).

    ``rate``: share of the patients in each sum of moments or label maps.
    Raises: PlanInvalidError for words that no plan takes.
    """
    document: Part = {
        "task": {
            "kind": question.kind.value,
            "classes": question.classes,
            "modalities": question.modalities,
            "normal_class": _normal_class(question),
            "dimensions": len(question.size_px),
        },
        "image": _image(question),
        "network": _network(recipe, question),
        "privacy": {"noise": "distributed", "epsilon": question.epsilon, "delta": question.delta},
        "secure_aggregation": thresholds(len(counts)),
        "evaluation": {"held_out": False},
        "timing": {},
        **_PHASES[recipe](question, counts, rate),
    }
    try:
        return StudyDraft.model_validate(document)
    except ValidationError as error:
        raise complaint(error, "what was asked for") from None


def _normal_class(question: Question) -> str:
    """Return the class that sounds normal, where it is not the first; the first of a segmentation is the background."""
    sounding = next((name for name in question.classes if sounds_normal(name)), question.classes[0])
    return "" if question.kind is not TaskKind.CLASSIFICATION or sounding == question.classes[0] else sounding


def thresholds(sites: int) -> dict[str, int]:
    """Return thresholds with the one colluder that a site's policy assumes by default; a quarter may drop out."""
    return {
        "cohort_size": sites,
        "assumed_colluders": 1,
        "threshold": (sites + 1) // 2 + 1,
        "minimum_survivors": max(3, sites - sites // 4),
    }


def _image(question: Question) -> Part:
    image: Part = {"size_px": question.size_px, "channels": question.channels, "spacing_mm": question.spacing_mm}
    if question.window_hu:
        return image | {"intensity": "ct_window", "window_hu": question.window_hu}
    return image | {"intensity": "luminance" if question.channels == 3 else "percentiles"}


def _network(recipe: Recipe, question: Question) -> Part:
    if question.card is not None:
        return {"name": "encoder", "encoder": {}}
    if recipe is Recipe.PRIOR_HEAD:
        return {"name": "level_head", "width": 32, "initialisation": "seeded", "prior": True}
    return {
        "name": "small_cnn",
        "width": _width(question),
        "initialisation": "public" if question.channels == 1 else "seeded",
    }


def _width(question: Question) -> int:
    return 16 if len(question.size_px) == 2 else 8  # of the public start weights


def _standardise(rate: float, *, share: float, unlabelled: bool) -> Part:
    """Return the phase that centres and scales features; its noise takes ``share`` of its patients' budget.

    ``rate``: which share of them takes part. ``unlabelled``: whether unlabelled patients do it, or labelled ones.
    """
    attempts = STANDARDISE_ROUNDS + SPARE
    return {
        "name": "standardise",
        "rounds": STANDARDISE_ROUNDS,
        "maximum_attempts": attempts,
        "method": "standardise",
        "trainable": "feature_norm",
        "labelled_sampling_rate": 0.0 if unlabelled else rate,
        "unlabelled_sampling_rate": rate if unlabelled else 0.0,
        "clipping_norm": 2.0,
        "noise_ratio": round(math.sqrt(attempts / share), 2),
        **({"unlabelled_clip_ratio": 1.0} if unlabelled else {}),
    }


def _ridge(_: Question, __: Counts, rate: float) -> Part:
    released = 1 + SPARE
    ridge = {
        "name": "ridge",
        "rounds": 1,
        "maximum_attempts": released + 1,  # the closing attempt reads nobody
        "method": "ridge",
        "trainable": "head",
        "labelled_sampling_rate": 1.0,
        "unlabelled_sampling_rate": rate,
        "unlabelled_clip_ratio": round(math.sqrt(1 - OF_STANDARDISING), 3),
        "noise_ratio": round(math.sqrt(released), 2),
    }
    return {"phases": [_standardise(rate, share=OF_STANDARDISING, unlabelled=True), ridge], "aggregation": {}}


def _head(question: Question, counts: Counts, rate: float) -> Part:
    unlabelled = any(count for _, count in counts.values())
    head = {
        "name": "head",
        "method": "supervised",
        "trainable": "head",
        "labelled_sampling_rate": 1.0,
        "clipping_norm": 0.5,
    }
    rule: Part = {"rule": "mean", "learning_rate": 12.0}
    if _head_rounds(question, counts) > 1:
        rule["average_decay"] = 0.95
    return {
        "phases": [_standardise(rate, share=1.0 if unlabelled else OF_CENTRING, unlabelled=unlabelled), head],
        "aggregation": rule,
    }


def _head_rounds(question: Question, counts: Counts) -> int:
    once = noise_multiplier_for(epsilon=question.epsilon, delta=question.delta, sampling_rate=1.0, steps=1)
    features = _features(question.card) if question.card else LEVELS * _width(question)
    labelled = sum(labelled for labelled, _ in counts.values())
    return head_steps(labelled=labelled, noise_multiplier=once, features=features, classes=len(question.classes))


def _prior_head(question: Question, _: Counts, rate: float) -> Part:
    """Return the phases of a segmentation under privacy (docs/decisions/0044); shares of the labelled budget."""
    voxels = math.prod(question.size_px) * question.mask_share
    one = {"rounds": 1, "maximum_attempts": 1 + SPARE, "labelled_sampling_rate": rate}
    attempts = VOXEL_ROUNDS + VOXEL_ROUNDS // 10

    def ratio(share: float, releases: int) -> float:
        rest = (1 - OF_PRIOR - OF_FEATURES) / attempts
        return round(math.sqrt(rest * releases / share), 3)

    prior = one | {
        "name": "prior",
        "method": "prior",
        "trainable": "prior",
        "clipping_norm": round(max(1.0, math.sqrt(voxels)), 1),
        "noise_ratio": ratio(OF_PRIOR, 1 + SPARE),
    }
    standardise = one | {
        "name": "standardise",
        "method": "standardise",
        "trainable": "feature_norm",
        "clipping_norm": 2.0,
        "noise_ratio": ratio(OF_FEATURES, 1 + SPARE),
    }
    head = {
        "name": "head",
        "rounds": VOXEL_ROUNDS,
        "maximum_attempts": attempts,
        "method": "supervised",
        "trainable": "head",
        "labelled_sampling_rate": 1.0,
        "clipping_norm": 0.1,
    }
    rule = {"rule": "adam", "learning_rate": 0.2, "adaptivity": 1e-6, "average_decay": 0.95}
    return {"phases": [prior, standardise, head], "aggregation": rule}


def _features(card: EncoderCard) -> int:
    return card.features_of([output.name for output in card.outputs if output.kind == "vector"])


_PHASES: Final[dict[Recipe, Callable[[Question, Counts, float], Part]]] = {
    Recipe.RIDGE: _ridge,
    Recipe.HEAD: _head,
    Recipe.PRIOR_HEAD: _prior_head,
}

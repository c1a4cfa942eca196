"""What `study new` and `plan new` ask a coordinator: options, and the question that comes of them."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from common.encoders.card import EncoderCard
from common.encoders.shelf import EncoderShelf
from common.plan.errors import PlanInvalidError
from common.plan.task import Intensity, Modality, TaskKind
from common.terminal import errors, output
from server.drafting.recipes import Question, Recipe
from server.study.new_plan import NewPlan, Wanted

RecipeOption = Annotated[
    Recipe,
    typer.Option(help="How to learn; auto: what measured best; plain: one phase to change by hand."),
]
TaskOption = Annotated[TaskKind, typer.Option(help="What the model answers.")]
ClassesOption = Annotated[str, typer.Option(help="Classes, with commas; the normal one (or background) first.")]
LEAST_EPSILON, MOST_EPSILON = 0.001, 50.0  # what can be accounted, and what a plan may promise
EpsilonOption = Annotated[float, typer.Option(help="Privacy a patient is promised.")]
ModalityOption = Annotated[str, typer.Option(help="DICOM modalities, with commas.")]
SizeOption = Annotated[
    str,
    typer.Option(help="Pixels: side, or height,width, or depth,height,width. Default 64, or the encoder's."),
]
SpacingOption = Annotated[str, typer.Option(help="Millimetres of a pixel in the same order; volumes need it.")]
WindowOption = Annotated[str, typer.Option(help="CT: centre,width of the window in Hounsfield units.")]
ChannelsOption = Annotated[int, typer.Option(min=1, max=3, help="1: grey; 3: colour.")]
MaskShareOption = Annotated[
    float | None,
    typer.Option(help="Segmentation: share of a scan's pixels in the masks, a public guess; default 0.03."),
]
EncoderOption = Annotated[
    str,
    typer.Option(help="Digest of an encoder of `encoder add`; default: the only one there; none: without."),
]
RoundsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Rounds of --recipe plain.  [default: 100]", show_default=False),
]
DEFAULT_CLASSES: Final = "normal,abnormal"
DEFAULT_MODALITY: Final = "CR,DX"
DEFAULT_SIDE: Final = 64
DEFAULT_MASK_SHARE, LEAST_MASK_SHARE = 0.03, 1e-5
MOST_DIGITS: Final = 4  # of a side
WITHOUT: Final = "none"


@dataclass(frozen=True)
class Asked:
    """The options as typed."""

    recipe: Recipe
    task: TaskKind
    classes: str
    modality: str
    size: str
    spacing: str
    window: str
    channels: int
    mask_share: float | None
    encoder: str
    epsilon: float
    rounds: int | None


def wanted(asked: Asked, shelf: EncoderShelf) -> Wanted:
    """Return what the plan is to be, from what was typed. Raises: PlanInvalidError, EncoderInvalidError."""
    if not LEAST_EPSILON <= asked.epsilon <= MOST_EPSILON:  # so is nan
        raise PlanInvalidError(f"--epsilon is {asked.epsilon:g}, it must be {LEAST_EPSILON:g} to {MOST_EPSILON:g}")
    if asked.recipe is Recipe.PLAIN:
        _refuse_unread(asked)
        return Wanted(asked.recipe, None, asked.epsilon, asked.rounds)
    if asked.rounds is not None:
        raise PlanInvalidError("--rounds belongs to --recipe plain: the other recipes compute the rounds")
    card = _card(asked, shelf)
    size = _size(asked, card)
    question = Question(
        kind=asked.task,
        classes=tuple(each.strip() for each in asked.classes.split(",")),
        modalities=tuple(_modality(each.strip()) for each in asked.modality.split(",")),
        size_px=size,
        epsilon=asked.epsilon,
        delta=1.0,  # follows from the hospitals' counts
        spacing_mm=_numbers("--spacing", asked.spacing),
        window_hu=_numbers("--window", asked.window),
        channels=asked.channels,
        mask_share=_mask_share(asked),
        card=card,
    )
    return Wanted(asked.recipe, question, asked.epsilon, None)


def recipe_facts(made: NewPlan) -> dict[str, Any]:
    """Return which recipe a new plan has, its rounds, and the standard error of its score (null: none is made)."""
    if made.planned is None:
        return {"recipe": Recipe.PLAIN.value}
    plan, error = made.planned.plan, made.planned.standard_error
    rounds = {phase.name: phase.rounds for phase in plan.phases}
    return {"recipe": made.planned.recipe.value, "rounds": rounds, "standard_error_of_a_score": error}


def tell_recipe(made: NewPlan) -> None:
    """Print for a person what was chosen."""
    if made.planned is None:
        return
    plan, error = made.planned.plan, made.planned.standard_error
    rounds = ", ".join(f"{phase.name} {phase.rounds}" for phase in plan.phases)
    on = "a public encoder" if plan.network.encoder else plan.network.name
    scored = "no score (it would say too little; every label trains)"
    if error is not None:
        scored = f"one score at the end, to about +-{2 * error:.2f}"
    output.print(f"recipe {made.planned.recipe} on {on}; rounds: {rounds}; {scored}", markup=False)
    if Modality.CT in plan.task.modalities and plan.image.intensity is not Intensity.CT_WINDOW:
        errors.print(
            "CT without --window: grey values go by each scan's own percentiles, so Hounsfield units are lost. "
            "--window 40,400 shows soft tissue, --window=-600,1500 lungs",
            markup=False,
        )


def _refuse_unread(asked: Asked) -> None:
    said: dict[str, tuple[Any, Any]] = {
        "--task": (asked.task, TaskKind.CLASSIFICATION),
        "--classes": (asked.classes, DEFAULT_CLASSES),
        "--modality": (asked.modality, DEFAULT_MODALITY),
        "--size": (asked.size, ""),
        "--spacing": (asked.spacing, ""),
        "--window": (asked.window, ""),
        "--channels": (asked.channels, 1),
        "--encoder": (asked.encoder, ""),
        "--mask-share": (asked.mask_share, None),
    }
    unread = [name for name, (value, default) in said.items() if value != default]
    if unread:
        raise PlanInvalidError(f"{unread[0]} has no effect with --recipe plain: change its plan by hand")


def _card(asked: Asked, shelf: EncoderShelf) -> EncoderCard | None:
    if asked.encoder == WITHOUT or (not asked.encoder and asked.task is TaskKind.SEGMENTATION):
        return None
    if asked.encoder:
        return shelf.find(asked.encoder)
    cards, broken = shelf.cards()
    sides = 3 if asked.spacing else 2  # a volume needs its spacing, a picture seldom has one
    if asked.size:
        fitting = [card for card in cards if card.size_px == _sides(asked.size) and card.channels >= asked.channels]
    else:
        fitting = [card for card in cards if len(card.size_px) == sides and card.channels >= asked.channels]
    if broken or len(fitting) > 1:
        trouble = broken[0] if broken else f"{len(fitting)} encoders here take such images"
        raise PlanInvalidError(f"{trouble}; say which with --encoder DIGEST, or --encoder none")
    if cards and not fitting:
        errors.print(f"{len(cards)} public encoders here take other images; built on our own network", markup=False)
    return fitting[0] if fitting else None


def _size(asked: Asked, card: EncoderCard | None) -> tuple[int, ...]:
    if card is not None:
        if asked.size and _sides(asked.size) != card.size_px:
            takes = ",".join(map(str, card.size_px))
            raise PlanInvalidError(
                f"--size is {asked.size[:40]}, the encoder {card.name} takes {takes}; leave --size out"
            )
        return card.size_px
    return _sides(asked.size) if asked.size else (DEFAULT_SIDE, DEFAULT_SIDE)


def _sides(text: str) -> tuple[int, ...]:
    """Return the sides that a person wrote; one number stands for both sides of a picture."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 3 or not all(part.isascii() and part.isdecimal() and len(part) <= MOST_DIGITS for part in parts):
        raise PlanInvalidError(f"--size is {text[:40]!r}: write 64, or 64,64, or 32,64,64 (depth, height, width)")
    whole = tuple(map(int, parts))
    return whole * 2 if len(whole) == 1 else whole


def _mask_share(asked: Asked) -> float:
    share = asked.mask_share
    if share is None:
        return DEFAULT_MASK_SHARE
    if asked.task is not TaskKind.SEGMENTATION:
        raise PlanInvalidError("--mask-share belongs to --task segmentation; remove it")
    if not LEAST_MASK_SHARE <= share <= 1:  # so is nan
        raise PlanInvalidError(f"--mask-share is {share:g}, it must be {LEAST_MASK_SHARE:g} to 1")
    return share


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in text.split(",")) if text else ()
    except ValueError:
        raise PlanInvalidError(f"{option} is {text[:40]!r}: write numbers with commas between them") from None


def _modality(name: str) -> Modality:
    try:
        return Modality(name)
    except ValueError:
        known = ", ".join(each.value for each in Modality)
        raise PlanInvalidError(f"--modality has {name[:20]!r}; choose from: {known}") from None

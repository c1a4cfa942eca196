"""What is learnt, and from which images."""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from common.networks.settings import ENCODER, LEAST_LEVELS, MOST_LEVELS, MOST_PROJECTED
from common.plan.part import PlanPart

SEEDED: Final = "seeded"  # start weights that are drawn from the plan's seed, not read

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
OutputName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./:-]{0,119}$")]  # as ``common.encoders.card``
ClassName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_ -]{0,39}$")]

SOUNDS_NORMAL: Final = frozenset({"normal", "healthy", "negative", "background", "none"})
NEGATIONS: Final = ("no ", "no-", "no_", "not ", "without ")

Pixels = Annotated[int, Field(ge=8, le=1024)]
Spacing = Annotated[float, Field(gt=0, le=50)]
Hounsfield = Annotated[float, Field(ge=-5000, le=10000)]
Uptake = Annotated[float, Field(ge=0, le=1000)]
Percentile = Annotated[float, Field(ge=0, le=100)]


def sounds_normal(name: str) -> bool:
    """Tell whether a class's name says that nothing was found."""
    return name in SOUNDS_NORMAL or name.startswith(NEGATIONS)


class TaskKind(StrEnum):
    """What the network answers."""

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi_label"
    SEGMENTATION = "segmentation"


class Modality(StrEnum):
    """DICOM modality, PS3.3 section C.7.3.1.1.1 (those whose pixel path exists here)."""

    CT = "CT"
    MR = "MR"
    PT = "PT"
    CR = "CR"
    DX = "DX"
    MG = "MG"
    US = "US"
    XA = "XA"
    RF = "RF"
    NM = "NM"
    OP = "OP"
    XC = "XC"


class Intensity(StrEnum):
    """How stored values become numbers in [0, 1]; every rule looks at one image only, never at a collection."""

    CT_WINDOW = "ct_window"
    SUV_RANGE = "suv_range"
    PERCENTILES = "percentiles"
    LUMINANCE = "luminance"
    VOI_LUT = "voi_lut"


class Presentation(StrEnum):
    """Which form of a DX or MG image a study takes: as made for reading, or as the detector measured it."""

    FOR_PRESENTATION = "for_presentation"
    FOR_PROCESSING = "for_processing"


class Part(StrEnum):
    """Which volume of a series that holds several: the first or the last phase, echo, b-value or reconstruction."""

    FIRST = "first"
    LAST = "last"


class Task(PlanPart):
    """The question: kind, classes, modalities.

    ``normal_class``: which of the classes means that nothing was found, where it is not the first; of a segmentation
    the first is the background. ``lesions``: classes of a segmentation of which a scan may have several, or none: they
    are also counted one by one, and masks say that they are abnormal.
    """

    LATER_KEYS = ("normal_class", "lesions")

    kind: Annotated[TaskKind, Field(strict=False)]
    classes: Annotated[tuple[ClassName, ...], Field(strict=False, min_length=2, max_length=64)]
    modalities: Annotated[
        tuple[Annotated[Modality, Field(strict=False)], ...], Field(strict=False, min_length=1, max_length=12)
    ]
    dimensions: Annotated[int, Field(ge=2, le=3)]
    normal_class: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_ -]{0,39})?$")] = ""
    lesions: Annotated[tuple[ClassName, ...], Field(strict=False, max_length=63)] = ()

    @property
    def normal_index(self) -> int:
        """Place of the normal (or background) class."""
        return self.classes.index(self.normal_class) if self.normal_class else 0

    @property
    def misplaced_normal(self) -> str | None:
        """A class that sounds normal, where the plan takes another one for it; None where all is as it sounds."""
        sounds = [name for name in self.classes if sounds_normal(name) and self.kind is not TaskKind.MULTI_LABEL]
        return sounds[0] if sounds and self.classes[self.normal_index] not in sounds else None

    @model_validator(mode="after")
    def _normal_is_one_of_them(self) -> Self:
        if self.normal_class and self.normal_class not in self.classes:
            raise ValueError(f"normal_class is {self.normal_class!r}, which is none of classes; name one of them")
        if self.normal_class and self.kind is not TaskKind.CLASSIFICATION:
            raise ValueError(
                "normal_class has a meaning only with kind = classification (of a segmentation the first class is the "
                "background, several labels may hold at once); remove it"
            )
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for name, values in (("classes", self.classes), ("modalities", self.modalities), ("lesions", self.lesions)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} has an entry twice; each may appear once")
        return self

    @model_validator(mode="after")
    def _lesions_are_classes(self) -> Self:
        if self.lesions and self.kind is not TaskKind.SEGMENTATION:
            raise ValueError(f"lesions has a meaning only with kind = segmentation, it is {self.kind}; remove it")
        if not set(self.lesions) <= set(self.classes[1:]):
            raise ValueError("lesions must name classes of the plan, and not the first, which is the background")
        return self


class Image(PlanPart):
    """How a scan becomes the network's input.

    ``size_px``: (height, width), or (depth, height, width) in 3-D. ``spacing_mm``: the same order, required in 3-D.
    ``public_images``: SHA-256 of the file of images that belong to nobody, on which gates judge the teacher ("": none).
    ``window_hu``: (centre, width) in Hounsfield units, for CT. ``percentiles``: (low, high) of the one image.
    ``intensity = "voi_lut"``: the window or table of the file itself (2-D). ``presentation``: which form of DX and MG.
    ``part``: which volume of a series with several (3-D). ``range_suv``: (low, high) standardised uptake values by
    body weight, for PET. ``channels``: 1 = grey (colour becomes luminance), 3 = red, green, blue (2-D).
    ``patch_px``: of segmentations of large volumes, what the network sees of a scan at a time (empty: all of it). A
    patient gives ``patches_per_patient`` of them a step, each with chance ``foreground_share`` centred on a voxel that
    experts drew. Whole scans are answered by windows of that size (``client.learning.sliding_window``).
    """

    LATER_KEYS = (
        "presentation", "part", "channels", "range_suv", "patch_px", "patches_per_patient", "foreground_share",
    )  # fmt: skip

    size_px: Annotated[tuple[Pixels, ...], Field(strict=False, min_length=2, max_length=3)]
    intensity: Annotated[Intensity, Field(strict=False)]
    spacing_mm: Annotated[tuple[Spacing, ...], Field(strict=False, max_length=3)] = ()
    window_hu: Annotated[tuple[Hounsfield, ...], Field(strict=False, max_length=2)] = ()
    percentiles: Annotated[tuple[Percentile, Percentile], Field(strict=False)] = (1.0, 99.0)
    maximum_scans_per_patient: Annotated[int, Field(ge=1, le=64)] = 4
    public_images: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    presentation: Annotated[Presentation, Field(strict=False)] = Presentation.FOR_PRESENTATION
    part: Annotated[Part, Field(strict=False)] = Part.FIRST
    channels: Literal[1, 3] = 1
    range_suv: Annotated[tuple[Uptake, ...], Field(strict=False, max_length=2)] = ()
    patch_px: Annotated[tuple[Pixels, ...], Field(strict=False, max_length=3)] = ()
    patches_per_patient: Annotated[int, Field(ge=1, le=64)] = 2
    foreground_share: Annotated[float, Field(ge=0, le=1)] = 0.5

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image as it is kept: (channels, *size_px)."""
        return (self.channels, *self.size_px)

    @property
    def seen_px(self) -> tuple[int, ...]:
        """What the network sees at a time: a patch, or the image."""
        return self.patch_px or self.size_px

    @property
    def taken_of_a_patient(self) -> int:
        """How many images of ``seen_px`` a patient gives a step, at most."""
        return self.patches_per_patient if self.patch_px else self.maximum_scans_per_patient

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.intensity is Intensity.CT_WINDOW and (len(self.window_hu) != 2 or self.window_hu[1] <= 0):
            raise ValueError("window_hu must be [centre, width] with a positive width, because intensity is ct_window")
        if self.intensity is not Intensity.CT_WINDOW and self.window_hu:
            raise ValueError("window_hu has a meaning only with intensity = ct_window; remove it")
        if self.intensity is Intensity.SUV_RANGE and (
            len(self.range_suv) != 2 or self.range_suv[0] >= self.range_suv[1]
        ):
            raise ValueError("range_suv must be [low, high] with low below high, because intensity is suv_range")
        if self.intensity is not Intensity.SUV_RANGE and self.range_suv:
            raise ValueError("range_suv has a meaning only with intensity = suv_range; remove it")
        if self.percentiles[0] >= self.percentiles[1]:
            raise ValueError("percentiles must be [low, high] with low below high")
        return self


class PublicEncoder(PlanPart):
    """A public encoder, frozen, and what is taken of it: data that each hospital has as a file (``common.encoders``).

    ``card``: SHA-256 of the card's canonical form; ``file``: of the ONNX file. ``outputs``: named vectors, joined in
    this order; ``features``: how long they are together. ``views``: weak views of each scan beside the unchanged one,
    drawn once, from the patient's own generator; rounds choose among them (0: the unchanged scan alone).
    """

    card: Sha256
    file: Sha256
    outputs: Annotated[tuple[OutputName, ...], Field(strict=False, min_length=1, max_length=16)]
    features: Annotated[int, Field(ge=2, le=65_536)]
    views: Annotated[int, Field(ge=0, le=32)] = 4

    @property
    def rows(self) -> int:
        """Rows of features that are kept of one scan: the unchanged one first."""
        return 1 + self.views

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.outputs)) != len(self.outputs):
            raise ValueError("outputs has an entry twice; each may appear once")
        return self


class Network(PlanPart):
    """The model: its name in ``common.networks``, its width, and where its weights start.

    ``initialisation``: ``"seeded"`` (fresh weights from the public ``seed``) or the SHA-256 digest of a weights file
    in the package (images that belong to nobody).
    ``name = "encoder"``: a head on the features of the public encoder that ``encoder`` names, linear or with a layer of
    ``hidden_units``; it has no ``width``, and no named initialisation. ``projection``: so many public random sums of
    the features (from ``seed``) take their place; 0: the features themselves.
    ``prior``: of ``unet``, log-odds of where structures usually lie are added to the logits (a phase ``prior``).
    ``levels``: of ``unet``, each of half the sides of the one before; so much of the picture does a voxel's answer see.
    """

    LATER_KEYS = ("encoder", "hidden_units", "prior", "levels", "projection")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    width: Annotated[int, Field(ge=4, le=512)] = 16
    initialisation: Annotated[str, Field(pattern=r"^(seeded|[0-9a-f]{64})$")] = SEEDED
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    hidden_units: Annotated[int, Field(ge=0, le=1024)] = 0
    projection: Annotated[int, Field(ge=0, le=MOST_PROJECTED)] = 0
    encoder: PublicEncoder | None = None
    prior: bool = False
    levels: Annotated[int, Field(ge=LEAST_LEVELS, le=MOST_LEVELS)] = LEAST_LEVELS

    @property
    def features(self) -> int:
        """Length of the rows that a head on an encoder takes; 0 for the other networks."""
        return self.encoder.features if self.encoder else 0

    @model_validator(mode="after")
    def _encoder_is_named(self) -> Self:
        if self.name == ENCODER and self.encoder is None:
            raise ValueError("name is encoder, so [network.encoder] must say which: card, file, outputs, features")
        if self.name != ENCODER and self.encoder is not None:
            raise ValueError(f"encoder has a meaning only with name = encoder, it is {self.name}; remove it")
        if self.encoder is not None and self.initialisation != SEEDED:
            raise ValueError("initialisation must be seeded, because name = encoder has no start weights of its own")
        return self

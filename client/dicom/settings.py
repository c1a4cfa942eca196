"""What a cache is made for: the task and the image format of one study, the same at every hospital."""

import hashlib
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from client.dicom.errors import CacheInvalidError
from common.plan.combinations import IN_COLOUR
from common.plan.part import PlanPart
from common.plan.plan import StudyPlan
from common.plan.task import Image, Intensity, Modality, Part, Presentation, Task, TaskKind
from common.trust.canonical import canonical_bytes

# Goes up whenever the same file may give other numbers. An older cache still opens for the study it was made for, but
# nothing is read into it any more: two pipelines in one cache would mix.
PIPELINE_VERSION = 2


class FileKind(StrEnum):
    """What an accepted file is used as."""

    IMAGE = "image"
    SEGMENTATION = "segmentation"


class IngestSettings(PlanPart):
    """Task and image format; two caches with the same settings hold the same numbers for the same file.

    ``size_px`` and ``spacing_mm``: (height, width) or (depth, height, width). In 2-D an empty ``spacing_mm`` fits the
    whole picture into ``size_px`` (proportions kept, the rest filled with black); with a spacing the picture is
    resampled and cut to, or filled up to, ``size_px`` about its centre. ``window_hu``: (centre, width); ``range_suv``:
    (low, high).
    Raises: pydantic.ValidationError.
    """

    LATER_KEYS = ("presentation", "part", "channels", "range_suv")

    kind: Annotated[TaskKind, Field(strict=False)]
    classes: Annotated[tuple[str, ...], Field(strict=False, min_length=2, max_length=64)]
    modalities: Annotated[tuple[Annotated[Modality, Field(strict=False)], ...], Field(strict=False, min_length=1)]
    dimensions: Annotated[int, Field(ge=2, le=3)]
    size_px: Annotated[tuple[Annotated[int, Field(ge=8, le=1024)], ...], Field(strict=False)]
    intensity: Annotated[Intensity, Field(strict=False)]
    spacing_mm: Annotated[tuple[Annotated[float, Field(gt=0, le=50)], ...], Field(strict=False)] = ()
    window_hu: Annotated[tuple[float, ...], Field(strict=False)] = ()
    percentiles: Annotated[tuple[float, float], Field(strict=False)] = (1.0, 99.0)
    presentation: Annotated[Presentation, Field(strict=False)] = Presentation.FOR_PRESENTATION
    part: Annotated[Part, Field(strict=False)] = Part.FIRST
    channels: Literal[1, 3] = 1
    range_suv: Annotated[tuple[float, ...], Field(strict=False)] = ()
    pipeline_version: int = PIPELINE_VERSION

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.size_px) != self.dimensions:
            raise ValueError(f"size_px has {len(self.size_px)} numbers, dimensions is {self.dimensions}")
        if len(self.spacing_mm) not in ((3,) if self.dimensions == 3 else (0, 2)):
            raise ValueError(f"spacing_mm has {len(self.spacing_mm)} numbers, dimensions is {self.dimensions}")
        if self.intensity is Intensity.VOI_LUT and self.dimensions != 2:
            raise ValueError("intensity = voi_lut is for 2-D: each slice of a volume may have another window")
        if self.channels == 3 and (self.dimensions != 2 or self.intensity not in IN_COLOUR):
            raise ValueError("channels = 3 is for 2-D and for intensity = luminance or percentiles; remove it")
        if self.presentation is Presentation.FOR_PROCESSING and not {Modality.DX, Modality.MG} & set(self.modalities):
            raise ValueError("presentation has a meaning only for DX and MG; remove it")
        if self.part is Part.LAST and self.dimensions != 3:
            raise ValueError("part has a meaning only in 3-D; remove it")
        if not 1 <= self.pipeline_version <= PIPELINE_VERSION:
            raise ValueError(f"made by pipeline {self.pipeline_version}, this is {PIPELINE_VERSION}; ingest again")
        return self

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        if (self.intensity is Intensity.CT_WINDOW) != (len(self.window_hu) == 2):
            raise ValueError("window_hu = (centre, width) belongs to intensity = ct_window, and only to it")
        if self.window_hu and self.window_hu[1] <= 0:
            raise ValueError(f"the window is {self.window_hu[1]} HU wide, it must be wider than 0")
        if (self.intensity is Intensity.SUV_RANGE) != (len(self.range_suv) == 2):
            raise ValueError("range_suv = (low, high) belongs to intensity = suv_range, and only to it")
        if self.range_suv and self.range_suv[0] >= self.range_suv[1]:
            raise ValueError("range_suv must be (low, high) with low below high")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("percentiles must be (low, high) between 0 and 100 with low below high")
        return self

    @property
    def reads_headers_first(self) -> bool:
        """Whether files must be grouped (series, segmentations) before pixels are decoded."""
        return self.dimensions == 3 or self.kind is TaskKind.SEGMENTATION

    @property
    def record_shape(self) -> tuple[int, ...]:
        """Shape of a record's levels: ``size_px``, of colour (3, height, width)."""
        return self.size_px if self.channels == 1 else (self.channels, *self.size_px)

    def digest(self) -> bytes:
        """Return SHA-256 over the canonical settings: what a cache is bound to."""
        return hashlib.sha256(b"fedward ingest settings/1\0" + canonical_bytes(self.model_dump(mode="json"))).digest()


def require_made_for(made: IngestSettings, plan: StudyPlan) -> None:
    """Refuse a cache whose numbers or classes are not the plan's: compared whole, while a person looks on.

    Raises: CacheInvalidError naming what differs.
    """
    found = differences(made, settings_for(plan.task, plan.image))
    if found:
        raise CacheInvalidError(
            f"the cache was made for another study ({'; '.join(found)}); make one for this plan with `fedward-site "
            "ingest`"
        )


def differences(made: IngestSettings, wanted: IngestSettings) -> list[str]:
    """Return in what a cache differs from what is wanted, a phrase for each setting; an older pipeline is none."""
    compared = IngestSettings.model_fields.keys() - {"pipeline_version"}  # an older cache still opens
    names = sorted(name for name in compared if getattr(made, name) != getattr(wanted, name))
    return [f"{name} is {getattr(made, name)!s}, not {getattr(wanted, name)!s}" for name in names]


def settings_for(task: Task, image: Image) -> IngestSettings:
    """Take from a study plan what decides the content of a cache."""
    return IngestSettings(
        kind=task.kind,
        classes=task.classes,
        modalities=task.modalities,
        dimensions=task.dimensions,
        size_px=image.size_px,
        intensity=image.intensity,
        spacing_mm=image.spacing_mm,
        window_hu=image.window_hu,
        percentiles=image.percentiles,
        presentation=image.presentation,
        part=image.part,
        channels=image.channels,
        range_suv=image.range_suv,
    )

"""The parent's side of masks: label maps of records go to a fenced worker, files come back and are written here.

File names are numbers, modes 0600; the folder is new. What a worker sends is bounded in size and never looked into.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from client.dicom.limits import MAX_MASK_BYTES
from client.dicom.person_rules import PersonRules
from client.dicom.pool import Pool, Request
from client.dicom.pseudonyms import NOBODY_DECIDED
from client.dicom.reject import RejectCode
from client.dicom.resize import Labels
from client.dicom.settings import IngestSettings
from common.errors import OutputExistsError
from common.files import write_new

WORKER: Final = "client.dicom.mask_worker"


class MaskForm(StrEnum):
    """The kind of file that a mask becomes."""

    SEG = "seg"
    NIFTI = "nifti"


ENDINGS: Final = {MaskForm.SEG: ".dcm", MaskForm.NIFTI: ".nii.gz"}


@dataclass(frozen=True, slots=True)
class WrittenMask:
    """``name``: of the file in the folder; ``sizes``: ml of each class but the background (of pictures pixels).

    ``code``: why nothing was written; then the name is empty, and there are no sizes.
    """

    name: str = ""
    sizes: tuple[float, ...] = ()
    code: RejectCode | None = None


def new_folder(folder: Path) -> None:
    """Make the folder for masks (0700). Raises: OutputExistsError."""
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise OutputExistsError(f"{folder}: cannot be made ({error.strerror}); give a folder that is new") from None


class MaskWriter:
    """Writes masks of one model's answers into a folder; use as a context manager.

    ``scans``: the folder the images lie in; ``lesions``: the classes that are lesions; ``study``, ``model``: what the
    masks say about their origin.
    Raises: WorkerStartError on the first mask.
    """

    def __init__(
        self,
        folder: Path,
        scans: Path,
        settings: IngestSettings,
        *,
        form: MaskForm,
        secret: bytes,
        study: str,
        model: str,
        lesions: Sequence[str] = (),
        rules: PersonRules = NOBODY_DECIDED,
    ) -> None:
        self._folder, self._settings, self._form = folder, settings, form
        self._item: dict[str, Any] = {"as": form.value, "study": study, "model": model, "lesions": list(lesions)}
        self._pool = Pool(
            WORKER,
            (scans,),
            settings,
            secret=secret,
            workers=1,
            max_record_bytes=MAX_MASK_BYTES,
            max_request_bytes=math.prod(settings.size_px),
            rules=rules,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, traceback)

    def write(self, stem: str, images: Sequence[bytes], label_map: Labels) -> WrittenMask:
        """Write one mask as ``stem`` and the form's ending. ``images``: files of the record, below ``scans``.

        Shapes: label_map of the study's size. Raises: OutputExistsError.
        """
        body = np.ascontiguousarray(label_map, np.uint8)
        if body.shape != self._settings.size_px:
            raise ValueError(f"the label map is {body.shape}, the study's size {self._settings.size_px}")
        request = Request("masks", [{**self._item, "images": list(images)}], body.tobytes())
        (_, outcomes), *_ = list(self._pool.outcomes([request]))
        outcome = outcomes[0]
        sizes = outcome.end.get("sizes")
        if outcome.code is not None or not outcome.body or not self._fit(sizes):
            return WrittenMask(code=outcome.code or RejectCode.WORKER_DIED)
        name = stem + ENDINGS[self._form]
        write_new(self._folder / name, bytes(outcome.body), 0o600)
        return WrittenMask(name, tuple(float(size) for size in sizes or ()))

    def _fit(self, sizes: object) -> bool:
        count = len(self._settings.classes) - 1
        if not isinstance(sizes, list) or len(sizes) != count:
            return False
        return all(isinstance(size, (int, float)) and math.isfinite(size) and size >= 0 for size in sizes)

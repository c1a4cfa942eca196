"""From generated images to folders of hospitals."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulation.drawing.scanners import Scanner
from simulation.drawing.shapes import Field
from simulation.hospitals.differences import Differences, write_description
from simulation.hospitals.hospital import Classes, Holdings, Hospital, choose_labelled, new_output, write_hospital
from simulation.hospitals.phantoms import CLASSES, PhantomKind, render_segmented

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class PhantomRequest:
    """What to draw: ``patients`` for each hospital, ``lesions`` of the kind's classes to use (0 = all).

    ``depth`` 0 draws images, otherwise volumes of that many slices; ``segmented`` labels by DICOM SEG.
    """

    kind: PhantomKind = PhantomKind.XRAY
    patients: int = 100
    size_px: int = 64
    depth: int = 0
    lesions: int = 1
    difficulty: float = 1.0
    segmented: bool = False
    test_patients: int = 200

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that are drawn; for segmentations everything found is one class."""
        if self.segmented:
            return ("background", "lesion")
        return CLASSES[self.kind][: self.lesions + 1] if self.lesions else CLASSES[self.kind]

    @property
    def shape(self) -> tuple[int, ...]:
        """Grid of one image or volume."""
        return ((self.depth,) if self.depth else ()) + (self.size_px, self.size_px)

    def files(self, differences: Differences) -> int:
        """Return how many image files all hospitals together will have (segmentations not counted)."""
        return differences.sites * self.patients * differences.images_per_patient * max(1, self.depth)


MODALITIES = {PhantomKind.XRAY: "DX", PhantomKind.CT: "CT", PhantomKind.MR: "MR"}
WIDTH_MM = {PhantomKind.XRAY: 350.0, PhantomKind.CT: 360.0, PhantomKind.MR: 240.0}


def make_phantom_hospitals(
    out: Path, request: PhantomRequest, differences: Differences, progress: Progress = lambda _: None
) -> list[Hospital]:
    """Draw and write all hospitals and ``test.npz``; ``progress`` is called with the files written so far.

    The test set is drawn with every hospital's scanner in turn. Deterministic in ``differences.seed``.
    Raises: OutputExistsError if ``out`` holds something; ValueError for what cannot be drawn.
    """
    new_output(out)
    lesions = len(CLASSES[request.kind]) if not request.lesions else request.lesions + 1
    mixes = class_mixes(lesions, differences)
    hospitals: list[Hospital] = []
    for site in range(differences.sites):
        rng, scanner = differences.rng(1, site), differences.scanner(site)
        labels = np.repeat(rng.choice(lesions, request.patients, p=mixes[site]), differences.images_per_patient)
        patients = np.repeat(np.arange(request.patients), differences.images_per_patient)
        images, found = draw(request, labels, rng, scanner, patients)
        holdings = Holdings(
            images,
            (labels > 0).astype(np.int64) if request.segmented else labels,
            patients,
            choose_labelled(patients, differences.share_of(site), rng),
            request.class_names,
            MODALITIES[request.kind],
            found if request.segmented else None,
            spacing_of(request),
        )
        hospitals.append(write_hospital(out / f"hospital-{site + 1}", holdings, scanner, differences.seed))
        progress(sum(hospital.files for hospital in hospitals))
    write_phantom_test_set(out, request, differences, lesions)
    write_description(out, hospitals, differences, asdict(request))
    return hospitals


def class_mixes(classes: int, differences: Differences) -> NDArray[np.float64]:
    """Choose the class mix of each hospital, (sites, classes): even, or Dirichlet around even."""
    if differences.skew_alpha == 0:
        return np.full((differences.sites, classes), 1 / classes)
    return differences.rng(2).dirichlet([differences.skew_alpha] * classes, differences.sites)


def draw(
    request: PhantomRequest, labels: Classes, rng: np.random.Generator, scanner: Scanner, patients: Classes
) -> tuple[Field, NDArray[np.uint8]]:
    """Draw what ``request`` asks for, seen by ``scanner``."""
    return render_segmented(
        request.kind, labels, rng, request.shape, scanner, difficulty=request.difficulty, patients=patients
    )


def spacing_of(request: PhantomRequest) -> tuple[float, float, float]:
    """Return (slice, row, column) spacing in mm so that the body has its natural size; slices cover a cube."""
    side = WIDTH_MM[request.kind] / request.size_px
    return (WIDTH_MM[request.kind] / request.depth if request.depth else side, side, side)


def write_phantom_test_set(out: Path, request: PhantomRequest, differences: Differences, lesions: int) -> None:
    """Write ``test.npz``: images (N, ...) float32, labels, segmentations and class names; no hospital holds them."""
    rng, parts = differences.rng(3), []
    for site, count in enumerate(np.bincount(np.arange(request.test_patients) % differences.sites)):
        labels = rng.integers(0, lesions, count)
        parts.append((*draw(request, labels, rng, differences.scanner(site), np.arange(count)), labels))
    if parts:
        images, segmentations, classes = (np.concatenate(column) for column in zip(*parts, strict=True))
        np.savez_compressed(
            out / "test.npz",
            images=images,
            labels=classes,
            segmentations=segmentations,
            class_names=np.array(request.class_names),
            spacing_mm=np.array(spacing_of(request)),
        )

"""Parsers of scans, masks and the hospital's tables, each with good inputs for the fuzz run.

In earnest they run in worker processes under the kernel's limits; here nothing stands between them and the findings.
"""

import gzip
import io
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np
from highdicom import VolumeGeometry
from PIL import Image as Picture

from client.dicom.header import read_header
from client.dicom.instance import read_images, verdict
from client.dicom.labels import read_labels
from client.dicom.person_decisions import read_merged
from client.dicom.segmentation import nifti_volume, open_segmentation, png_image, seg_image, seg_volume
from client.dicom.settings import IngestSettings, settings_for
from client.dicom.volume import SeriesFiles, build_volume
from common.plan.task import Image, Intensity, Modality, Task, TaskKind
from simulation.hospitals.segmentation_writer import write_segmentation
from simulation.hostile.fuzz_seeds import IMAGE, NAMES, Parser, Parsers, images, of_file
from simulation.hostile.raw_file import SIDE_PX, names_of
from simulation.hostile.series import SLICES, regular, written

_CLASSES: Final = ("background", "lesion")
_VOLUME: Final[IngestSettings] = settings_for(
    Task(kind=TaskKind.SEGMENTATION, classes=_CLASSES, modalities=(Modality.CT,), dimensions=3),
    Image(size_px=(8, 32, 32), spacing_mm=(2.5, 1.0, 1.0), intensity=Intensity.CT_WINDOW, window_hu=(40.0, 400.0)),
)


def scan_parsers(place: Path) -> Parsers:
    """Return the parsers; ``place``: an empty folder for what good inputs are made from."""
    slices = regular("fuzz")
    paths = written(place, slices)
    drawn = np.zeros((SLICES, SIDE_PX, SIDE_PX), np.uint8)
    drawn[2:5, 20:30, 20:30] = 1
    write_segmentation(place / "volume.dcm", paths, drawn, _CLASSES)
    write_segmentation(place / "picture.dcm", paths[:1], drawn[3], _CLASSES)
    contents = [path.read_bytes() for path in paths]
    files = SeriesFiles(SLICES, contents.__getitem__, _VOLUME, NAMES)
    grid = build_volume(files, _VOLUME, lambda: None).grid.source_geometry()
    instance = names_of("fuzz").instance_uid
    shape = (SIDE_PX, SIDE_PX)
    return {
        "label table": (
            of_file(lambda file: read_labels(file, IMAGE, NAMES)),
            [b"PatientID,label\nP1,normal\nP2,lesion\n"],
        ),
        "person table": (
            of_file(lambda file: read_merged(file, NAMES)),
            [b"former_id,current_id,former_issuer,current_issuer\nOLD-17,0012345,A,B\n"],
        ),
        "image": (_judged(lambda c: deque(read_images(c, IMAGE, NAMES), maxlen=0)), images()),
        "series": (_judged(lambda c: _volume(contents, c)), contents[3:4]),
        "mask: DICOM SEG of a series": (
            _judged(lambda c: seg_volume(open_segmentation(read_header(c, whole=True)), _CLASSES, {}, grid)),
            [(place / "volume.dcm").read_bytes()],
        ),
        "mask: DICOM SEG of a picture": (
            _judged(lambda c: seg_image(open_segmentation(read_header(c, whole=True)), _CLASSES, {}, instance, shape)),
            [(place / "picture.dcm").read_bytes()],
        ),
        "mask: NIfTI": (_judged(lambda c: nifti_volume(c, _CLASSES, grid)), _niftis(grid, drawn)),
        "mask: PNG": (_judged(lambda c: png_image(c, _CLASSES, shape)), [_png(drawn[3])]),
    }


def _judged(read: Callable[[bytes], object]) -> Parser:
    return lambda content, _: verdict(lambda: read(content))  # type: ignore[arg-type]


def _volume(good: list[bytes], content: bytes) -> object:
    """Build the volume of a series whose fourth file is ``content``."""
    contents = [*good[:3], content, *good[4:]]
    return build_volume(SeriesFiles(len(contents), contents.__getitem__, _VOLUME, NAMES), _VOLUME, lambda: None)


def _niftis(grid: VolumeGeometry, drawn: np.ndarray) -> list[bytes]:
    """Return a mask as NIfTI, plain and compressed."""
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    image = nib.Nifti1Image(drawn, to_ras @ grid.affine)
    return [image.to_bytes(), gzip.compress(image.to_bytes())]


def _png(drawn: np.ndarray) -> bytes:
    file = io.BytesIO()
    Picture.fromarray(drawn * 255).save(file, "PNG")
    return file.getvalue()

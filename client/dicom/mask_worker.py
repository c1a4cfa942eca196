"""Worker that brings answers back to the images they are about: a label map in, a SEG or NIfTI file out.

The images' headers are read again here, in the same fence as at their ingest, by the same code: so nothing of them has
to be kept. Started as ``python -m client.dicom.mask_worker``.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from client.dicom.header import read_header
from client.dicom.image_module import check_image_module, check_kind
from client.dicom.instance import picture_axes, verdict
from client.dicom.limits import FILE_CPU_S, MAX_MASK_BYTES, grant_cpu
from client.dicom.mask_objects import Origin, frames_of_sources, nifti_mask, segmentation_object
from client.dicom.reject import RejectCode, Rejected
from client.dicom.resize import Labels
from client.dicom.source_grid import on_picture, on_slices, on_volume, thickness_mm
from client.dicom.volume import SeriesFiles, scanned_slices
from client.dicom.walk import read_whole
from client.dicom.worker import Reply, Session, serve

SLICES_PER_S = 8  # of processor time granted to a large series
CUBIC_MM_PER_ML = 1000.0

Sizes = npt.NDArray[np.float64]


def write_masks(session: Session, request: Mapping[str, Any]) -> Iterator[Reply]:
    """Answer the one stack of a request with its file, and the size of each class but the background.

    ``request["body"]``: the label map of the study's size, uint8. ``sizes``: ml; of pictures pixels.
    """
    (item,) = request["files"]
    grant_cpu(FILE_CPU_S)
    size_px = session.settings.size_px
    label_map = np.frombuffer(request["body"], np.uint8).reshape(size_px)
    found: list[tuple[bytes, list[float]]] = []
    make = _volume if session.settings.dimensions == 3 else _picture
    code = verdict(lambda: found.append(make(session, item, label_map)))
    content, sizes = found[0] if found else (b"", [])
    yield {"end": True, "code": code or "", "sizes": sizes}, np.frombuffer(content, np.uint8)


def _volume(session: Session, item: Mapping[str, Any], label_map: Labels) -> tuple[bytes, list[float]]:
    names = item["images"]

    def alive() -> None:
        grant_cpu(FILE_CPU_S)
        session.alive()

    files = SeriesFiles(
        len(names),
        lambda index: read_whole(session.roots[0], names[index]),
        session.settings,
        session.pseudonyms.below(names[0]),
    )
    in_order, grid = scanned_slices(files, session.settings, alive)
    masks = on_slices(label_map, grid, (in_order[0].rows, in_order[0].columns))
    _, row_mm, column_mm = grid.geometry.spacing_mm
    ml = thickness_mm(grid) * row_mm * column_mm / CUBIC_MM_PER_ML
    sizes = [float(((masks == number).sum((1, 2)) * ml).sum()) for number in _numbers(session)]
    if item["as"] == "nifti":
        alive()
        return _bounded(nifti_mask(on_volume(label_map, grid), grid.geometry)), sizes
    read = {}
    for slice_ in in_order:
        alive()
        if slice_.file_index not in read:
            read[slice_.file_index] = files.dataset(slice_.file_index)
    sources, frames = frames_of_sources(in_order, masks, [read[slice_.file_index] for slice_ in in_order])
    session.alive()
    grant_cpu(FILE_CPU_S + len(frames) * len(session.settings.classes) // SLICES_PER_S)
    return _bounded(segmentation_object(sources, frames, _origin(session, item))), sizes


def _picture(session: Session, item: Mapping[str, Any], label_map: Labels) -> tuple[bytes, list[float]]:
    dataset = read_header(read_whole(session.roots[0], item["images"][0]), pixels=False)
    module = check_image_module(dataset, check_kind(dataset, session.settings.modalities))
    rows, columns, _ = picture_axes(module, dataset, session.settings)
    mask = on_picture(label_map, (rows, columns), (module.rows, module.columns))
    if "NumberOfFrames" not in dataset:  # of classes that may have several: highdicom asks for it
        dataset.NumberOfFrames = 1
    content = segmentation_object([dataset], mask[None], _origin(session, item))
    return _bounded(content), [float((mask == number).sum()) for number in _numbers(session)]


def _numbers(session: Session) -> range:
    return range(1, len(session.settings.classes))


def _origin(session: Session, item: Mapping[str, Any]) -> Origin:
    return Origin(session.settings.classes, tuple(item["lesions"]), item["study"], item["model"])


def _bounded(content: bytes) -> bytes:
    if len(content) > MAX_MASK_BYTES:
        raise Rejected(RejectCode.SEGMENTATION_TOO_LARGE)
    return content


if __name__ == "__main__":
    serve({"masks": write_masks})

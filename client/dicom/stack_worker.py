"""Worker for 3-D studies and segmentation: headers first, then one series (or picture) at a time.

Started as ``python -m client.dicom.stack_worker``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from client.dicom.describe import describe
from client.dicom.facts import OTHER, Facts
from client.dicom.header import read_header
from client.dicom.image_module import check_image_module, check_kind
from client.dicom.instance import picture_axes, read_images, verdict
from client.dicom.intensity import Levels
from client.dicom.label_objects import drawn_on_picture, drawn_on_volume, holds_labels, referenced_uids
from client.dicom.label_table import label_names
from client.dicom.limits import FILE_CPU_S, grant_cpu
from client.dicom.reject import RejectCode, Rejected
from client.dicom.resize import Labels, centred, resample_labels
from client.dicom.segmentation import nifti_volume, png_image
from client.dicom.settings import FileKind
from client.dicom.structure_labels import DrawnOn
from client.dicom.volume import BuiltVolume, SeriesFiles, build_volume
from client.dicom.walk import read_whole
from client.dicom.worker import Reply, Session, serve
from common.plan.task import TaskKind

MAX_LINKS = 4096


def read_headers(session: Session, request: Mapping[str, Any]) -> Iterator[Reply]:
    """Answer each file with its kind and its links: stacks it belongs to, names under which a mask may be listed."""
    for name in request["files"]:
        grant_cpu(FILE_CPU_S)
        end: dict[str, Any] = {"end": True}
        code = verdict(lambda name=name, end=end: end.update(_header(session, name)))  # type: ignore[misc]
        yield {**end, "code": code or ""}, None


def _header(session: Session, name: bytes) -> dict[str, Any]:
    dataset = read_header(read_whole(session.roots[0], name), pixels=False)
    names = session.pseudonyms.below(name)
    if holds_labels(dataset) and session.settings.kind is TaskKind.SEGMENTATION:
        facts = describe(dataset, OTHER, names)
        keyword = "SeriesInstanceUID" if session.settings.dimensions == 3 else "SOPInstanceUID"
        uids = referenced_uids(dataset, instances=keyword == "SOPInstanceUID")
        if not uids:
            raise Rejected(RejectCode.SEGMENTATION_REFERENCES)
        if len(uids) > MAX_LINKS // 2:
            raise Rejected(RejectCode.SEGMENTATION_TOO_LARGE)
        keys = sorted(names.label_key(keyword, uid) for uid in uids)
        links = [stack for key in keys for stack in names.stacks(facts.patient_key, facts.patient_id_key, key)]
        return {"kind": FileKind.SEGMENTATION.value, "links": links}
    facts = describe(dataset, check_kind(dataset, session.settings.modalities), names)
    group = facts.series_key if session.settings.dimensions == 3 else facts.instance_key
    masks = list(label_names(facts)) if session.settings.kind is TaskKind.SEGMENTATION else []
    stacks = names.stacks(facts.patient_key, facts.patient_id_key, group)
    return {"kind": FileKind.IMAGE.value, "links": [*stacks, *masks]}


def read_stacks(session: Session, request: Mapping[str, Any]) -> Iterator[Reply]:
    """Answer each stack with its record (levels, then label map) and the verdicts on images and segmentation."""
    for stack in request["files"]:
        grant_cpu(FILE_CPU_S)
        replies: list[Reply] = []
        end: dict[str, Any] = {"end": True, "segmentation_code": "", "duplicates": [], "left_out": {}}
        build = _volume if session.settings.dimensions == 3 else _picture
        code = verdict(lambda s=stack, b=build, r=replies, e=end: b(session, s, r, e))  # type: ignore[misc]
        if code is None:
            yield from replies
        left_out = [[place, reason.value] for place, reason in end["left_out"].items()]
        yield {**end, "left_out": left_out, "code": code or ""}, None


def _volume(session: Session, stack: Mapping[str, Any], replies: list[Reply], end: dict[str, Any]) -> None:
    names = stack["images"]

    def read(index: int) -> bytes:
        return read_whole(session.roots[0], names[index])

    def alive() -> None:
        grant_cpu(FILE_CPU_S)
        session.alive()

    # A person is known by the folder for all files of a stack or for none, so the first one's folder is everybody's.
    files = SeriesFiles(len(names), read, session.settings, session.pseudonyms.below(names[0]))
    end["left_out"] = files.left_out  # also when the rest makes no volume
    built = build_volume(files, session.settings, alive)
    end["duplicates"] = built.duplicates
    labels: list[Labels] = []
    alive()
    failure = verdict(lambda: labels.extend(_volume_labels(session, stack, built)))
    end["segmentation_code"] = failure or ""
    replies.append(_record(asdict(built.facts), built.levels, labels))


def _volume_labels(session: Session, stack: Mapping[str, Any], built: BuiltVolume) -> Iterator[Labels]:
    """Yield the label map of a volume, if there is one; several objects are laid over one another."""
    geometry, classes = built.grid.source_geometry(), session.settings.classes
    images = DrawnOn(geometry, built.frame_of_reference, built.instance_keys, session.pseudonyms)
    drawn: Labels | None = None
    if stack["mask"]:
        drawn = nifti_volume(read_whole(session.roots[1], stack["mask"], 1), classes, geometry)
    for name in stack["segmentations"]:
        session.alive()
        grant_cpu(FILE_CPU_S)
        one = drawn_on_volume(read_whole(session.roots[0], name), classes, stack["words"], images)
        drawn = one if drawn is None else np.maximum(drawn, one)
    if drawn is not None:
        yield built.grid.label_map(drawn).astype(np.uint8, copy=False)


def _picture(session: Session, stack: Mapping[str, Any], replies: list[Reply], end: dict[str, Any]) -> None:
    content = read_whole(session.roots[0], stack["images"][0])
    facts, levels = _only_record(session, content, stack["images"][0])
    for copy in stack["images"][1:]:
        grant_cpu(FILE_CPU_S)
        if not np.array_equal(_only_record(session, read_whole(session.roots[0], copy), copy)[1], levels):
            raise Rejected(RejectCode.CONFLICTING_INSTANCE)
    labels: list[Labels] = []
    failure = verdict(lambda: labels.extend(_picture_labels(session, stack, content)))
    end["segmentation_code"] = failure or ""
    end["duplicates"] = list(range(1, len(stack["images"])))
    replies.append(_record(asdict(facts), levels, labels))


def _only_record(session: Session, content: bytes, name: bytes) -> tuple[Facts, Levels]:
    records = list(read_images(content, session.settings, session.pseudonyms.below(name)))
    if len(records) != 1:
        raise Rejected(RejectCode.FRAMES)
    return records[0]


def _picture_labels(session: Session, stack: Mapping[str, Any], content: bytes) -> Iterator[Labels]:
    if not stack["segmentations"] and not stack["mask"]:
        return
    dataset = read_header(content, pixels=False)
    module = check_image_module(dataset, check_kind(dataset, session.settings.modalities))
    drawn = np.zeros((module.rows, module.columns), np.uint8)
    if stack["mask"]:
        drawn = png_image(read_whole(session.roots[1], stack["mask"], 1), session.settings.classes, drawn.shape)
    for name in stack["segmentations"]:
        grant_cpu(FILE_CPU_S)
        file = read_whole(session.roots[0], name)
        one = drawn_on_picture(file, session.settings.classes, stack["words"], dataset, session.pseudonyms)
        drawn = np.maximum(drawn, one)
    rows, columns, _ = picture_axes(module, dataset, session.settings)
    yield centred(resample_labels(drawn, rows, columns), session.settings.size_px, 0)


def _record(facts: dict[str, Any], levels: np.ndarray[Any, Any], labels: list[Labels]) -> Reply:
    parts = [np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in (levels, *labels)]
    return {"end": False, "facts": facts}, np.concatenate(parts)


if __name__ == "__main__":
    serve({"headers": read_headers, "stacks": read_stacks})

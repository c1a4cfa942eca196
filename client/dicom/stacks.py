"""The parent's part of a 3-D or segmentation ingest: headers group the files, then each group becomes one record.

A group ("stack") is a series in 3-D, a single instance in 2-D segmentation. It is read again when any of its files, or
any segmentation drawn on it, is new or changed. A file's verdict is that of its header, else that of its stack.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.dicom.facts import KEY
from client.dicom.images import read_in_workers
from client.dicom.index import STACK_LINKS, FileEntry, StackEntry
from client.dicom.intensity import level_bytes
from client.dicom.labels import LabelSource
from client.dicom.pool import Outcome, Pool, Request
from client.dicom.reject import RejectCode
from client.dicom.report import Tally
from client.dicom.settings import FileKind
from client.dicom.store import Readers, Store, trusted
from client.dicom.walk import FoundFile

WORKER = "client.dicom.stack_worker"
MAX_LINKS = 4096
DIGEST_DIGITS = 32


@dataclass(slots=True)
class Stack:
    """Files that become one record together. ``mask``: segmentation file named by the label table.

    ``words``: what the hospital's names of segments mean, where there are segmentations.
    """

    images: list[FoundFile] = field(default_factory=list)
    segmentations: list[FoundFile] = field(default_factory=list)
    mask: str = ""
    words: Mapping[str, str] = field(default_factory=dict)


def read_stacks(
    found: Sequence[FoundFile],
    store: Store,
    readers: Readers,
    tally: Tally,
    labels: LabelSource | None,
    *,
    words: Mapping[str, str],
) -> None:
    """Read all headers that are new, then every stack that is new or changed; count all files.

    ``words``: what the hospital's names of segments mean (``class_names``).
    """
    tally.total = 2 * len(found)
    masks_folder = labels.folder if labels and labels.table.masks else None
    record_bytes = level_bytes(readers.settings.record_shape) + math.prod(readers.settings.size_px)
    with readers.pool(WORKER, masks_folder, max_record_bytes=record_bytes) as pool:
        entries = _headers(found, store, pool, tally)
        stacks = _grouped(entries, labels, words)
        store.present_stacks = set(stacks)
        store.drop_orphans({entry.file_key: entry.links[:STACK_LINKS] for _, entry in entries if not entry.code})
        _read_changed(stacks, store, pool, tally, masks_folder, keeps_masks=_keeps_masks(entries, labels))
    _count(entries, stacks, store, tally)


def _headers(found: Sequence[FoundFile], store: Store, pool: Pool, tally: Tally) -> list[tuple[FoundFile, FileEntry]]:
    entries: dict[bytes, FileEntry] = {}
    new: list[FoundFile] = []
    for file in found:
        entry = store.known(file)
        if file.code is not None:
            tally.count(file.code)
            tally.step(2)
        elif entry is not None:
            entries[file.name] = entry
            tally.step()
        else:
            new.append(file)
    for file, outcome in read_in_workers(pool, "headers", new):
        tally.report.files_read += 1
        kind, links = _kind_and_links(outcome)
        entries[file.name] = store.take_file(file, outcome, kind=kind, links=links)
        store.commit_if_full()
        tally.step()
    return [(file, entries[file.name]) for file in found if file.name in entries]


def _kind_and_links(outcome: Outcome) -> tuple[FileKind, tuple[str, ...]]:
    """Check what a worker says about a header; anything else than keys makes it a dead worker."""
    if outcome.code is not None:
        return FileKind.IMAGE, ()
    kind, links = outcome.end.get("kind"), outcome.end.get("links") or []
    least = 0 if kind == FileKind.SEGMENTATION.value else STACK_LINKS
    fits = (
        isinstance(links, list) and least <= len(links) <= MAX_LINKS and kind in tuple(FileKind) and not outcome.records
    )
    if fits and all(isinstance(key, str) and KEY.fullmatch(key) for key in links):
        return FileKind(str(kind)), tuple(links)
    outcome.code, outcome.records = RejectCode.WORKER_DIED, []
    return FileKind.IMAGE, ()


def _grouped(
    entries: Sequence[tuple[FoundFile, FileEntry]], labels: LabelSource | None, words: Mapping[str, str]
) -> dict[str, Stack]:
    masks: Mapping[str, str] = labels.table.masks if labels else {}
    usable = [(file, entry) for file, entry in entries if not entry.code]
    images = [(file, entry) for file, entry in usable if entry.kind == FileKind.IMAGE]
    stack_of = _stack_names([entry for _, entry in images])
    stacks: dict[str, Stack] = {}
    for file, entry in images:
        stack = stacks.setdefault(stack_of[entry.links[0]], Stack())
        stack.images.append(file)
        stack.mask = stack.mask or next((masks[name] for name in entry.links[STACK_LINKS:] if name in masks), "")
    for file, entry in usable:
        if entry.kind == FileKind.SEGMENTATION:
            for key in sorted({stack_of[link] for link in entry.links if link in stack_of}):
                stacks[key].segmentations.append(file)
                stacks[key].words = words
    return stacks


def _stack_names(entries: Sequence[FileEntry]) -> dict[str, str]:
    """Return the stack that each name stands for: files of one PatientID meet, whether or not all name the issuer."""
    names: dict[str, set[str]] = {}
    for entry in entries:
        own, of_id = entry.links[:STACK_LINKS]
        names.setdefault(of_id, set()).add(own)
    return {
        name: of_id if len(owns) > 1 else next(iter(owns)) for of_id, owns in names.items() for name in (of_id, *owns)
    }


def _keeps_masks(entries: Sequence[tuple[FoundFile, FileEntry]], labels: LabelSource | None) -> bool:
    """Tell whether masks of the last table hold: there is no table now, or one of which no row fits."""
    named = {name for _, entry in entries if entry.kind == FileKind.IMAGE for name in entry.links[STACK_LINKS:]}
    return labels is None or named.isdisjoint((*labels.table.masks, *labels.table.rows))


def _read_changed(
    stacks: Mapping[str, Stack],
    store: Store,
    pool: Pool,
    tally: Tally,
    masks_folder: Path | None,
    *,
    keeps_masks: bool,
) -> None:
    digests = {key: _digest(stack, store, masks_folder) for key, stack in stacks.items()}
    changed = []
    for key, stack in stacks.items():
        former = store.index.stacks.get(key)
        erased = former is not None and former.record_id and former.record_id not in store.index.records
        same = former is not None and former.digest[: DIGEST_DIGITS if keeps_masks else None] == digests[key]
        if not same or erased:
            changed.append(key)
            if keeps_masks and former and len(former.digest) > DIGEST_DIGITS:  # made again, and its mask is not here
                tally.report.masks_refused[RejectCode.SEGMENTATION_UNMATCHED] += 1
        else:
            tally.step(len(stack.images))
    requests = (Request("stacks", [_item(stacks[key])]) for key in changed)
    for key, (_, outcomes) in zip(changed, pool.outcomes(requests), strict=True):
        outcome = trusted(outcomes[0], store.settings)
        store.take_stack(_entry(key, digests[key], outcome, stacks[key], store), outcome)
        store.commit_if_full()
        tally.step(len(stacks[key].images))


def _item(stack: Stack) -> dict[str, Any]:
    return {
        "images": [file.name for file in stack.images],
        "segmentations": [file.name for file in stack.segmentations],
        "mask": stack.mask.encode(),
        "words": stack.words,
    }


def _entry(key: str, digest: str, outcome: Outcome, stack: Stack, store: Store) -> StackEntry:
    duplicates = outcome.end.get("duplicates") or []
    inside = isinstance(duplicates, list) and all(isinstance(i, int) and 0 <= i < len(stack.images) for i in duplicates)
    if outcome.code is None and not (inside and len(outcome.records) == 1):
        outcome.code = RejectCode.WORKER_DIED
    segmentation_code = str(outcome.end.get("segmentation_code", ""))
    return StackEntry(
        stack_key=key,
        digest=digest,
        code=outcome.code.value if outcome.code else "",
        segmentation_code=segmentation_code if segmentation_code in tuple(RejectCode) else "",
        record_id="" if outcome.code else store.names.key("record of stack", key.encode()),
        duplicates=tuple(store.file_key(stack.images[i]) for i in duplicates) if inside else (),
        left_out=_left_out(outcome, stack, store),
    )


def _left_out(outcome: Outcome, stack: Stack, store: Store) -> tuple[tuple[str, str], ...]:
    """Check what a worker says about files that are no part of the volume: places in the stack, and codes."""
    said = outcome.end.get("left_out")
    if not isinstance(said, list) or len(said) > len(stack.images):
        return ()
    pairs = [pair for pair in said if isinstance(pair, list) and len(pair) == 2]
    known = tuple(RejectCode)
    return tuple(
        (store.file_key(stack.images[place]), str(code))
        for place, code in pairs
        if isinstance(place, int) and 0 <= place < len(stack.images) and code in known
    )


def _digest(stack: Stack, store: Store, masks_folder: Path | None) -> str:
    """Return a digest of everything a stack is made from: files and segmentations, then the mask, with their state."""
    parts = [store.file_key(file) + store.fingerprint(file) for file in stack.images + stack.segmentations]
    parts += [f"{name}={meaning}" for name, meaning in stack.words.items()]
    digest = hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:DIGEST_DIGITS]
    if not (stack.mask and masks_folder):
        return digest
    return digest + store.fingerprint(_mask_state(masks_folder, stack.mask))


def _mask_state(folder: Path, name: str) -> FoundFile:
    try:
        state = (folder / name).stat(follow_symlinks=False)
    except OSError:
        return FoundFile(name.encode(), (0, 0, 0), RejectCode.UNREADABLE)
    return FoundFile(name.encode(), (state.st_size, state.st_mtime_ns, state.st_ino))


def _count(
    entries: Sequence[tuple[FoundFile, FileEntry]], stacks: Mapping[str, Stack], store: Store, tally: Tally
) -> None:
    """Give every file its final verdict, and every mask of the label table that did not fit."""
    stacks_of: dict[str, list[str]] = {}
    for key, group in stacks.items():
        for file in group.segmentations:
            stacks_of.setdefault(store.file_key(file), []).append(key)
    stack_of = {file.name: key for key, group in stacks.items() for file in group.images}
    for key, group in stacks.items():
        failure = store.index.stacks[key].segmentation_code
        if group.mask and failure:
            tally.report.masks_refused[RejectCode(failure)] += 1
    left_out = {key: dict(store.index.stacks[key].left_out) for key in stacks}
    for file, entry in entries:
        if entry.code:
            tally.count(RejectCode(entry.code))
            tally.step()
        elif entry.kind == FileKind.SEGMENTATION:
            tally.count(_segmentation_verdict(entry, stacks_of, store))
            tally.step()
        else:
            stack, file_key = store.index.stacks[stack_of[file.name]], store.file_key(file)
            own = left_out[stack.stack_key].get(file_key)
            tally.count(RejectCode(own) if own else _image_verdict(stack, file_key, store))


def _image_verdict(stack: StackEntry, file_key: str, store: Store) -> RejectCode | None:
    if stack.code:
        return RejectCode(stack.code)
    if file_key in stack.duplicates:
        return RejectCode.DUPLICATE_INSTANCE
    return None if stack.record_id in store.index.records else RejectCode.WITHDRAWN


def _segmentation_verdict(entry: FileEntry, stacks_of: Mapping[str, Sequence[str]], store: Store) -> RejectCode | None:
    present = [store.index.stacks[key] for key in stacks_of.get(entry.file_key, ())]
    if not present or all(stack.code for stack in present):
        return RejectCode.SEGMENTATION_UNMATCHED
    failed = [stack.segmentation_code for stack in present if stack.segmentation_code]
    return RejectCode(failed[0]) if failed else None

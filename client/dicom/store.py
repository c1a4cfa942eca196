"""The one place where outcomes become entries of the cache: decides duplicates, places arrays, counts progress.

A dry run goes through the same decisions with ``writer=None``: nothing is placed, nothing is written.
"""

import hashlib
import hmac
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from client.dicom.facts import Facts
from client.dicom.index import STACK_LINKS, FileEntry, Index, StackEntry
from client.dicom.intensity import level_bytes
from client.dicom.opt_outs import OptOuts
from client.dicom.person_rules import PersonRules
from client.dicom.pool import Outcome, Pool
from client.dicom.pseudonyms import NOBODY_DECIDED, Pseudonyms, derive
from client.dicom.record import RecordInfo
from client.dicom.reject import TRANSIENT, RejectCode
from client.dicom.segments import SegmentWriter
from client.dicom.settings import FileKind, IngestSettings
from client.dicom.walk import FoundFile, unread_places

FOLDER_DIGITS = 8  # enough: a chance collision keeps a record that might have been erased, and nothing else


@dataclass(frozen=True, slots=True)
class Readers:
    """How worker processes are made for one run."""

    source: Path
    settings: IngestSettings
    secret: bytes
    workers: int
    rules: PersonRules = NOBODY_DECIDED

    def pool(self, module: str, masks: Path | None = None, *, max_record_bytes: int) -> Pool:
        """Return workers of one module (a process starts when it is first needed).

        ``masks``: folder of segmentation files named by the label table.
        """
        folders = (self.source, masks) if masks else (self.source,)
        return Pool(
            module,
            folders,
            self.settings,
            secret=self.secret,
            workers=self.workers,
            rules=self.rules,
            max_record_bytes=max_record_bytes,
        )


class Store:
    """The index in memory, and the writer behind it."""

    def __init__(
        self,
        index: Index,
        writer: SegmentWriter | None,
        *,
        settings: IngestSettings,
        secret: bytes,
        withdrawn: OptOuts,
        rules: PersonRules = NOBODY_DECIDED,
    ) -> None:
        self.index = index
        self.names = Pseudonyms.of_site(secret)
        self._writer = writer
        self.settings = settings
        self.withdrawn = withdrawn
        self._path_key = derive(secret, "fedward file names/1")
        self.rules = rules
        self._state_key = derive(secret, f"fedward file states/3 {rules.digest()}")
        self._digest_key = derive(secret, "fedward content digests/1")
        self._seen: set[str] = set()
        self._unread: set[str] = set()
        self._folder_chains: dict[tuple[bytes, bytes], str] = {}
        self.present_stacks: set[str] = set()
        self._level_bytes = level_bytes(settings.record_shape)

    def file_key(self, found: FoundFile) -> str:
        """Return the keyed name of a source file."""
        return hmac.new(self._path_key, found.home + b"\0" + found.name, hashlib.sha256).hexdigest()[:32]

    def fingerprint(self, found: FoundFile) -> str:
        """Return the keyed state of a source file: equal as long as size, modification time and inode are.

        Bound to the rules for persons, and to what is read of a file and kept: after a change files are read again.
        """
        return hmac.new(self._state_key, repr(found.state).encode(), hashlib.sha256).hexdigest()[:32]

    def know_files(self, found: Sequence[FoundFile]) -> None:
        """Tell which files exist now: a record whose file is gone may be taken over by an equal file elsewhere."""
        self._seen = {self.file_key(file) for file in found}
        self._unread = {self._folder_key(file.home, file.name) for file in unread_places(found)}

    def known(self, found: FoundFile) -> FileEntry | None:
        """Return the entry of a file that has not changed since it was read, if its records are still here."""
        entry = self.index.files.get(self.file_key(found))
        if entry is None or entry.fingerprint != self.fingerprint(found):
            return None
        erased = entry.record_ids and not any(record_id in self.index.records for record_id in entry.record_ids)
        return None if erased else entry

    def missing(self) -> frozenset[str]:
        """Return the records whose file (or whole series) is not in the folder any more."""
        alone = {key for key, owner in self.index.owners.items() if owner not in self._seen}
        stacks = {s.record_id for key, s in self.index.stacks.items() if key not in self.present_stacks}
        return frozenset((alone | stacks) & set(self.index.records))

    def out_of_sight(self) -> frozenset[str]:
        """Return the records of which a file may still lie below a folder that could not be read in this run."""
        if not self._unread:
            return frozenset()
        hidden = [f for f in self.index.files.values() if f.file_key not in self._seen and self._is_below_unread(f)]
        stacks = {key for file in hidden for key in file.links[:STACK_LINKS] if key in self.index.stacks}
        files = {record_id for file in hidden for record_id in file.record_ids}
        return frozenset(files | {self.index.stacks[key].record_id for key in stacks})

    def _is_below_unread(self, file: FileEntry) -> bool:
        names = {file.folders[i : i + FOLDER_DIGITS] for i in range(0, len(file.folders), FOLDER_DIGITS)}
        return not names or bool(names & self._unread)  # an entry of an older cache does not say where it lay

    def _folder_key(self, home: bytes, name: bytes) -> str:
        return hmac.new(self._path_key, b"folder\0" + home + b"\0" + name, hashlib.sha256).hexdigest()[:FOLDER_DIGITS]

    def _folders(self, found: FoundFile) -> str:
        """Return the keyed names of all folders above a file, from the scan folder down."""
        folder = found.name.rpartition(b"/")[0]
        if (found.home, folder) not in self._folder_chains:
            parts = folder.split(b"/") if folder else []
            places = (b"/".join(parts[:depth]) for depth in range(len(parts) + 1))
            chain = "".join(self._folder_key(found.home, place) for place in places)
            self._folder_chains[found.home, folder] = chain
        return self._folder_chains[found.home, folder]

    def drop_orphans(self, links: Mapping[str, Sequence[str]]) -> None:
        """Forget stacks whose files all belong to other stacks now (another patient or series than before).

        ``links``: of each file of this run, the stacks it names. Nothing is forgotten while a file could not be
        read, which may still belong to it.
        """
        if any(entry.code in TRANSIENT for entry in self.index.files.values()):
            return
        named = {key for entry in self.index.files.values() for key in entry.links[:STACK_LINKS]}
        elsewhere = {key for keys in links.values() for key in keys}
        for key in sorted(set(self.index.stacks) - self.present_stacks):
            former = self.index.stacks[key]
            if former.record_id and (key in elsewhere or key not in named):
                self.take_stack(former._replace(digest="", record_id="", duplicates=()), Outcome())

    def take_file(
        self, found: FoundFile, outcome: Outcome, *, kind: FileKind, links: tuple[str, ...] = ()
    ) -> FileEntry:
        """Note what became of a file and place its records."""
        code, ids = outcome.code, tuple(self._instance_id(facts) for facts, _ in outcome.records)
        contents = [self._digest(facts, levels) for facts, levels in outcome.records]
        if code is None and ids:
            code = self._clash(self.file_key(found), ids, contents)
        if code is not None:
            ids = ()
        entry = FileEntry(
            self.file_key(found),
            self.fingerprint(found),
            code.value if code else "",
            kind.value,
            links,
            ids,
            self._folders(found),
        )
        if outcome.is_transient or code in TRANSIENT:  # whatever was known before stays true until it can be read
            self.index.files[entry.file_key] = entry
            return entry
        dropped = self.index.put_file(entry)
        self.index.drop(dropped)
        if ids:
            for record_id, content, (facts, levels) in zip(ids, contents, outcome.records, strict=True):
                self.place(record_id, facts, levels, content=content)
        if self._writer:
            self._writer.note(file=entry, dropped=dropped)
        return entry

    def take_stack(self, entry: StackEntry, outcome: Outcome) -> None:
        """Note what became of a series and place its volume, and the label map that follows it."""
        if outcome.is_transient or outcome.code in TRANSIENT:
            self.index.stacks[entry.stack_key] = entry
            return
        dropped = self.index.put_stack(entry)
        self.index.drop(dropped)
        for facts, body in outcome.records[:1] if entry.record_id else ():
            levels, label_map = bytes(body[: self._level_bytes]), bytes(body[self._level_bytes :])
            content = self._digest(facts, levels, label_map)
            self.place(entry.record_id, facts, levels, content=content, label_map=label_map)
        if self._writer:
            self._writer.note(stack=entry, dropped=dropped)

    def place(
        self, record_id: str, facts: Facts, levels: bytes | bytearray, *, content: bytes, label_map: bytes = b""
    ) -> None:
        """Seal an array into the shard and note its record; patients who opted out are left out."""
        if self.withdrawn.cover(facts):
            return
        segment = offset = length = label_length = 0
        if self._writer:
            segment, offset, length = self._writer.place("levels", record_id, levels)
            if label_map:
                _, _, label_length = self._writer.place("label map", record_id, label_map)
        record = RecordInfo(
            **asdict(facts),
            record_id=record_id,
            shape=self.settings.record_shape,
            content_digest=content,
            segment=segment,
            offset=offset,
            length=length,
            label_length=label_length or len(label_map),
        )
        self.index.records[record_id] = record
        if self._writer:
            self._writer.note_record(record)

    def commit_if_full(self) -> None:
        """Make everything so far durable when it is time."""
        if self._writer and self._writer.is_full:
            self._writer.commit()

    def commit(self) -> None:
        """Make everything so far durable."""
        if self._writer:
            self._writer.commit()

    def _instance_id(self, facts: Facts) -> str:
        return self.names.key("record", facts.instance_key.encode(), str(facts.frame_index).encode())

    def _digest(self, facts: Facts, levels: bytes | bytearray, label_map: bytes = b"") -> bytes:
        window = f"{facts.patient_key} {facts.intensity_low!r} {facts.intensity_high!r}".encode()
        digest = hmac.new(self._digest_key, window, hashlib.sha256)
        digest.update(levels)
        digest.update(label_map)
        return digest.digest()[:16]

    def _clash(self, file_key: str, ids: Sequence[str], contents: Sequence[bytes]) -> RejectCode | None:
        """Tell whether another file already gave one of these records: the first keeps it.

        If the first is gone from the folder and the content is equal, the file was moved and takes the record over.
        """
        for record_id, content in zip(ids, contents, strict=True):
            former = self.index.records.get(record_id)
            owner = self.index.owners.get(record_id)
            if former is None or owner == file_key:
                continue
            if former.content_digest != content:
                return RejectCode.CONFLICTING_INSTANCE
            if owner in self._seen:
                return RejectCode.DUPLICATE_INSTANCE
        return None


def trusted(outcome: Outcome, settings: IngestSettings) -> Outcome:
    """Refuse an outcome whose arrays do not have exactly the size, or the modality, that the settings ask for."""
    levels = level_bytes(settings.record_shape)
    sizes = (levels, levels + math.prod(settings.size_px)) if settings.reads_headers_first else (levels,)
    if all(len(body) in sizes and facts.modality in settings.modalities for facts, body in outcome.records):
        return outcome
    return Outcome(RejectCode.WORKER_DIED)

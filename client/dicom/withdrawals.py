"""A patient opts out: the scans leave the cache, and no later ingest takes them again (GDPR articles 17 and 21).

An opt-out is of a person: under every identifier that the cache knows to be theirs, and under every issuer unless one
is named (``persons``).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from client.dicom.cache_folder import CacheFolder, locked
from client.dicom.catalogue_file import forget_catalogues
from client.dicom.facts import Facts
from client.dicom.opt_outs import OptOuts
from client.dicom.person_decisions import load_rules
from client.dicom.persons import Persons, find_persons
from client.dicom.record import RecordInfo
from client.dicom.segments import (
    SegmentWriter,
    blob_name,
    committed,
    map_shard,
    read_index,
    read_part,
    remove_leftovers,
    remove_segments,
)
from client.dicom.vault import Vault
from client.processes.packing import packed, unpacked
from common.files import replace_atomically

FILE_NAME = "withdrawn.sealed"


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What an opt-out reached: records, and the identities of each person (several where issuers conflict)."""

    erased_records: int = 0
    people: tuple[frozenset[str], ...] = ()
    known: frozenset[str] = frozenset()

    @property
    def persons(self) -> int:
        """How many people were reached."""
        return len(self.people)

    @property
    def identities(self) -> int:
        """Under how many identities they were known."""
        return len(self.known)

    def __or__(self, other: "Withdrawal") -> "Withdrawal":
        """Bring together what was reached in two caches: who shares an identity is one person."""
        people = list(self.people)
        for one in other.people:
            same = [each for each in people if each & one]
            people = [each for each in people if not each & one] + [one.union(*same)]
        return Withdrawal(self.erased_records + other.erased_records, tuple(people), self.known | other.known)

    def counts(self) -> dict[str, int]:
        """Return how many of each, and who nobody is told."""
        return {"erased_records": self.erased_records, "persons": self.persons, "identities": self.identities}


def load_withdrawn(folder: Path, vault: Vault) -> OptOuts:
    """Return who opted out.

    Raises: CacheInvalidError.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return OptOuts()
    content = unpacked(vault.open("withdrawn", "", path.read_bytes()))
    identifiers = frozenset((key, issuer) for key, issuer in content.get("identifiers", ()))
    return OptOuts(frozenset(content["patients"]), identifiers)


def withdraw(folder: CacheFolder, patient_key: str) -> int:
    """Let the person behind one identity opt out; return how many records were erased. See ``opt_out``."""
    return opt_out(folder, OptOuts(frozenset({patient_key}))).erased_records


def opt_out(
    folder: CacheFolder, request: OptOuts, is_meant: Callable[[Facts], bool] = lambda _facts: False
) -> Withdrawal:
    """Note the opt-out of all persons whom ``request`` or ``is_meant`` reaches; then erase their records.

    The note comes first and is durable: from then on nobody reads the scans, even if the rewriting is interrupted
    (calling it again finishes it). Frozen studies keep the patient as a null record.
    Raises: CacheInvalidError.
    """
    with locked(folder.path):
        remove_leftovers(folder.segments)
        records = list(read_index(folder.segments, folder.vault, records_only=True).records.values())
        meant = frozenset(record.patient_key for record in records if is_meant(record))
        noted = load_withdrawn(folder.path, folder.vault) | request | OptOuts(meant)
        persons = find_persons(records, load_rules(folder.path, folder.vault), noted)
        gone = settle_opt_outs(folder, noted, records, persons)
        people: dict[str, set[str]] = {}
        for key in {record.patient_key for record in gone} - persons.left_out:
            people.setdefault(persons.person_of[key], set()).add(key)
        identities = frozenset(record.patient_key for record in gone)
        return Withdrawal(_erase_noted(folder), tuple(map(frozenset, people.values())), identities)


def settle_opt_outs(
    folder: CacheFolder, noted: OptOuts, records: Iterable[RecordInfo], persons: Persons
) -> list[RecordInfo]:
    """Note every identity of every person who opted out; return their records, which are to be erased.

    The caller holds the folder's lock. A join that became known later (a table, a new header) is covered as well.
    """
    gone = [r for r in records if persons.person_of[r.patient_key] in persons.withdrawn or noted.cover(r)]
    named = {(record.patient_id_key, record.issuer_key) for record in gone if record.issuer_key}
    named |= {(r.patient_id_key, "") for r in gone} - {(key, "") for key, _ in named}
    complete = noted | OptOuts(frozenset(record.patient_key for record in gone), frozenset(named))
    content = {"patients": sorted(complete.patients), "identifiers": sorted(map(list, complete.identifiers))}
    replace_atomically(folder.path / FILE_NAME, folder.vault.seal("withdrawn", "", packed(content)), 0o600)
    return gone


def _erase_noted(folder: CacheFolder) -> int:
    noted = load_withdrawn(folder.path, folder.vault)
    return erase(folder, noted.cover)


def erase(folder: CacheFolder, is_gone: Callable[[RecordInfo], bool]) -> int:
    """Rewrite every shard that holds a record to be erased, living or superseded; return how many there were.

    Catalogues are removed (``cache.refresh_catalogues`` makes them again).
    The caller holds the folder's lock.
    Raises: CacheInvalidError.
    """
    forget_catalogues(folder)
    erased = 0
    for number in committed(folder.segments):
        part = read_part(folder.segments, number, folder.vault)
        found = sum(is_gone(RecordInfo.from_row(row)) for row in part["records"])
        if found:
            _rewrite(folder, number, is_gone)
            erased += found
    return erased


def _rewrite(folder: CacheFolder, number: int, is_gone: Callable[[RecordInfo], bool]) -> None:
    """Copy what stays of one segment into a new one that replaces it; delete the old one.

    Entries are taken from the live index, not from the old segment: replayed at the end, old ones would win over newer.
    """
    live = read_index(folder.segments, folder.vault)
    part = read_part(folder.segments, number, folder.vault)
    writer = SegmentWriter(folder.segments, folder.vault, replaces=[number])
    for row in part["files"]:
        writer.note(file=live.files[row[0]], dropped=[])
    for row in part["stacks"]:
        writer.note(stack=live.stacks[row[0]], dropped=[])
    gone = {record_id for record_id in part["dropped"] if record_id not in live.records}
    gone |= {record.record_id for record in live.records.values() if is_gone(record)}
    writer.note(dropped=sorted(gone))
    shard = map_shard(folder.segments, number)
    for record in live.records.values():
        if record.segment == number and not is_gone(record):
            _move(folder, writer, record, shard)
    writer.commit()
    remove_segments(folder.segments, [number])


def _move(folder: CacheFolder, writer: SegmentWriter, record: RecordInfo, shard: memoryview) -> None:
    name = blob_name(record.segment, record.record_id)
    end = record.offset + record.length
    levels = folder.vault.open("levels", name, shard[record.offset : end])
    segment, offset, length = writer.place("levels", record.record_id, levels)
    if record.has_label_map:
        label_map = folder.vault.open("label map", name, shard[end : end + record.label_length])
        writer.place("label map", record.record_id, label_map)
    writer.note_record(replace(record, segment=segment, offset=offset, length=length))

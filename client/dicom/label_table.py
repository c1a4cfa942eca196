"""Labels by keyed name, as kept in the cache: the hospital's table itself is never copied.

A record is looked up by instance, series, study, accession number and patient, in this order: the most specific row
decides. Changing labels needs no scan to be read again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.dicom.facts import Facts
from client.dicom.record import Label
from client.dicom.vault import Vault
from client.processes.packing import packed, unpacked
from common.files import replace_atomically

FILE_NAME = "labels.sealed"
# Stand for "not to be used" (the row says so, or two rows contradict each other) and for an explicit "no label".
EXCLUDED = -1
UNLABELLED = -2


@dataclass(slots=True)
class LabelTable:
    """``rows``: keyed name -> label; ``masks``: keyed name -> file of an expert segmentation (in memory only).

    ``segments``: what the hospital's names of segments mean (``class_names``), until other meanings are given.
    """

    rows: dict[str, Label] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    segments: dict[str, str] = field(default_factory=dict)

    def label_of(self, facts: Facts, id_keys: Sequence[str] = ()) -> Label | None:
        """Return the label of a record, EXCLUDED, or None (= unlabelled).

        ``id_keys``: all PatientIDs of the record's person, keyed, where there are several: a row for one of them is a
        row for the person, and two that differ exclude what they name.
        """
        found = next((self.rows[key] for key in _own_names(facts) if key in self.rows), None)
        if found is None:
            of_person = {self.rows[key] for key in (facts.patient_id_key, *id_keys) if key in self.rows}
            found = EXCLUDED if len(of_person) > 1 else of_person.pop() if of_person else UNLABELLED
        return None if found == UNLABELLED else found

    def save(self, folder: Path, vault: Vault) -> None:
        """Seal rows and meanings into the cache folder, replacing former ones."""
        content = {"rows": self.rows, "segments": self.segments}
        replace_atomically(folder / FILE_NAME, vault.seal("labels", "", packed(content)), 0o600)

    @classmethod
    def load(cls, folder: Path, vault: Vault) -> "LabelTable":
        """Read the rows; none when the cache has no labels.

        Raises: CacheInvalidError.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return cls()
        content = unpacked(vault.open("labels", "", path.read_bytes()))
        rows = {key: tuple(v) if isinstance(v, list) else v for key, v in content["rows"].items()}
        return cls(rows, segments=content.get("segments", {}))


def label_names(facts: Facts) -> Iterator[str]:
    """Yield the keyed names under which a record may be labelled, most specific first."""
    yield from _own_names(facts)
    yield facts.patient_id_key


def _own_names(facts: Facts) -> Iterator[str]:
    names = (facts.instance_key, facts.series_key, facts.study_key, facts.accession_key)
    return (name for name in names if name)

"""What an ingest found: counts only, by fixed codes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from client.dicom.reject import RejectCode


@dataclass(slots=True)
class IngestReport:
    """State after a run, over all files of the folder (not only those read this time).

    ``accepted``: files that gave, or are part of, a record. ``rejected``: files by code. ``files_read``: files opened
    in this run. ``records``, ``patients``, ``labelled_patients``: what the cache holds (with ``--dry-run``: would hold
    from this folder). ``records_without_file``: their source is gone from the folder; ``records_out_of_sight``: of
    these, how many may lie below a folder that could not be read. ``persons``: doubts about who is who
    (``persons.count_doubts``). ``label_rows``: what became of
    the label table's rows; ``masks_refused``: segmentation files it names that do not fit.
    """

    files_found: int = 0
    files_read: int = 0
    accepted: int = 0
    rejected: Counter[RejectCode] = field(default_factory=Counter)
    records: int = 0
    records_without_file: int = 0
    records_out_of_sight: int = 0
    patients: int = 0
    labelled_patients: int = 0
    persons: dict[str, int] = field(default_factory=dict)
    label_rows: dict[str, int] = field(default_factory=dict)
    masks_refused: Counter[RejectCode] = field(default_factory=Counter)
    elapsed_s: float = 0.0
    dry_run: bool = False

    @property
    def is_usable(self) -> bool:
        """Whether a study could use anything."""
        return self.records > 0

    @property
    def no_label_fits(self) -> bool:
        """Whether a label table was given and none of its rows names anything here."""
        return self.label_rows.get("rows", 0) > 0 and self.label_rows.get("matched") == 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {
            "files_found": self.files_found,
            "files_read": self.files_read,
            "accepted": self.accepted,
            "rejected": {code.value: count for code, count in sorted(self.rejected.items())},
            "records": self.records,
            "records_without_file": self.records_without_file,
            "records_out_of_sight": self.records_out_of_sight,
            "patients": self.patients,
            "labelled_patients": self.labelled_patients,
            "persons": self.persons,
            "label_rows": self.label_rows,
            "masks_refused": {code.value: count for code, count in sorted(self.masks_refused.items())},
            "elapsed_s": round(self.elapsed_s, 3),
            "dry_run": self.dry_run,
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: ``done`` of ``total`` steps (files, or files and then series), and the verdicts so far."""

    done: int
    total: int
    accepted: int
    rejected: int


@dataclass(slots=True)
class Tally:
    """Counts verdicts into a report and tells who watches."""

    report: IngestReport
    total: int
    watch: Callable[[Progress], None] | None = None
    done: int = 0

    def count(self, code: RejectCode | None) -> None:
        """Add one file's final verdict."""
        if code is None:
            self.report.accepted += 1
        else:
            self.report.rejected[code] += 1

    def step(self, steps: int = 1) -> None:
        """Go forward."""
        self.done += steps
        if self.watch:
            self.watch(Progress(self.done, self.total, self.report.accepted, self.report.rejected.total()))

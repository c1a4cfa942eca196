"""The hospital's label table (CSV): read strictly, keyed at once, never copied.

    key_type,key,label
    SeriesInstanceUID,1.2.840.113619.2.55.3,nodule

``key_type``: SOPInstanceUID, SeriesInstanceUID, StudyInstanceUID, AccessionNumber or PatientID. ``label``: a class of
the study; several joined by ``|`` for multi-label (``none`` = none of them); for segmentation a NIfTI file (2-D: PNG)
beside the table; ``unlabelled`` or ``exclude`` everywhere. Comma, semicolon or tab. A table with the hospital's own
headers and words is read with ``label_words``. Contract and traps: docs/scans.md.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.dicom.errors import LabelsInvalidError
from client.dicom.label_table import EXCLUDED, UNLABELLED, LabelTable, label_names
from client.dicom.label_words import KEY_TYPES, LabelWords, find_columns, unknown_words
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.record import Label, RecordInfo
from client.dicom.settings import IngestSettings
from common.files import read_bounded
from common.plan.task import TaskKind

MAX_TABLE_BYTES = 256 << 20
MASK_SUFFIXES = {2: (".png",), 3: (".nii", ".nii.gz")}
LARGEST_LOSS_OF_ZEROS = 8
# What a spreadsheet makes of a long number: 1.2E+11, 1,2E+11.
SCIENTIFIC = re.compile(r"\d([.,]\d+)?[eE]\+\d+")
DELIMITER_LINE = re.compile(r"sep=([,;\t])", re.IGNORECASE)  # the first line of some spreadsheets' CSV
KEPT_AS_TEXT = re.compile(r'="([^"]*)"')
Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class LabelSource:
    """A label table as read: keyed, its rows (for ``explain_unmatched`` only), counts, and the folder it lies in."""

    table: LabelTable
    rows: list[Row]
    counts: dict[str, int]
    folder: Path


def read_labels(
    path: Path, settings: IngestSettings, names: Pseudonyms, encoding: str = "utf-8", meanings: Sequence[str] = ()
) -> LabelSource:
    """Read a label table.

    ``meanings``: of the hospital's own headers and words (``label_words``).
    Conflicting rows for one key exclude what they name; equal ones count once.
    Raises: LabelsInvalidError (form, unknown words: named, damaged keys: with counts, never with a key),
    FileUnreadableError, FileTooLargeError.
    """
    rows = _rows(_text(path, encoding), label_words(meanings, settings))
    _refuse_damage(rows)
    table, counts = LabelTable(), Counter({"rows": len(rows)})
    unknown: Counter[str] = Counter()
    for key_type, key, text in rows:
        name = names.label_key(key_type, key)
        try:
            if settings.kind is TaskKind.SEGMENTATION and text.endswith(MASK_SUFFIXES[settings.dimensions]):
                _add(table.masks, name, _mask_name(text), counts)
            else:
                _add(table.rows, name, _label(text, settings), counts)
        except KeyError:
            unknown[text] += 1
    if unknown:
        raise LabelsInvalidError(unknown_words(unknown, len(rows), settings.classes))
    return LabelSource(table, rows, dict(counts), path.parent)


def label_words(meanings: Sequence[str], settings: IngestSettings) -> LabelWords:
    """Read what the hospital's own words mean in a study. Raises: LabelsInvalidError."""
    return LabelWords.parse(meanings, settings.classes, has_segments=settings.kind is TaskKind.SEGMENTATION)


def _text(path: Path, encoding: str) -> str:
    try:
        return read_bounded(path, MAX_TABLE_BYTES).decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise LabelsInvalidError(
            f"the label table is not {encoding} at byte {error.start}; save it as UTF-8 or name its encoding"
        ) from None
    except LookupError:
        raise LabelsInvalidError("this text encoding does not exist; use utf-8 or gb18030") from None


def _rows(text: str, words: LabelWords) -> list[Row]:
    header, _, rest = text.partition("\n")
    said = DELIMITER_LINE.fullmatch(header.strip())
    delimiter = said[1] if said else max(",;\t", key=header.count)
    text = rest if said else text
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        raise LabelsInvalidError("the label table is not well-formed CSV; a quote may be missing") from None
    columns = find_columns(table[0] if table else [], words)
    rows = []
    for number, cells in enumerate(table[1:], start=3 if said else 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < columns.least:
            raise LabelsInvalidError(
                f"row {number} of the label table has {len(cells)} cells, {columns.least} are needed"
            )
        stripped = [_plain(cell) for cell in cells]
        key_type, key = columns.key_of(stripped)
        if key_type not in KEY_TYPES or not key:
            raise LabelsInvalidError(f"row {number} of the label table: key_type must be one of {', '.join(KEY_TYPES)}")
        rows.append((key_type, key, columns.label_of(stripped)))
    return rows


def refuse_empty(source: LabelSource, known: int) -> None:
    """Refuse a table without rows where labels are known: a hospital without any has such a table, a cut export too.

    ``known``: labels of the last table. Raises: LabelsInvalidError.
    """
    if not source.rows and known:
        raise LabelsInvalidError(
            f"the label table has a header and no row, but {known} labels are known here, so nothing was changed; "
            "was its export cut?"
        )


def _plain(cell: str) -> str:
    """Return the text of a cell; spreadsheets keep leading zeros as ="0012345"."""
    found = KEPT_AS_TEXT.fullmatch(cell.strip())
    return (found[1] if found else cell).strip()


def _refuse_damage(rows: list[Row]) -> None:
    damaged = sum(1 for _, key, _ in rows if SCIENTIFIC.fullmatch(key))
    if damaged:
        raise LabelsInvalidError(
            f"{damaged} keys of the label table look like 1.2E+11: a spreadsheet has rounded long numbers; "
            "export the column as text"
        )


def _label(text: str, settings: IngestSettings) -> Label:
    wanted = text.lower()
    if wanted in ("", "unlabelled"):
        return UNLABELLED
    if wanted == "exclude":
        return EXCLUDED
    if settings.kind is TaskKind.CLASSIFICATION:
        return {name: number for number, name in enumerate(settings.classes)}[wanted]
    if settings.kind is TaskKind.SEGMENTATION:
        raise KeyError
    present = set() if wanted == "none" else {part.strip() for part in wanted.split("|")}
    if not present <= set(settings.classes):
        raise KeyError
    return tuple(int(name in present) for name in settings.classes)


def _mask_name(text: str) -> str:
    parts = text.split("/")
    if text.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise LabelsInvalidError("a segmentation file must lie beside or below the label table, without '..'")
    return text


def _add(rows: dict[str, Any], name: str, value: Any, counts: Counter[str]) -> None:
    former = rows.setdefault(name, value)
    if former == value:
        return
    counts["conflicting"] += 1
    rows[name] = EXCLUDED if isinstance(value, (int, tuple)) else ""


def refuse_ambiguous(table: LabelTable, records: Iterable[RecordInfo]) -> int:
    """Exclude labels by PatientID where two issuers gave one number to two people; return how many there are."""
    people: dict[str, set[str]] = {}
    for record in records:
        people.setdefault(record.patient_id_key, set()).add(record.patient_key)
    ambiguous = [name for name, keys in people.items() if len(keys) > 1 and name in table.rows]
    table.rows.update(dict.fromkeys(ambiguous, EXCLUDED))
    return len(ambiguous)


def explain_unmatched(rows: list[Row], records: Iterable[RecordInfo], names: Pseudonyms) -> dict[str, int]:
    """Count rows that name nothing here, and those of them that would if leading zeros were put back (Excel)."""
    present = {name for record in records for name in label_names(record)}
    unmatched = [row for row in rows if names.label_key(row[0], row[1]) not in present]
    lost = sum(1 for row in unmatched if _would_match_with_zeros(row, present, names))
    return {"matched": len(rows) - len(unmatched), "unmatched": len(unmatched), "lost_leading_zeros": lost}


def _would_match_with_zeros(row: Row, present: set[str], names: Pseudonyms) -> bool:
    key_type, key, _ = row
    if key_type not in ("AccessionNumber", "PatientID") or not key.isdigit():
        return False
    padded = ("0" * count + key for count in range(1, LARGEST_LOSS_OF_ZEROS + 1))
    return any(names.label_key(key_type, text) in present for text in padded)

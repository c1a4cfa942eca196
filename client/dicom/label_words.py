"""The hospital's own headers and words, and what they mean in a study.

    Pat-Nr=PatientID                       the column "Pat-Nr" names scans by PatientID
    diagnosis:Pneumonie=consolidation      the word "Pneumonie" in the column "diagnosis" is this class
    segment:Leber=liver                    what is called "Leber" in SEG and RTSTRUCT objects is this class

Given as ``--map`` (may be repeated) or in site.toml, ``[labels] map``. Headers and words are compared without capitals
and outer space. A study with several labels for one image may have a column for each; a row says what all
its columns say.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from client.dicom.errors import LabelsInvalidError

KEY_TYPES = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")
OWN_COLUMNS = ("key_type", "key", "label")
RESERVED = ("unlabelled", "exclude", "none")
SEGMENT = "segment"  # stands for a column in entries on names of segments
SHOWN_WORDS = 20
# What stands in a label column by mistake: a number of a patient, a UID, a date, a name in capitals (as DICOM writes
# names), a text. Never shown.
NO_WORD = re.compile(r".*\d{4}.*|.*\^.*|.{41,}")
CAPITALS_OF_A_NAME = 4


@dataclass(frozen=True, slots=True)
class LabelWords:
    """``keys``: header -> key type; ``words``: header -> word -> class (or a reserved word).

    ``segments``: name of a segment or structure -> class, or ``none``; ``*`` is any other name.
    """

    keys: dict[str, str] = field(default_factory=dict)
    words: dict[str, dict[str, str]] = field(default_factory=dict)
    segments: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, entries: Iterable[str], classes: Sequence[str], *, has_segments: bool = False) -> "LabelWords":
        """Read the entries; see the module's words. ``has_segments``: of a segmentation study.

        Raises: LabelsInvalidError for an entry of another form, a class that the study does not have, or a word with
        two meanings.
        """
        result = cls()
        for entry in entries:
            left, equals, meaning = entry.rpartition("=")
            column, colon, word = left.partition(":")
            if not equals or not plain(column) or (colon and not plain(word)):
                raise LabelsInvalidError(f"{entry!r} has no effect: write COLUMN=PatientID, or COLUMN:WORD=class")
            if has_segments and colon and plain(column) == SEGMENT:
                result._add_segment(plain(word), plain(meaning), classes)
            elif colon:
                result._add_word(plain(column), plain(word), plain(meaning), classes)
            else:
                result._add_key(plain(column), meaning.strip())
        return result

    def _add_word(self, column: str, word: str, meaning: str, classes: Sequence[str]) -> None:
        if meaning not in (*classes, *RESERVED):
            known = ", ".join((*classes, *RESERVED))
            raise LabelsInvalidError(f"a word is mapped to {meaning!r}, which the study does not have; it has: {known}")
        if self.words.setdefault(column, {}).setdefault(word, meaning) != meaning:
            raise LabelsInvalidError(f"the word {word!r} of the column {column!r} is mapped to two classes; keep one")

    def _add_segment(self, name: str, meaning: str, classes: Sequence[str]) -> None:
        if meaning not in (*classes, "none"):
            known = ", ".join((*classes, "none"))
            raise LabelsInvalidError(
                f"a segment is mapped to {meaning!r}, which the study does not have; it has: {known}"
            )
        if self.segments.setdefault(name, meaning) != meaning:
            raise LabelsInvalidError(f"the segment {name!r} is mapped to two classes; keep one")

    def _add_key(self, column: str, meaning: str) -> None:
        key_type = key_type_of(meaning)
        if key_type is None:
            raise LabelsInvalidError(
                f"the column {column!r} is mapped to {meaning!r}; a column names scans by one of {', '.join(KEY_TYPES)}"
            )
        self.keys[column] = key_type


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a row the keys and the words stand.

    ``keys``: place and key type, most specific first; no type: the cell before says it. ``least``: cells of a row.
    """

    keys: list[tuple[int, str]]
    words: list[tuple[int, dict[str, str]]]
    least: int

    def key_of(self, cells: Sequence[str]) -> tuple[str, str]:
        """Return key type and key of a row ("" when it names nothing)."""
        named = ((kind or cells[place - 1], cells[place]) for place, kind in self.keys if cells[place])
        return next(named, ("", ""))

    def label_of(self, cells: Sequence[str]) -> str:
        """Return what a row says, in the study's words where they are known; several joined by ``|``.

        A column that says ``exclude`` or ``unlabelled`` decides for the row, since half a label is none.
        """
        said = list(dict.fromkeys(part for place, words in self.words for part in _meanings(cells[place], words)))
        whole = next((word for word in ("exclude", "unlabelled") if word in said), "")
        return whole or "|".join(part for part in said if part != "none") or ("none" if said else "")


def _meanings(cell: str, words: dict[str, str]) -> list[str]:
    whole = words.get(plain(cell))
    if whole is not None:
        return [whole]
    parts = [part.strip() for part in cell.split("|")]
    return [words.get(plain(part), plain(part) if plain(part) in RESERVED else part) for part in parts if part]


def find_columns(header: Sequence[str], words: LabelWords) -> Columns:
    """Return where keys and words stand in a table: in our own form, or with the hospital's header.

    A column whose header is a key type needs no entry, nor does one called ``label``.
    Raises: LabelsInvalidError when a mapped column is missing or has no effect, or nothing names scans or has words.
    """
    names = [plain(cell) for cell in header]
    missing = [name for name in (*words.keys, *words.words) if name not in names]
    if missing:
        raise LabelsInvalidError(f"the label table has no column {missing[0]!r}, which is mapped; mend the map")
    if tuple(names[: len(OWN_COLUMNS)]) == OWN_COLUMNS:
        if words.keys or set(words.words) - {"label"}:
            raise LabelsInvalidError(
                "a table with the columns key_type,key,label takes no other map than label:WORD=class"
            )
        return Columns([(1, "")], [(2, words.words.get("label", {}))], len(OWN_COLUMNS))
    kinds = [words.keys.get(name) or key_type_of(name) for name in names]
    keys = [(place, kind) for place, kind in enumerate(kinds) if kind is not None and names[place] not in words.words]
    label_columns = words.words or {"label": {}}
    found = [(place, label_columns[name]) for place, name in enumerate(names) if name in label_columns]
    if not keys or not found:
        raise LabelsInvalidError(
            "the label table must begin with the columns key_type,key,label, or have columns of its own that --map "
            f"explains; no column here {'holds labels' if keys else 'names scans (PatientID, AccessionNumber, ...)'}"
        )
    return Columns(sorted(keys, key=lambda key: KEY_TYPES.index(key[1])), found, len(header))


def is_of_segments(entry: str) -> bool:
    """Tell whether an entry is about names of segments, for which no table is needed."""
    column, colon, _ = entry.partition(":")
    return bool(colon) and plain(column) == SEGMENT


def of_study(entries: Iterable[str], classes: Sequence[str], *, has_segments: bool) -> tuple[str, ...]:
    """Return a site's standing entries without those on names of segments that are another study's.

    Each study takes what it has a class for; of a study without segments (``has_segments``) none is.
    """
    known = (*classes, "none")
    return tuple(
        entry
        for entry in entries
        if not is_of_segments(entry) or (has_segments and plain(entry.rpartition("=")[2]) in known)
    )


def key_type_of(text: str) -> str | None:
    """Return the key type that a header names, however it is spaced: "Patient ID", "accession_number"."""
    joined = re.sub(r"[\s_-]", "", text).lower()
    return next((kind for kind in KEY_TYPES if kind.lower() == joined), None)


def plain(text: str) -> str:
    """Return a header or word in the form in which they are compared."""
    return " ".join(text.lower().split())


def unknown_words(found: Counter[str], rows: int, classes: Sequence[str]) -> str:
    """Return the sentence on words that the study does not know: they are words for labels, so they are named.

    What looks like a number or a name (in capitals) is only counted, and so is everything when there are very many.
    """
    known = f"it knows: {', '.join(classes)}"
    sentence = f"{found.total()} of {rows} rows have a label the study does not know; {known}"
    shown = {word: n for word, n in found.most_common() if word.isprintable() and not _is_no_word(word)}
    if len(found) > SHOWN_WORDS or not shown:
        return f"{sentence}. They are {len(found)} different words; is this the column of labels?"
    named = ", ".join(f"{word!r} {count}" for word, count in shown.items())
    hidden = f", and {len(found) - len(shown)} that may be names or numbers" if len(found) > len(shown) else ""
    return f"{sentence}. Not known: {named}{hidden}; say what they mean with --map COLUMN:WORD=class (or =unlabelled)"


def _is_no_word(word: str) -> bool:
    in_capitals = sum(char.isupper() for char in word) >= CAPITALS_OF_A_NAME and not any(
        char.islower() for char in word
    )
    return in_capitals or NO_WORD.fullmatch(word) is not None

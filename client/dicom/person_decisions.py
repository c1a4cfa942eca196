"""The hospital's decisions about persons, sealed into the cache, so that every later ingest follows them.

The table of merged identifiers (CSV) names former and present identifiers of one person:

    former_id,current_id
    OLD-17,0012345

Optional columns: ``former_issuer,current_issuer``. Comma, semicolon or tab. It is keyed while it is read.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from client.dicom.errors import PersonsInvalidError
from client.dicom.person_rules import PersonFrom, PersonRules, Reference
from client.dicom.pseudonyms import Pseudonyms, likeness
from client.dicom.vault import Vault
from client.processes.packing import packed, unpacked
from common.files import read_bounded, replace_atomically

FILE_NAME = "persons.sealed"
MAX_TABLE_BYTES = 64 << 20
MAX_NAME_CHARACTERS = 100
COLUMNS = ("former_id", "current_id")
ISSUERS = ("former_issuer", "current_issuer")


def save_rules(rules: PersonRules, folder: Path, vault: Vault) -> None:
    """Seal the rules into the cache folder."""
    merged = [[*former, *current] for former, current in rules.merged]
    content = packed(rules.to_wire() | {"decided_by": rules.decided_by, "merged": merged})
    replace_atomically(folder / FILE_NAME, vault.seal("persons", "", content), 0o600)


def load_rules(folder: Path, vault: Vault) -> PersonRules:
    """Read the rules; those every cache begins with when nobody decided anything.

    Raises: CacheInvalidError.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return PersonRules()
    content = unpacked(vault.open("persons", "", path.read_bytes()))
    merged = tuple(((row[0], row[1]), (row[2], row[3])) for row in content["merged"])
    return replace(PersonRules.from_wire(content), decided_by=str(content["decided_by"]), merged=merged)


def decided(
    *,
    former: PersonRules,
    person_from: PersonFrom | None,
    placeholders: Sequence[str],
    decided_by: str,
    whole_ultrasound: bool = False,
    same_persons: Path | None,
    names: Pseudonyms,
) -> PersonRules:
    """Return the rules that hold from now on: what was given now, else what was decided before.

    ``placeholders``: PatientIDs that stand for nobody. ``same_persons``: table of merged identifiers.
    Raises: PersonsInvalidError (a decision without a name, a word without letters), and as ``read_merged``.
    """
    rules = former
    if same_persons is not None:
        rules = replace(rules, merged=read_merged(same_persons, names))
    if person_from is None and not placeholders and not whole_ultrasound:
        if decided_by:
            raise PersonsInvalidError(
                "--decided-by belongs to a decision: --person-from, --placeholder, --whole-ultrasound"
            )
        return rules
    if not (decided_by.strip() and decided_by.isprintable() and len(decided_by) <= MAX_NAME_CHARACTERS):
        limit = f"1 to {MAX_NAME_CHARACTERS} characters"
        raise PersonsInvalidError(f"whom scans are about is a decision: name who made it with --decided-by ({limit})")
    words = {likeness(word) for word in placeholders}
    if "" in words:
        raise PersonsInvalidError(
            "a placeholder needs a letter or a digit; one without is taken for a placeholder anyway"
        )
    if words and (person_from or rules.person_from) is PersonFrom.IDENTIFIER:
        raise PersonsInvalidError("--placeholder has no effect without --person-from study or folder; give it too")
    words |= set(rules.placeholders) if person_from is not PersonFrom.IDENTIFIER else set()
    return replace(
        rules,
        person_from=person_from or rules.person_from,
        placeholders=tuple(sorted(words)),
        whole_ultrasound=whole_ultrasound or rules.whole_ultrasound,
        decided_by=decided_by.strip(),
    )


def read_merged(path: Path, names: Pseudonyms) -> tuple[tuple[Reference, Reference], ...]:
    """Read a table of merged or former identifiers (CSV), keyed at once: ``former_id,current_id``.

    Optional columns ``former_issuer,current_issuer``. Comma, semicolon or tab.
    Raises: PersonsInvalidError (form; with a row's number, never with a value), FileUnreadableError, FileTooLargeError.
    """
    pairs = []
    for number, row in enumerate(_rows(path), start=2):
        if not any(row.values()):
            continue
        if not row[COLUMNS[0]] or not row[COLUMNS[1]]:
            raise PersonsInvalidError(f"row {number} of the table of persons lacks an identifier; fill or remove it")
        pairs.append((_reference(row, "former", names), _reference(row, "current", names)))
    return tuple(pairs)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = read_bounded(path, MAX_TABLE_BYTES).decode("utf-8-sig")
        header = text.partition("\n")[0]
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True))
    except UnicodeDecodeError as error:
        raise PersonsInvalidError(
            f"the table of persons is not UTF-8 at byte {error.start}; save it as UTF-8"
        ) from None
    except csv.Error:
        raise PersonsInvalidError("the table of persons is not well-formed CSV; a quote may be missing") from None
    columns = [cell.strip().lower() for cell in rows[0]] if rows else []
    if not set(COLUMNS) <= set(columns) <= set(COLUMNS + ISSUERS):
        raise PersonsInvalidError(
            "the table of persons must have the columns former_id,current_id, and may have former_issuer,current_issuer"
        )
    return [dict.fromkeys(columns, "") | dict(zip(columns, map(str.strip, cells), strict=False)) for cells in rows[1:]]


def _reference(row: dict[str, str], which: str, names: Pseudonyms) -> Reference:
    issuer = row.get(f"{which}_issuer", "")
    return names.label_key("PatientID", row[f"{which}_id"]), names.issuer(issuer)

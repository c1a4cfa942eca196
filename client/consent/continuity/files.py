"""The files of a site folder whose loss would loosen a promise; ``docs/lost-files.md`` has a row for each.

One rule for all: such a file never begins again by itself. Other files show that it was there (``losses``); while they
show more than it holds, the site takes part in nothing. The newest copy is put back, or a named person decides with a
reason that it begins again (``beginning_again``), at the price below; page and ``check`` show that for ever after.
"""

from enum import StrEnum
from pathlib import Path
from typing import Final

from client.dicom.caches import lists_of_studies
from client.installation.folder import SiteFolder


class Lost(StrEnum):
    """A file as ``fedward-site begin-again`` names it."""

    LEDGER = "ledger"
    JOURNAL = "journal"
    OUTBOX = "outbox"
    AUDIT = "audit"
    WITHDRAWALS = "withdrawals"
    SECRET = "secret"  # noqa: S105 (a name)


PRICES: Final = {
    Lost.LEDGER: "every study ever approved here is charged all that it promised, and ends at this site",
    Lost.JOURNAL: "every study known here ends at this site: attempts and opened models cannot be told from new ones",
    Lost.OUTBOX: "nobody can show any more what left before",
    Lost.AUDIT: "no approval stands: every plan is read and approved again",
    Lost.WITHDRAWALS: "whoever opted out and was not named again would be read again at the next ingest",
    Lost.SECRET: "every study known here ends at this site, and patients who opted out must be named again",
}


def files_of(folder: SiteFolder, lost: Lost) -> list[Path]:
    """Return the file and what belongs to it, whether it is there or not."""
    named = {
        Lost.LEDGER: [folder.ledger, *_beside(folder.ledger, ".anchor", "-wal", "-shm")],
        Lost.JOURNAL: [folder.journal, *_beside(folder.journal, "-wal", "-shm")],
        Lost.OUTBOX: [folder.outbox],
        Lost.AUDIT: [folder.audit],
        Lost.WITHDRAWALS: [folder.opted_out],
        Lost.SECRET: [folder.opted_out, folder.studies],  # sealed with it
    }
    return named[lost]


def signs_of_use(folder: SiteFolder) -> list[str]:
    """Return the names of what only a site has that was used: where there is one, no ledger is a new site's."""
    files = [*files_of(folder, Lost.LEDGER)[1:], *files_of(folder, Lost.JOURNAL), folder.outbox, folder.audit]
    files += [folder.kit, folder.opted_out]
    folders = [folder.plans, folder.withdrawn_plans, folder.studies, folder.models]
    folders += [*lists_of_studies(folder), folder.path / "teachers", folder.path / "replaced"]
    found = [file.name for file in files if file.exists()]
    return found + [place.name for place in folders if place.is_dir() and any(place.iterdir())]


def _beside(path: Path, *endings: str) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in endings]

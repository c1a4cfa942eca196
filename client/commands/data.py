"""fedward-site data: what this site holds, small cells suppressed."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from client.commands.site_options import (
    CacheOption,
    SecretFileOption,
    SiteFolderOption,
    preparations,
    secret_and_caches,
    settings_from,
)
from client.dicom.cache import Cache
from client.dicom.caches import Preparation, cache_made_for
from client.dicom.census import SMALL_CELL, take_census
from client.dicom.contact_sheet import contact_sheet, most_like_text_first, page_count, sheet_page
from client.dicom.errors import CacheInvalidError
from client.installation.folder import SiteFolder
from common.errors import FedwardError, OutputExistsError
from common.files import write_new
from common.terminal import JsonOption, errors, output, print_json, printable


def data(
    *,
    site_folder: SiteFolderOption = None,
    secret_file: SecretFileOption = None,
    cache: CacheOption = None,
    plan: Annotated[Path | None, typer.Option(help="Study plan (TOML): show its cache alone.")] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", help="New folder for PNG pages of EVERY image, most like text first; for eyes inside."),
    ] = None,
    sample: Annotated[
        Path | None, typer.Option("--contact-sheet", help="Write a PNG of some images; for eyes inside the hospital.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, max=600, help="How many images the contact sheet shows.")] = 24,
    as_json: JsonOption = False,
) -> None:
    """Show what the cache holds: patients, images, labels, scanners, and files that were not taken.

    Of a site with several caches (one for each way in which studies prepare images) a table, sheet or folder of pages
    for each, or with --plan the plan's alone. Counts below 10 are suppressed.

    Example: `fedward-site data --site-folder site/ --sheet pages`
    """
    secret, paths = secret_and_caches(site_folder, secret_file, cache)
    if plan is not None:
        if site_folder is None or cache is not None:
            raise typer.BadParameter("--plan chooses among the caches of a site folder; give --site-folder alone")
        paths = [cache_made_for(SiteFolder(site_folder), settings_from(plan))]
    seen, damaged = _look(preparations(site_folder, paths), secret)
    alone = len(paths) == 1
    if as_json:
        print_json(seen[0].census if alone else {"caches": [each.facts() for each in seen]})
    for each in () if as_json else seen:
        each.print(alone=alone)
    for sentence in _drawn(seen, sample, images, sheet, alone=alone):
        if not as_json:
            output.print(sentence, markup=False)
    if damaged:
        raise CacheInvalidError(f"not shown: {'; '.join(damaged)}")


@dataclass(frozen=True, eq=False)
class _Seen:
    """One cache of the site, and what it holds."""

    known: Preparation
    cache: Cache
    census: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        return self.known.facts() | self.census

    def print(self, *, alone: bool) -> None:
        title = "what this site holds" if alone else f"{self.known.name}: {self.known.words}"
        table = Table("what", "count", title=printable(title), title_justify="left")
        for group, value in self.census.items():
            cells = value if isinstance(value, dict) else {"": value}
            for name, count in cells.items():
                shown = f"{group.replace('_', ' ')}: {name}" if name else group
                table.add_row(shown, f"<{SMALL_CELL} or suppressed" if count is None else str(count))
        output.print(table)


def _look(caches: Sequence[Preparation], secret: bytes) -> tuple[list[_Seen], list[str]]:
    """Open each cache; of several one that is damaged hides no other. Returns those, and sentences on the others."""
    seen, damaged = [], []
    for known in caches:
        try:
            seen.append(_Seen(known, Cache.open(known.path, secret), take_census(known.path, secret)))
        except FedwardError as error:
            if len(caches) == 1:
                raise
            damaged.append(f"{known.name} ({error})")
    return seen, damaged


def _drawn(
    seen: Sequence[_Seen], sample: Path | None, images: int, sheet: Path | None, *, alone: bool
) -> Iterator[str]:
    """Write contact sheet and pages, of several caches one for each; yields what was written."""
    if sheet is not None and not alone:
        _new_folder(sheet)
    for each in seen:
        name = each.known.path.name
        if sample is not None:
            place = sample if alone else sample.with_name(f"{sample.stem}-{name}{sample.suffix}")
            write_new(place, contact_sheet(each.cache, images), 0o600)
            yield f"wrote {place} (mode 0600); keep it inside the hospital"
        if sheet is not None:
            place = sheet if alone else sheet / name
            pages = _write_pages(each.cache, place)
            yield f"wrote {pages} pages to {place} (mode 0700); look at each, keep them inside"


def _new_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise OutputExistsError(f"{folder}: cannot be made ({error.strerror}); give a folder that is new") from None


def _write_pages(cache: Cache, folder: Path) -> int:
    """Write every image to pages in a new folder; return how many pages there are."""
    _new_folder(folder)
    with errors.status("drawing every image") if errors.is_terminal else nullcontext():
        order = most_like_text_first(cache)
        for number in range(1, page_count(len(order)) + 1):
            write_new(folder / f"page-{number:05d}.png", sheet_page(cache, order, number), 0o600)
    return page_count(len(order))

"""fedward-site data: what this site holds, small cells suppressed."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from client.commands.site_options import CacheOption, SecretFileOption, SiteFolderOption, secret_and_cache
from client.dicom.cache import Cache
from client.dicom.census import SMALL_CELL, take_census
from client.dicom.contact_sheet import contact_sheet, most_like_text_first, page_count, sheet_page
from common.errors import OutputExistsError
from common.files import write_new
from common.terminal import JsonOption, errors, output, print_json


def data(
    *,
    site_folder: SiteFolderOption = None,
    secret_file: SecretFileOption = None,
    cache: CacheOption = None,
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

    Counts below 10 are suppressed. Example: `fedward-site data --site-folder site/ --sheet pages`
    """
    secret, cache_path = secret_and_cache(site_folder, secret_file, cache)
    census = take_census(cache_path, secret)
    if sample is not None:
        write_new(sample, contact_sheet(Cache.open(cache_path, secret), images), 0o600)
    pages = _write_pages(Cache.open(cache_path, secret), sheet) if sheet is not None else 0
    if as_json:
        print_json(census)
        return
    table = Table("what", "count", title="what this site holds", title_justify="left")
    for group, value in census.items():
        cells = value if isinstance(value, dict) else {"": value}
        for name, count in cells.items():
            title = f"{group.replace('_', ' ')}: {name}" if name else group
            table.add_row(title, f"<{SMALL_CELL} or suppressed" if count is None else str(count))
    output.print(table)
    if sample is not None:
        output.print(f"wrote {sample} (mode 0600); keep it inside the hospital", markup=False)
    if sheet is not None:
        output.print(f"wrote {pages} pages to {sheet} (mode 0700); look at each, keep them inside", markup=False)


def _write_pages(cache: Cache, folder: Path) -> int:
    """Write every image to pages in a new folder; return how many pages there are."""
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise OutputExistsError(f"{folder}: cannot be made ({error.strerror}); give a folder that is new") from None
    with errors.status("drawing every image") if errors.is_terminal else nullcontext():
        order = most_like_text_first(cache)
        for number in range(1, page_count(len(order)) + 1):
            write_new(folder / f"page-{number:05d}.png", sheet_page(cache, order, number), 0o600)
    return page_count(len(order))

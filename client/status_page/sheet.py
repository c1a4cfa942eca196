"""Every image on the hospital's page, most like text first: for eyes inside, before a study is approved.

The page is only on this machine and behind its door; nothing of it is stored. The order is found once for each state of
the cache, in the background; a page of images is drawn when somebody asks for it.
"""

import threading
from dataclasses import dataclass

from client.dicom.cache import Cache
from client.dicom.cache_folder import HEADER
from client.dicom.contact_sheet import most_like_text_first, page_count, sheet_page
from client.installation.folder import SiteFolder
from client.status_page.background import Background
from common.trust.identity import read_secret_file
from common.web.freshness import mark_of
from common.web.markup import Markup, element, join
from common.web.shell import page, paragraph, section


@dataclass(frozen=True, eq=False)
class Sheet:
    """All images of a cache in the order in which they are shown."""

    cache: Cache
    order: list[str]


class SheetReader:
    """Opens the cache and orders its images, again whenever it changed. Safe for several threads."""

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._sheet = Background(self._read)
        self._drawing = threading.Lock()

    def look(self) -> tuple[Sheet | None, str]:
        """Return the sheet, or None and a sentence that says why there is none (yet)."""
        cache = self._folder.cache
        if not (cache / HEADER).exists():
            return None, "No scans have been read here yet."
        known = self._sheet.look(
            mark_of(*sorted((cache / "segments").glob("*.index")), *sorted(cache.glob("*.sealed")))
        )
        return known.value, known.trouble or "The images are being put in order; this page renews itself."

    def draw(self, number: int) -> bytes | None:
        """Return one page as a PNG; None where there is no such page."""
        sheet, _ = self.look()
        if sheet is None or not 1 <= number <= page_count(len(sheet.order)):
            return None
        with self._drawing:  # one at a time: a page holds twenty images
            return sheet_page(sheet.cache, sheet.order, number)

    def _read(self) -> Sheet:
        cache = Cache.open(self._folder.cache, read_secret_file(self._folder.secret))
        return Sheet(cache, most_like_text_first(cache))


def sheet_html(name: str, sheet: Sheet | None, waiting: str, number: int) -> str:
    """Return the page with images ``number`` (from 1), and the way to its neighbours."""
    top = join(element("p", "Fedward site", class_="kind"), element("h1", f"{name}: every image"))
    pages = page_count(len(sheet.order)) if sheet else 1
    number = min(max(1, number), pages)
    body = paragraph(waiting) if sheet is None else _images(len(sheet.order), number, pages)
    main = section(f"Page {number} of {pages}", body)
    return page(f"{name}: images", top=top, main=main, footer="For eyes inside this hospital only.")


def _images(count: int, number: int, pages: int) -> Markup:
    links = [
        element("a", word, href=f"/sheet/{target}")
        for word, target in (("previous page", number - 1), ("next page", number + 1))
        if 1 <= target <= pages
    ]
    note = f"{count} images, those that look most like text first; the order finds no text for certain, so look at all."
    picture = element("img", src=f"/sheet/{number}.png", alt=f"images of page {number}", width="100%")
    back = element("a", "back", href="/")
    return join(paragraph(note, small=True), picture, element("p", *_spaced([*links, back])))


def _spaced(links: list[Markup]) -> list[Markup | str]:
    return [part for link in links for part in (link, " ")]

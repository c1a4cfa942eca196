"""Every image on the hospital's page, most like text first: for eyes inside, before a study is approved.

The page is only on this machine and behind its door; nothing of it is stored. The order is found once for each state of
the cache, in the background; a page of images is drawn when somebody asks for it.
"""

import threading
from dataclasses import dataclass

from client.dicom.cache import Cache
from client.dicom.caches import caches, preparation
from client.dicom.contact_sheet import most_like_text_first, page_count, sheet_page
from client.installation.folder import SiteFolder
from client.status_page.background import Background
from common.errors import FedwardError
from common.trust.identity import read_secret_file
from common.web.freshness import mark_of
from common.web.markup import Markup, element, join
from common.web.shell import page, paragraph, section


@dataclass(frozen=True, eq=False)
class Sheet:
    """All images of every cache in the order in which they are shown: cache after cache.

    ``parts``: of each cache its words, itself, and the order of its images. ``damaged``: names of caches not shown.
    """

    parts: tuple[tuple[str, Cache, list[str]], ...]
    damaged: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Images in all."""
        return sum(len(order) for _, _, order in self.parts)

    @property
    def pages(self) -> int:
        """Pages in all (at least one)."""
        return max(1, sum(page_count(len(order)) for _, _, order in self.parts))

    def part(self, number: int) -> tuple[str, Cache, list[str], int] | None:
        """Return words, cache and order of page ``number`` (from 1 over all), and its number within the cache."""
        for words, cache, order in self.parts:
            if number <= page_count(len(order)):
                return words, cache, order, number
            number -= page_count(len(order))
        return None


class SheetReader:
    """Opens the caches and orders their images, again whenever one changed. Safe for several threads."""

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._sheet = Background(self._read)
        self._drawing = threading.Lock()

    def look(self) -> tuple[Sheet | None, str]:
        """Return the sheet, or None and a sentence that says why there is none (yet)."""
        paths = caches(self._folder)
        if not paths:
            return None, "No scans have been read here yet."
        files = [[*sorted((path / "segments").glob("*.index")), *sorted(path.glob("*.sealed"))] for path in paths]
        known = self._sheet.look(mark_of(*(file for of_cache in files for file in of_cache)))
        return known.value, known.trouble or "The images are being put in order; this page renews itself."

    def draw(self, number: int) -> bytes | None:
        """Return one page as a PNG; None where there is no such page."""
        sheet, _ = self.look()
        found = sheet.part(number) if sheet is not None and number >= 1 else None
        if found is None:
            return None
        _, cache, order, own_number = found
        with self._drawing:  # one at a time: a page holds twenty images
            return sheet_page(cache, order, own_number)

    def _read(self) -> Sheet:
        secret, parts, damaged = read_secret_file(self._folder.secret), [], []
        known = [preparation(self._folder, path) for path in caches(self._folder)]
        for each in known:
            try:
                cache = Cache.open(each.path, secret)
                parts.append((each.words, cache, most_like_text_first(cache)))
            except FedwardError:
                if len(known) == 1:
                    raise
                damaged.append(each.name)
        return Sheet(tuple(parts), tuple(damaged))


def sheet_html(name: str, sheet: Sheet | None, waiting: str, number: int) -> str:
    """Return the page with images ``number`` (from 1), and the way to its neighbours."""
    top = join(element("p", "Fedward site", class_="kind"), element("h1", f"{name}: every image"))
    pages = sheet.pages if sheet else 1
    number = min(max(1, number), pages)
    body = paragraph(waiting) if sheet is None else _images(sheet, number)
    main = section(f"Page {number} of {pages}", body)
    return page(f"{name}: images", top=top, main=main, footer="For eyes inside this hospital only.")


def _images(sheet: Sheet, number: int) -> Markup:
    count, pages, part = sheet.images, sheet.pages, sheet.part(number)
    links = [
        element("a", word, href=f"/sheet/{target}")
        for word, target in (("previous page", number - 1), ("next page", number + 1))
        if 1 <= target <= pages
    ]
    note = f"{count} images, those that look most like text first; the order finds no text for certain, so look at all."
    if part is not None and len(sheet.parts) > 1:
        note += f" This page is of {part[0]}."
    if sheet.damaged:
        note += f" Not shown, because it cannot be read: {', '.join(sheet.damaged)} (`fedward-site check`)."
    picture = element("img", src=f"/sheet/{number}.png", alt=f"images of page {number}", width="100%")
    back = element("a", "back", href="/")
    return join(paragraph(note, small=True), picture, element("p", *_spaced([*links, back])))


def _spaced(links: list[Markup]) -> list[Markup | str]:
    return [part for link in links for part in (link, " ")]

"""The frame both status pages share: head, style, live renewal, and the small parts a page is put together from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from starlette.responses import Response
from starlette.routing import Route

from common.web.markup import Child, Markup, element, join

REFRESH_WITHOUT_SCRIPT_S: Final = 15
RESEARCH_ONLY: Final = "Research use only; not a medical device."
_FOLDER: Final = Path(__file__).resolve().parent
_ASSETS: Final = {
    "/page.css": ("text/css", (_FOLDER / "page.css").read_bytes()),
    "/live.js": ("text/javascript", (_FOLDER / "live.js").read_bytes()),
    "/icon.svg": ("image/svg+xml", (_FOLDER / "icon.svg").read_bytes()),
}


def asset_routes() -> list[Route]:
    """Return the routes of style sheet and script."""

    def route(path: str, kind: str, content: bytes) -> Route:
        return Route(path, lambda _request: Response(content, media_type=kind), methods=["GET"])

    return [route(path, kind, content) for path, (kind, content) in _ASSETS.items()]


def page(title: str, *, top: Child, main: Child, footer: Child) -> str:
    """Return a whole HTML page. ``top`` stays, ``main`` is renewed while somebody looks."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("link", rel="icon", href="/icon.svg"),
        element("link", rel="stylesheet", href="/page.css"),
        element("script", src="/live.js", defer=True),
        element("noscript", element("meta", http_equiv="refresh", content=REFRESH_WITHOUT_SCRIPT_S)),
    )
    stale = element("span", "No answer from the page's program: what you see is old. ", id="stale", role="alert")
    foot = element("footer", stale, footer, " ", RESEARCH_ONLY)
    body = element("body", element("div", element("header", top), element("main", main), foot, class_="page"))
    return "<!doctype html>\n" + element("html", head, body, lang="en")


def tiles(*entries: tuple[Child, Child]) -> Markup:
    """Return a row of large figures, each with what it means."""
    boxes: list[Child] = [
        element("div", element("b", value), element("span", what), class_="tile") for value, what in entries
    ]
    return element("div", boxes, class_="tiles")


def section(title: str, *children: Child) -> Markup:
    """Return a titled box."""
    return element("section", element("h2", title), *children)


def table(headings: Sequence[str], rows: Sequence[Sequence[Child]], *, numbers: frozenset[int] = frozenset()) -> Markup:
    """Return a table; columns in ``numbers`` are set flush right."""

    def cell(name: str, column: int, content: Child) -> Markup:
        return element(name, content, class_="n" if column in numbers else None)

    head = element("tr", [cell("th", column, title) for column, title in enumerate(headings)])
    body: list[Child] = [element("tr", [cell("td", column, part) for column, part in enumerate(row)]) for row in rows]
    whole = element("table", element("thead", head), element("tbody", body))
    return element("div", whole, class_="scroll")


def facts(entries: Mapping[str, Child]) -> Markup:
    """Return a list of terms and what they are."""
    return element("dl", [join(element("dt", term), element("dd", value)) for term, value in entries.items()])


def pill(text: str, colour: str) -> Markup:
    """Return a short state in a frame. ``colour``: good, warn, bad, main or soft; the text alone says it too."""
    return element("span", text, class_=f"pill {colour}")


def paragraph(*children: Child, small: bool = False) -> Markup:
    """Return a paragraph."""
    return element("p", *children, class_="small" if small else None)

"""HTML that cannot be broken out of: text is escaped unless it is markup, and only functions here make markup."""

from html import escape
from typing import Final

from common.terminal import visible

_EMPTY: Final = frozenset({"meta", "link", "input", "br"})


class Markup(str):
    """Text that is HTML or SVG already. Never make one from what came from a file, a site or a request."""

    __slots__ = ()


Child = str | int | float | None | list["Child"]  # Markup is a str


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """Return ``<name ...>children</name>``; children and values are escaped, None and False attributes left out.

    A trailing ``_`` of an attribute's name is dropped (``class_``), ``_`` inside becomes ``-``.
    """
    shown = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(visible(str(value)))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inside = join(*children)
    return Markup(f"<{name}{shown}>" if name in _EMPTY else f"<{name}{shown}>{inside}</{name}>")


def join(*children: Child) -> Markup:
    """Return the children one after another, text escaped, None left out."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, list):
            parts.append(join(*child))
        elif isinstance(child, Markup):
            parts.append(child)
        elif child is not None:
            parts.append(escape(visible(str(child))))
    return Markup("".join(parts))

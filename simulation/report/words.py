"""Small pieces of HTML: escaped text, named figures, tables."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeAlias

from simulation.report.figures import Figures

Cell: TypeAlias = str


def figure(numbers: Figures, name: str, form: str = "{:.3f}") -> str:
    """Return a named number as ``<data>``: shown rounded, kept exactly, so that a test can recompute it."""
    value = numbers[name]
    return f'<data data-figure="{escape(name)}" value="{value!r}">{form.format(value)}</data>'


def interval(numbers: Figures, name: str) -> str:
    """Return "value (low to high)"."""
    return f"{figure(numbers, name)} ({figure(numbers, name + '.low')} to {figure(numbers, name + '.high')})"


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], *, numeric_from: int = 1) -> str:
    """Return a table; columns from ``numeric_from`` on are set right. Cells are HTML already."""
    style = [' class="n"' if index >= numeric_from else "" for index in range(len(head))]
    top = "".join(f"<th{kind}>{escape(title)}</th>" for kind, title in zip(style, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(style, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def pairs(rows: Iterable[tuple[str, Cell]]) -> str:
    """Return a table of two columns: what, and its value."""
    body = "".join(f'<tr><td class="key">{escape(key)}</td><td>{value}</td></tr>' for key, value in rows)
    return f'<div class="scroll"><table><tbody>{body}</tbody></table></div>'


def terms(rows: Iterable[tuple[str, str]]) -> str:
    """Return a list of definitions."""
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in rows) + "</dl>"


def legend(rows: Iterable[tuple[str, str]]) -> str:
    """Return a colour key: (style, words)."""
    return (
        '<ul class="legend">'
        + "".join(f'<li><i class="{style}"></i>{escape(words)}</li>' for style, words in rows)
        + "</ul>"
    )


def section(anchor: str, title: str, *parts: str) -> str:
    """Return a numbered part of the page."""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def drawing(chart: str, caption: str) -> str:
    """Return a chart with the sentence under it (HTML)."""
    return f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"


def amount(number_of_bytes: float) -> str:
    """Return bytes as a person reads them: 1 MB = 1 000 000 bytes."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number_of_bytes >= size:
            return f"{number_of_bytes / size:.1f} {unit}"
    return f"{number_of_bytes:.0f} B"


def byte_figure(numbers: Figures, name: str) -> str:
    """Return a named number of bytes."""
    value = numbers[name]
    return f'<data data-figure="{escape(name)}" value="{value!r}">{amount(value)}</data>'


def duration(seconds: float) -> str:
    """Return seconds as a person reads them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

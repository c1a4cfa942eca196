"""Charts as SVG text: colours are classes of the page's style sheet, so one drawing serves light, dark and print.

Every mark carries its figure's name (``data-figure``) and a tooltip (``<title>``); nothing is drawn that is not named.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from simulation.report.facts import Estimate


@dataclass(frozen=True, slots=True)
class Frame:
    """The plotting area of a chart and its two linear scales (low, high)."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: int = 640
    height: int = 300
    left: int = 56
    right: int = 16
    top: int = 14
    bottom: int = 44

    def x(self, value: float) -> float:
        """Return the horizontal place of a value, in pixels."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Return the vertical place of a value, in pixels (down is positive)."""
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a line; ``name`` is its figure, ``interval`` its 95 % interval, ``tip`` what the pointer shows."""

    name: str
    x: float
    y: float
    tip: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A named line of points; ``style`` is a class of the style sheet (see ``page.css``)."""

    title: str
    style: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of an interval chart."""

    name: str
    label: str
    style: str
    estimate: Estimate
    note: str = ""


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers within [low, high], about so many."""
    step = 10 ** math.floor(math.log10(max(high - low, 1e-12) / about))
    step *= next((factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(frame: Frame, lines: Sequence[Line], *, x_title: str, y_title: str, label: str, extra: str = "") -> str:
    """Draw lines with bands, axes and a direct label at each line's end. ``extra``: SVG laid under the lines."""
    parts = [axes(frame, x_title, y_title), extra]
    for line in lines:
        parts += [_band(frame, line), _path(frame, line), *(_dot(frame, line.style, point) for point in line.points)]
    return svg(frame.width, frame.height, parts, label)


def square_chart(
    lines: Sequence[Line], *, x_title: str, y_title: str, label: str, sizes: Sequence[Sequence[float]] = ()
) -> str:
    """Draw curves over the unit square with its diagonal; with ``sizes`` (radii in px) dots, no curves."""
    frame = Frame((0, 1), (0, 1), width=330, height=330, left=50, right=12, top=12, bottom=44)
    parts = [axes(frame, x_title, y_title)]
    parts.append(_segment((frame.x(0), frame.y(0)), (frame.x(1), frame.y(1)), "rule dashed"))
    for index, line in enumerate(lines):
        parts.append("" if sizes else _path(frame, line))
        radii = sizes[index] if sizes else [1.6] * len(line.points)
        parts += [_dot(frame, line.style, point, radius) for point, radius in zip(line.points, radii, strict=True)]
    return svg(frame.width, frame.height, parts, label)


def interval_chart(rows: Sequence[Row], *, x_title: str, label: str) -> str:
    """Draw a dot and a whisker for each row; the band of the first row runs through all of them."""
    low = min(row.estimate.low for row in rows)
    high = max(row.estimate.high for row in rows)
    span = max(high - low, 0.02)
    height = 34 * len(rows) + 60
    frame = Frame((max(0, low - span * 0.06), min(1, high + span * 0.06)), (0, 1), 760, height, left=250, right=76)
    first = rows[0].estimate
    band = (
        f'<rect class="band" x="{frame.x(first.low):.1f}" y="{frame.top}" height="{height - frame.bottom - frame.top}" '
        f'width="{frame.x(first.high) - frame.x(first.low):.1f}"/>'
    )
    parts = [axes(frame, x_title, "", y_ticks=()), band]
    parts += [_interval_row(frame, row, frame.top + 24 + 34 * index) for index, row in enumerate(rows)]
    return svg(frame.width, height, parts, label)


def attendance_chart(
    sites: Sequence[str], numbers: Sequence[int], cells: Iterable[tuple[str, int, str, str]], label: str
) -> str:
    """Draw a grid of sites by attempts; ``cells``: (site, attempt number, style, tip)."""
    row_height = 22 if len(sites) <= 12 else max(6, 264 // len(sites))
    left, width = 130, 760
    step = (width - left - 10) / max(len(numbers), 1)
    height = row_height * len(sites) + 40
    column = {number: index for index, number in enumerate(numbers)}
    row = {site: index for index, site in enumerate(sites)}
    gap = min(2.0, step * 0.15)
    parts = [
        f'<rect class="{style}" x="{left + step * column[number]:.2f}" y="{row_height * row[site] + 2}" rx="2" '
        f'width="{max(step - gap, 0.5):.2f}" height="{row_height - 3}"><title>{escape(tip)}</title></rect>'
        for site, number, style, tip in cells
    ]
    if row_height >= 11:
        parts += [_text(left - 10, row_height * (row[site] + 0.66), site, "tick end") for site in sites]
    every = max(1, math.ceil(len(numbers) / 14))
    parts += [
        _text(left + step * (index + 0.5), height - 20, str(number), "tick middle")
        for index, number in enumerate(numbers)
        if index % every == 0
    ]
    parts.append(_text((left + width) / 2, height - 3, "attempt", "axis middle"))
    return svg(width, height, parts, label)


def axes(frame: Frame, x_title: str, y_title: str, *, y_ticks: Sequence[float] | None = None) -> str:
    """Draw light grid lines with numbers, and the two titles."""
    bottom, parts = frame.height - frame.bottom, []
    for value in ticks(*frame.x_range, about=6):
        parts.append(_segment((frame.x(value), frame.top), (frame.x(value), bottom), "grid"))
        parts.append(_text(frame.x(value), bottom + 17, f"{value:g}", "tick middle"))
    for value in ticks(*frame.y_range) if y_ticks is None else y_ticks:
        parts.append(_segment((frame.left, frame.y(value)), (frame.width - frame.right, frame.y(value)), "grid"))
        parts.append(_text(frame.left - 8, frame.y(value) + 4, f"{value:g}", "tick end"))
    parts.append(_segment((frame.left, bottom), (frame.width - frame.right, bottom), "rule"))
    middle = (frame.left + frame.width - frame.right) / 2
    parts.append(_text(middle, frame.height - 6, x_title, "axis middle"))
    if y_title:
        height = (frame.top + bottom) / 2
        parts.append(
            f'<text class="axis middle" transform="translate(13 {height:.0f}) rotate(-90)">{escape(y_title)}</text>'
        )
    return "".join(parts)


def svg(width: int, height: int, parts: Iterable[str], label: str) -> str:
    """Wrap parts into a picture that scales with the page and says what it shows."""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" style="max-width:{width}px">'
        f"{''.join(parts)}</svg>"
    )


def reference_line(frame: Frame, height: float, text: str) -> str:
    """Draw a dashed horizontal line with a word on it."""
    y = frame.y(height)
    line = _segment((frame.left, y), (frame.width - frame.right, y), "rule dashed")
    return line + _text(frame.width - frame.right, y - 5, text, "tick end")


def _interval_row(frame: Frame, row: Row, y: float) -> str:
    estimate, name = row.estimate, escape(row.name)
    low, middle, high = frame.x(estimate.low), frame.x(estimate.value), frame.x(estimate.high)
    shown = f"{estimate.value:.3f}"
    tip = f"{row.label}: {shown} ({estimate.low:.3f} to {estimate.high:.3f})"
    return "".join(
        [
            f'<g class="{row.style}"><title>{escape(tip)}</title>',
            _segment((low, y), (high, y), "whisker"),
            f'<circle class="dot" data-figure="{name}" data-value="{estimate.value:.6f}" ',
            f'cx="{middle:.1f}" cy="{y:.1f}" r="6"/></g>',
            _text(frame.left - 14, y + 4, row.label, f"label end {row.style}"),
            _text(frame.width - frame.right + 12, y + 4, shown, f"label {row.style}"),
        ]
    )


def _path(frame: Frame, line: Line) -> str:
    points = " ".join(f"{frame.x(point.x):.1f},{frame.y(point.y):.1f}" for point in line.points)
    return f'<polyline class="line {line.style}" points="{points}"/>' if len(line.points) > 1 else ""


def _band(frame: Frame, line: Line) -> str:
    known = [(point.x, *point.interval) for point in line.points if point.interval]
    if len(known) < 2:
        return ""
    low, high = frame.y_range
    upper = [f"{frame.x(x):.1f},{frame.y(min(top, high)):.1f}" for x, _, top in known]
    lower = [f"{frame.x(x):.1f},{frame.y(max(bottom, low)):.1f}" for x, bottom, _ in reversed(known)]
    return f'<polygon class="shade {line.style}" points="{" ".join(upper + lower)}"/>'


def _dot(frame: Frame, style: str, point: Point, radius: float = 3.0) -> str:
    return (
        f'<circle class="dot {style}" data-figure="{escape(point.name)}" data-value="{point.y:.6f}" '
        f'cx="{frame.x(point.x):.1f}" cy="{frame.y(point.y):.1f}" r="{radius:.1f}"><title>{escape(point.tip)}</title>'
        "</circle>"
    )


def _segment(start: tuple[float, float], end: tuple[float, float], style: str) -> str:
    return f'<line class="{style}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'

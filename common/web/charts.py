"""Charts as SVG inside the page: colours are classes of the style sheet, every mark has its value as a tooltip."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.web.markup import Child, Markup, element

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 52, 16, 14, 40


@dataclass(frozen=True)
class Measured:
    """One value with its 95 % interval; ``tip``: what the pointer shows."""

    x: float
    value: float
    low: float
    high: float
    tip: str


@dataclass(frozen=True)
class Scale:
    """A linear scale from ``low`` … ``high`` to pixels ``start`` … ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value, clipped to the scale."""
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1)
        return round(self.start + share * (self.end - self.start), 1)


def score_chart(points: Sequence[Measured], *, x_most: float, x_title: str, y_title: str, hint: float | None) -> Markup:
    """Draw values with whiskers and a line through them. ``hint``: a level to compare with (chance), if any."""
    height = 300
    lows = [point.low for point in points] + ([hint] if hint is not None else [])
    low = max(0.0, math.floor(min(lows, default=0.0) * 10 - 0.01) / 10)
    across = Scale(0, max(x_most, 1), _LEFT, _WIDTH - _RIGHT)
    up = Scale(low, 1.0, height - _BOTTOM, _TOP)
    parts: list[Child] = [_grid(across, up, height), _titles(x_title, y_title, height)]
    if hint is not None:
        parts.append(_segment(_LEFT, up(hint), _WIDTH - _RIGHT, up(hint), "hint"))
    places = [(across(point.x), point) for point in points]
    if len(points) > 1:
        upper = [f"{x},{up(point.high)}" for x, point in places]
        lower = [f"{x},{up(point.low)}" for x, point in reversed(places)]
        parts.append(element("polygon", points=" ".join(upper + lower), class_="band"))
        parts.append(
            element("polyline", points=" ".join(f"{x},{up(point.value)}" for x, point in places), class_="line")
        )
    for x, point in places:
        parts.append(_segment(x, up(point.low), x, up(point.high), "whisker"))
        parts.append(element("circle", element("title", point.tip), cx=x, cy=up(point.value), r=4, class_="dot"))
    return _picture(height, y_title, parts)


def gauge(value: float, limit: float, *, planned: float | None = None, label: str) -> Markup:
    """Draw how much of a limit is used: a bar, and a mark where ``planned`` would end.

    Green below 70 % of the limit, then amber, red from 95 %: the figures beside it say the same.
    """
    width, height = 260, 22
    most = max(limit, value) or 1.0
    along = Scale(0, most, 1, width - 1)
    share = value / limit if limit > 0 else 1.0
    colour = "fill-good" if share < 0.7 else "fill-warn" if share < 0.95 else "fill-bad"
    parts: list[Child] = [
        element("title", label),
        element("rect", x=1, y=4, width=width - 2, height=14, rx=4, class_="fill-none"),
        element("rect", x=1, y=4, width=max(0.0, along(value) - 1), height=14, rx=4, class_=colour),
    ]
    if planned is not None:
        parts.append(_segment(along(planned), 1, along(planned), height - 1, "axis"))
    box = f"0 0 {width} {height}"
    return element("svg", parts, viewBox=box, width=width, height=height, role="img", aria_label=label)


def progress(done: int, planned: int, label: str) -> Markup:
    """Draw how far a thing is."""
    width = 760
    share = min(1.0, done / planned) if planned else 0.0
    parts: list[Child] = [
        element("rect", x=0, y=0, width=width, height=12, rx=6, class_="fill-none"),
        element("rect", x=0, y=0, width=round(width * share, 1), height=12, rx=6, class_="fill-main"),
    ]
    return element("svg", parts, viewBox=f"0 0 {width} 12", class_="wide", role="img", aria_label=label)


@dataclass(frozen=True)
class Cell:
    """One field of a matrix: the class that colours it, and its tooltip."""

    colour: str
    tip: str


def matrix(rows: Sequence[tuple[str, Sequence[Cell]]], columns: Sequence[str], *, title: str) -> Markup:
    """Draw rows of coloured fields with their names at the left and some column names below."""
    line, left, bottom = 26, 150, 34
    height = line * len(rows) + bottom
    step = min(34.0, (_WIDTH - left - 8) / max(1, len(columns)))
    gap = 2 if step > 6 else 0.5
    parts: list[Child] = []
    for row, (name, cells) in enumerate(rows):
        y = row * line
        parts.append(element("text", name if len(name) <= 20 else name[:19] + "…", x=0, y=y + 17, class_="value"))
        for column, cell in enumerate(cells):
            box = element("title", cell.tip)
            x = round(left + column * step, 1)
            size = {"width": round(step - gap, 1), "height": line - 6}
            parts.append(element("rect", box, x=x, y=y + 3, rx=2, class_=cell.colour, **size))
    every = max(1, math.ceil(len(columns) * 30 / (_WIDTH - left)))
    for column in range(0, len(columns), every):
        x = round(left + (column + 0.5) * step, 1)
        parts.append(element("text", columns[column], x=x, y=height - bottom + 14, text_anchor="middle"))
    parts.append(element("text", title, x=left, y=height - 3))
    return _picture(height, title, parts)


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Return what the colours mean: (class, words)."""
    items: list[Child] = []
    for colour, words in entries:
        box = element("rect", x=0, y=0, width=12, height=12, rx=2, class_=colour)
        items.append(element("li", element("svg", box, viewBox="0 0 12 12", aria_hidden="true"), words))
    return element("ul", items, class_="legend")


def _picture(height: float, label: str, parts: list[Child]) -> Markup:
    return element("svg", parts, viewBox=f"0 0 {_WIDTH} {height}", class_="wide", role="img", aria_label=label)


def _grid(across: Scale, up: Scale, height: float) -> list[Child]:
    parts: list[Child] = []
    for tick in ticks(up.low, up.high, 5):
        parts.append(_segment(_LEFT, up(tick), _WIDTH - _RIGHT, up(tick), "grid"))
        parts.append(element("text", f"{tick:.2f}", x=_LEFT - 8, y=up(tick) + 4, text_anchor="end"))
    whole = [int(tick) for tick in ticks(across.low, across.high, 8) if tick == int(tick)]
    parts.extend(element("text", n, x=across(n), y=height - _BOTTOM + 18, text_anchor="middle") for n in whole)
    parts.append(_segment(_LEFT, height - _BOTTOM, _WIDTH - _RIGHT, height - _BOTTOM, "axis"))
    return parts


def _titles(x_title: str, y_title: str, height: float) -> list[Child]:
    across = element("text", x_title, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=height - 4, text_anchor="middle")
    middle = (_TOP + height - _BOTTOM) / 2
    up = element("text", y_title, x=0, y=0, text_anchor="middle", transform=f"translate(12 {middle}) rotate(-90)")
    return [across, up]


def _segment(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=style)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers within [low, high], about so many."""
    step = 10 ** math.floor(math.log10(max(high - low, 1e-9) / about))
    step *= next((factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]

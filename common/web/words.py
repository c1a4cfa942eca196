"""Figures as people read them: durations, amounts, moments."""

import datetime as dt
import time

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    whole = max(0, round(seconds))
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def amount(size_bytes: float) -> str:
    """Return a number of bytes in a readable unit (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def moment(unix_s: float | None) -> str:
    """Return a moment in local time, with its offset; a dash for none."""
    if unix_s is None:
        return "–"
    return dt.datetime.fromtimestamp(unix_s, tz=dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def ago(unix_s: float | None) -> str:
    """Return how long ago a moment was; a dash for none."""
    return "–" if unix_s is None else f"{duration(time.time() - unix_s)} ago"


def plural(count: int, singular: str, more: str = "") -> str:
    """Return ``1 round``, ``2 rounds``."""
    return f"{count} {singular if count == 1 else more or singular + 's'}"

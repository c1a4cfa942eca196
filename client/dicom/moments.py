"""Dates and times of a header as moments that can be subtracted; what is no date or time is None.

Source: PS3.5 section 6.2 (DA, TM, DT).
"""

import re
from datetime import datetime, timedelta

DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})")
TIME = re.compile(r"(\d{2}):?(\d{2})(?::?(\d{2})(\.\d{1,6})?)?")
MOMENT = re.compile(r"(\d{8})(\d{4}(?:\d{2}(?:\.\d{1,6})?)?)([+-]\d{4})?")
ZONE = re.compile(r"([+-])(\d{2})(\d{2})")


def moment_of(date: object, time: object) -> datetime | None:
    """Return the moment of a DA and a TM value (at least hour and minute), or None."""
    found = DATE.fullmatch(_text(date)), TIME.fullmatch(_text(time))
    if found[0] is None or found[1] is None:
        return None
    year, month, day = map(int, found[0].groups())
    hour, minute, second, fraction = found[1].groups()
    try:
        whole = datetime(year, month, day, int(hour), int(minute), int(second or 0))  # noqa: DTZ001 (the file's own)
    except ValueError:
        return None
    return whole + timedelta(seconds=float(fraction or 0))


def moment(value: object, zone: object) -> datetime | None:
    """Return the moment of a DT value in the file's own time, or None.

    ``zone``: the file's TimezoneOffsetFromUTC. An offset of the value counts where the file names its own.
    """
    found = MOMENT.fullmatch(_text(value))
    if found is None:
        return None
    local = moment_of(found[1], found[2])
    own, of_file = _offset(found[3]), _offset(zone)
    if local is None or own is None or of_file is None:
        return local
    return local - own + of_file


def _offset(zone: object) -> timedelta | None:
    found = ZONE.fullmatch(_text(zone))
    if found is None:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return offset if found[1] == "+" else -offset


def _text(value: object) -> str:
    return "" if value is None else str(value).strip(" \0")

"""Times as people write and read them, in Japan or in UTC."""

from __future__ import annotations

import datetime
import re

from mamori.events.schema import JAPAN_S
from mamori.formats.problems import BadInputError, Problem

_AGE = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def japan() -> datetime.tzinfo:
    """Asia/Tokyo, or the same without a name where the image has no tzdata: there is no summer time to know about."""
    try:
        from zoneinfo import ZoneInfo

        return ZoneInfo("Asia/Tokyo")
    except (ImportError, LookupError, ValueError, OSError):
        return datetime.timezone(datetime.timedelta(seconds=JAPAN_S), "JST")


def parse_time(text: str, option: str, now_s: float, zone: datetime.tzinfo) -> float:
    """Unix seconds of `1h` (ago: m, h, d, w), a date, or a date and time (ISO 8601), in `zone` unless it names another."""
    if age := _AGE.fullmatch(text):
        return max(0.0, now_s - int(age[1]) * _UNITS_S[age[2]])
    try:
        moment = datetime.datetime.fromisoformat(text)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError, OSError):
        expected = "an age (30m, 1h, 2d, 1w), a date (2026-11-23) or a time (2026-11-23T18:30)"
        raise BadInputError([Problem("command line", option, expected, repr(text))]) from None
    return max(0.0, seconds)


def format_time(at_s: float, zone: datetime.tzinfo) -> str:
    """`2026-11-23 18:30:05`; what no calendar has is given in seconds."""
    try:
        return datetime.datetime.fromtimestamp(at_s, zone).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"@{at_s:.0f}"


def week_of(day: datetime.date) -> str:
    """`2026-W48` (ISO 8601: weeks begin on Monday)."""
    year, week, _ = day.isocalendar()
    return f"{year:04}-W{week:02}"

"""Events and statistics for people, and as JSON lines. Pure."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from mamori.events.escape import padded, printable, printable_json, width
from mamori.events.query import Span, StoredEvent, StoredSum
from mamori.events.record import Action
from mamori.events.times import format_time, week_of

MIN_TERMINAL_COLUMNS = 15
"""An IPv4 address: so that the lines of `--follow`, which come one by one, are aligned too."""

_COLOURS = {Action.BLOCKED.value: "31", Action.UNSEEN.value: "33", Action.REPORTED.value: "36"}
"""SGR colours (ECMA-48, 8.3.117) of actions that people look for."""

_ACTION_COLUMNS, _FUNCTION_COLUMNS = 9, 15

_NO_TIME = "clock unknown"
_INDENT = "    "


@dataclass(frozen=True)
class Statistic:
    """Counts of one hour, day, week or month. `since_s` is its first second, 0 if the clock was wrong."""

    period: str
    since_s: int
    function: str
    unit: str
    category: str
    scanned: int
    blocked: int


def render_events(
    events: Sequence[StoredEvent], zone: datetime.tzinfo, *, colour: bool, terminal_columns: int | None = None
) -> str:
    """A line for each: when, what was done, by which function, whose computer, about what. On a terminal that is narrower than the
    line, what it is about stands in lines of its own below."""
    names = [printable(event.terminal_name or event.terminal_address or event.terminal_mac or "-") for event in events]
    columns = max([MIN_TERMINAL_COLUMNS, *map(width, names)])
    lines = []
    for event, name in zip(events, names, strict=True):
        # A time that is wrong is better than none: it tells how events of one start lie to each other.
        time = f"{format_time(event.at_s, zone)}{' ' if event.clock_ok else '?'}"
        about = _about(event)
        head_columns = len(time) + _ACTION_COLUMNS + _FUNCTION_COLUMNS + columns + 3
        action = f"{event.action:<{_ACTION_COLUMNS}}"
        if colour and event.action in _COLOURS:
            action = f"\x1b[{_COLOURS[event.action]}m{action}\x1b[0m"
        line = f"{time} {action} {event.function:<{_FUNCTION_COLUMNS}} {padded(name, columns)}"
        if terminal_columns is None or head_columns + 2 + width("  ".join(about)) <= terminal_columns:
            lines.append(f"{line}  {'  '.join(about)}\n")
        else:
            lines.append(f"{line.rstrip()}\n{_folded(about, terminal_columns)}")
    return "".join(lines)


def render_events_json(events: Iterable[StoredEvent], zone: datetime.tzinfo) -> str:
    """One JSON object for each, on a line of its own; `at` is the time in the zone."""
    return "".join(_json_line({"at": format_time(event.at_s, zone), **asdict(event)}) for event in events)


def sum_up(sums: Iterable[StoredSum], span: Span, zone: datetime.tzinfo) -> list[Statistic]:
    """The counts of each span of time, in the order in which they came. Days are days in Japan, whatever the zone: they were
    summed up as such."""
    totals: dict[tuple[str, str, str, str], list[int]] = {}
    for part in sums:
        total = totals.setdefault((_period(part.at_s, span, zone), part.function, part.unit, part.category), [part.at_s, 0, 0])
        total[1] += part.scanned
        total[2] += part.blocked
    return [
        Statistic(period, since_s, function, unit, category, scanned, blocked)
        for (period, function, unit, category), (since_s, scanned, blocked) in totals.items()
    ]


def render_statistics(statistics: Sequence[Statistic]) -> str:
    """A table with a heading; a period is named once."""
    rows = [("period", "function", "of", "category", "scanned", "blocked")]
    last = ""
    for line in statistics:
        period = line.period if line.period != last else ""
        last = line.period
        texts = (period, line.function, line.unit, line.category)
        rows.append((*map(printable, texts), f"{line.scanned:,}", f"{line.blocked:,}"))  # type: ignore[arg-type]
    columns = [max(width(row[column]) for row in rows) for column in range(6)]
    return "".join(
        "  ".join(padded(cell, columns[at]) if at < 4 else cell.rjust(columns[at]) for at, cell in enumerate(row)) + "\n"
        for row in rows
    )


def render_statistics_json(statistics: Iterable[Statistic]) -> str:
    """One JSON object for each, on a line of its own."""
    return "".join(_json_line(asdict(line)) for line in statistics)


def _folded(parts: Iterable[str], columns: int) -> str:
    """The parts in indented lines, as many in each as fit. One that is longer than a line is left for the terminal to break: what
    is copied from there is whole."""
    lines: list[str] = []
    for part in parts:
        if lines and width(lines[-1]) + 2 + width(part) <= columns:
            lines[-1] += f"  {part}"
        else:
            lines.append(f"{_INDENT}{part}")
    return "".join(f"{line}\n" for line in lines)


def _about(event: StoredEvent) -> list[str]:
    parts = [printable(event.subject)]
    if event.times > 1:
        parts.append(f"×{event.times}")
    if found_by := ": ".join(filter(None, (event.list_name, event.category))):
        parts.append(f"[{printable(found_by)}]")
    if event.peer:
        parts.append(printable(f"{event.protocol} {'from' if event.heading == 'inbound' else 'to'} {event.peer}".strip()))
    if event.detail:
        parts.append(f"({printable(event.detail)})")
    return parts


def _period(at_s: int, span: Span, zone: datetime.tzinfo) -> str:
    if at_s == 0:
        return _NO_TIME
    if span is Span.HOUR:
        return format_time(at_s, zone)[:13] + ":00"
    from mamori.events.schema import JAPAN_S

    day = (datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=at_s + JAPAN_S)).date()
    return {Span.DAY: str(day), Span.WEEK: week_of(day), Span.MONTH: str(day)[:7]}[span]


def _json_line(value: object) -> str:
    return f"{printable_json(json.dumps(value, ensure_ascii=False))}\n"

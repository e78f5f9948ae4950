"""What has come in and is not on the disk yet, merged: repeated events are one row, counts are sums. Pure, and bounded.

A batch becomes one transaction. When the disk cannot take it, it stays and grows, so it has a limit; sums go on even then.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from mamori.events.record import Count, Event, Function, Record, TerminalSeen

REPEAT_S = 60.0
"""The same event within a minute of its first is one row: an outbreak, or a browser that tries again and again, is one piece of
news, and its number says how bad it is."""

MAX_ROWS = 5000
"""Rows and sums of one batch, for a disk that is full or not there: a day of a busy office. 45 MB if somebody makes every text as
long as it may be, of characters that Python keeps in four bytes; the unit's MemoryMax has room for that and MAX_RECENT."""

MAX_RECENT = 2000
"""Rows that a repetition is looked for in. More than this in a minute is a flood of different events, each a row."""

CLOCK_TOLERANCE_S = 86_400.0
"""An event's time may be so far ahead of the writer's. More is a clock that jumped in between, or a worker that makes it up."""

MINUTE_S = 60

NO_TIME = 0
"""The roll-ups' time of counts whose clock was wrong."""

_Key = tuple[Function, str, str, str, str, str, str]
_Sum = tuple[Function, str, str, str, str, int]

SOURCES = ("netbios", "mdns", "dhcp")
"""Who tells a terminal's name, the best last: NetBIOS cuts and capitals it; over mDNS some devices tell a random one."""


@dataclass(slots=True, eq=False)
class Row:
    """An event as it will stand in the table. `rowid` is None until it does."""

    event: Event
    is_clock_good: bool
    last_s: float
    times: int = 1
    rowid: int | None = None


@dataclass(slots=True)
class Sum:
    """How many were looked at within a minute, and how many of them stopped."""

    scanned: int = 0
    blocked: int = 0


@dataclass(slots=True)
class Batch:
    """`rows` are new or were repeated since the last transaction. A key of `sums` ends with the minute's first second."""

    rows: dict[int, Row] = field(default_factory=dict)
    sums: dict[_Sum, Sum] = field(default_factory=dict)
    names: dict[str, TerminalSeen] = field(default_factory=dict)
    records: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.rows) + len(self.sums) + len(self.names) >= MAX_ROWS


class Merger:
    """Makes batches of records. `build_s` is when this release was built: a clock that says less is wrong."""

    def __init__(self, build_s: float) -> None:
        self._build_s = build_s
        self._recent: OrderedDict[_Key, Row] = OrderedDict()
        self.batch = Batch()
        self.lost = 0
        """Events and names for which there was no room."""

    def add(self, record: Record, now_s: float) -> None:
        """`now_s` is the writer's wall clock."""
        self.batch.records += 1
        match record:
            case Event():
                self._add_event(record, self._is_clock_good(record.at_s, now_s))
            case Count():
                self._add_count(record, self._is_clock_good(record.at_s, now_s))
            case TerminalSeen():
                self._add_name(record if self._is_clock_good(record.at_s, now_s) else replace(record, at_s=NO_TIME))

    def add_always(self, event: Event, now_s: float) -> None:
        """Add an event of the writer's own, for which there is always room: there is one for each thing that goes wrong."""
        self.batch.records += 1
        row = Row(event, self._is_clock_good(event.at_s, now_s), event.at_s)
        self.batch.rows[id(row)] = row

    def take(self) -> Batch:
        """The batch, to be written; the next one begins. Rows stay known, so that repetitions find them."""
        batch, self.batch = self.batch, Batch()
        return batch

    def put_back(self, batch: Batch) -> None:
        """It could not be written, and nothing was added since."""
        self.batch = batch

    def forget(self) -> None:
        """The database is another one: no row stands in it."""
        self._recent.clear()
        for row in self.batch.rows.values():
            row.rowid = None

    def _is_clock_good(self, at_s: float, now_s: float) -> bool:
        return self._build_s <= at_s <= now_s + CLOCK_TOLERANCE_S

    def _add_event(self, event: Event, is_clock_good: bool) -> None:
        terminal = event.terminal_mac or event.terminal
        kind = event.function, event.action.value, event.heading.value
        key = (*kind, terminal, event.protocol, event.subject, event.list_name)
        row = self._recent.get(key)
        if row and abs(event.at_s - row.event.at_s) < REPEAT_S:
            row.times += 1
            row.last_s = max(row.last_s, event.at_s)
        elif self.batch.is_full:
            self.lost += 1
            return
        else:
            row = self._recent[key] = Row(event, is_clock_good, event.at_s)
            if len(self._recent) > MAX_RECENT:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        # By identity: the same key has another row each minute. One that is repeated is in the dictionary, so it lives.
        self.batch.rows.setdefault(id(row), row)

    def _add_count(self, count: Count, is_clock_good: bool) -> None:
        minute = int(count.at_s // MINUTE_S * MINUTE_S) if is_clock_good else NO_TIME
        key = (count.function, count.unit, count.terminal_mac, count.terminal, count.category, minute)
        if key not in self.batch.sums and self.batch.is_full:
            # Nothing that was counted is lost, only whose it was. These keys are few: functions times units.
            key = (count.function, count.unit, "", "", "", minute)
            if key not in self.batch.sums and len(self.batch.sums) > 2 * MAX_ROWS:
                key = (count.function, "", "", "", "", NO_TIME)
        sum_ = self.batch.sums.setdefault(key, Sum())
        sum_.scanned += count.scanned
        sum_.blocked += count.blocked

    def _add_name(self, seen: TerminalSeen) -> None:
        if not seen.mac:
            return
        known = self.batch.names.get(seen.mac)
        if known is None and self.batch.is_full:
            self.lost += 1
        elif known is None or is_better(seen.source, known.source):
            self.batch.names[seen.mac] = seen


def is_better(source: str, than: str) -> bool:
    """Whether a name from `source` replaces one from `than`: from the same, or from one that tells better names."""
    return (SOURCES.index(source) if source in SOURCES else -1) >= (SOURCES.index(than) if than in SOURCES else -1)

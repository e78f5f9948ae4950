"""Reads the database while the writer writes it: a snapshot for each question, no lock that the writer would wait for."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mamori.events.record import MAX_SUBJECT_CHARACTERS, Action, Function
from mamori.events.schema import VERSION, NewerDatabaseError, read_version
from mamori.events.wire import MAX_WORD_CHARACTERS, storable
from mamori.formats.problems import MamoriError

BUSY_S = 5.0


@dataclass(frozen=True)
class EventQuery:
    """Which events; what is None is any. Times are Unix seconds, from `since_s` on and before `until_s`. `terminal` is a MAC
    address, an IP address or a name, `search` a part of what an event says. `after` is an id: only later rows."""

    since_s: float | None = None
    until_s: float | None = None
    function: Function | None = None
    action: Action | None = None
    terminal: str = ""
    search: str = ""
    after: int = 0


@dataclass(frozen=True)
class StoredEvent:
    """A row of `events`; `terminal_name` is what the computer is called today. Fields as in schema and record."""

    id: int
    at_s: float
    last_s: float
    clock_ok: bool
    times: int
    function: str
    action: str
    heading: str
    terminal_mac: str
    terminal_address: str
    terminal_name: str
    peer: str
    peer_port: int
    protocol: str
    subject: str
    list_name: str
    category: str
    detail: str


class Span(Enum):
    """What statistics are summed up by: the table that has the finest part of it."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True)
class StoredSum:
    """Counts of one hour or day; `at_s` is its first second, 0 if the clock was wrong."""

    at_s: int
    function: str
    unit: str
    category: str
    scanned: int
    blocked: int


_COLUMNS = """
    e.id, e.at_s, e.last_s, e.clock_ok, e.times, e.function, e.action, e.heading, e.terminal_mac, e.terminal_address,
    coalesce(t.name, ''), e.peer, e.peer_port, e.protocol, e.subject, e.list_name, e.category, e.detail
"""
_SEARCHED = ("e.subject", "e.detail", "e.peer", "e.list_name", "e.category", "e.protocol", "t.name")
_MAC = re.compile(r"[0-9a-f]{2}([:-][0-9a-f]{2}){5}", re.IGNORECASE)


@contextlib.contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, read-only. MamoriError if there is none, or none that this release can read."""
    if not path.exists():
        raise MamoriError(f"{path}: No such file or directory", "mamori-events.service makes it when it starts")
    try:
        connection = _connect(path)
    except sqlite3.Error as error:
        raise MamoriError(f"{path}: {error}") from None
    try:
        version = read_version(connection)
        if version > VERSION:
            raise NewerDatabaseError(path, version, VERSION)
        if version < VERSION:
            raise MamoriError(
                f"{path}: version: expected {VERSION}, got {version}", "mamori-events.service brings it up to date when it starts"
            )
        yield connection
    except sqlite3.Error as error:
        raise MamoriError(f"{path}: {error}") from None
    finally:
        connection.close()


def read_events(connection: sqlite3.Connection, query: EventQuery, limit: int) -> list[StoredEvent]:
    """The newest `limit` events of those asked for, the oldest of them first."""
    where, values = _conditions(query)
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM events e LEFT JOIN terminals t ON t.id = e.terminal WHERE {where} ORDER BY e.id DESC LIMIT ?",  # noqa: S608 - values are bound
        (*values, limit),
    ).fetchall()
    return [_stored(list(row)) for row in reversed(rows)]


def read_sums(connection: sqlite3.Connection, span: Span, since_s: float, until_s: float, terminal: str = "") -> list[StoredSum]:
    """Sums of each hour (for Span.HOUR) or day, over all terminals or one, in order of time. Those without a time come first,
    if `since_s` is 0."""
    table = "hours" if span is Span.HOUR else "days"
    where, values = _terminal_condition(terminal, "") if terminal else ("1", [])
    rows = connection.execute(
        f"""
        SELECT at_s, function, unit, category, sum(scanned), sum(blocked) FROM {table} LEFT JOIN terminals t ON t.id = terminal
        WHERE at_s >= ? AND at_s < ? AND {where} GROUP BY at_s, function, unit, category ORDER BY at_s, function, unit, category
        """,  # noqa: S608 - values are bound
        (since_s, until_s, *values),
    )
    return [StoredSum(*row) for row in rows]


def _stored(row: list[Any]) -> StoredEvent:
    row[3] = bool(row[3])
    return StoredEvent(*row)


def _connect(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_S)
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        # A WAL database needs files beside it, which a read-only file system cannot get. Without a WAL, the file is all there is.
        if path.with_name(f"{path.name}-wal").exists():
            raise
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True)
    return connection


def _conditions(query: EventQuery) -> tuple[str, list[object]]:
    parts: list[str] = ["e.id > ?"]
    values: list[object] = [query.after]
    # A row whose clock was wrong belongs to the time after the last row before it whose clock was good.
    if query.since_s is not None:
        parts.append(
            "((e.clock_ok AND e.last_s >= ?) OR (NOT e.clock_ok AND e.id > "
            "(SELECT coalesce(max(id), 0) FROM events WHERE clock_ok AND at_s < ?)))"
        )
        values += [query.since_s] * 2
    if query.until_s is not None:
        parts.append(
            "((e.clock_ok AND e.at_s < ?) OR (NOT e.clock_ok AND e.id < "
            "(SELECT coalesce(min(id), 9e18) FROM events WHERE clock_ok AND at_s >= ?)))"
        )
        values += [query.until_s] * 2
    if query.function:
        parts.append("e.function = ?")
        values.append(query.function.value)
    if query.action:
        parts.append("e.action = ?")
        values.append(query.action.value)
    if query.terminal:
        condition, more = _terminal_condition(query.terminal, "e.")
        parts.append(condition)
        values += more
    if query.search:
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", storable(query.search, MAX_SUBJECT_CHARACTERS)) + "%"
        parts.append(f"({' OR '.join(f'{column} LIKE ? ESCAPE char(92)' for column in _SEARCHED)})")
        values += [pattern] * len(_SEARCHED)
    return " AND ".join(parts), values


def _terminal_condition(terminal: str, events: str) -> tuple[str, list[object]]:
    """`events` is the prefix of the events' columns, "" for tables without addresses of their own."""
    # An argument that is no UTF-8 comes with lone surrogates.
    terminal = storable(terminal, MAX_WORD_CHARACTERS)
    if _MAC.fullmatch(terminal):
        mac = terminal.lower().replace("-", ":")
        return (f"{events}terminal_mac = ?", [mac]) if events else ("t.mac = ?", [mac])
    try:
        address = str(ipaddress.ip_address(terminal))
    except ValueError:
        return "t.name = ? COLLATE NOCASE", [terminal]
    return (f"({events}terminal_address = ? OR t.address = ?)", [address] * 2) if events else ("t.address = ?", [address])

"""The database: tables, versions, and how one version becomes the next.

events      in the order in which they came: `id`, because the clock may have been wrong (`clock_ok` 0) or have jumped. `times` is
            how often within a minute, `last_s` the last of them. Addresses are those of that moment
terminals   the computers of the office, by MAC, or by address where no MAC is known: `key` is either
minutes     sums; `at_s` is the first second of the span, 0 if the clock was wrong. `terminal` is terminals.id; 0, or one that
hours       is no longer there, is all others. Days begin at midnight in Japan
days
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from mamori.formats.problems import MamoriError

JAPAN_S = 9 * 3600
"""Japan is this far ahead of UTC, without summer time since 1951. A day of the roll-ups is the office's day."""

HOUR_S, DAY_S = 3600, 86_400

NO_TERMINAL = 0

_ROLLUP = """
CREATE TABLE {name} (
    at_s INTEGER NOT NULL, function TEXT NOT NULL, unit TEXT NOT NULL, terminal INTEGER NOT NULL, category TEXT NOT NULL,
    scanned INTEGER NOT NULL, blocked INTEGER NOT NULL,
    PRIMARY KEY (at_s, function, unit, terminal, category)
) WITHOUT ROWID
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, last_s REAL NOT NULL, clock_ok INTEGER NOT NULL,
            times INTEGER NOT NULL, function TEXT NOT NULL, action TEXT NOT NULL, heading TEXT NOT NULL,
            terminal INTEGER NOT NULL, terminal_mac TEXT NOT NULL, terminal_address TEXT NOT NULL,
            peer TEXT NOT NULL, peer_port INTEGER NOT NULL, protocol TEXT NOT NULL, subject TEXT NOT NULL,
            list_name TEXT NOT NULL, category TEXT NOT NULL, detail TEXT NOT NULL
        )
        """,
        "CREATE INDEX events_at_s ON events (at_s)",
        """
        CREATE TABLE terminals (
            id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, mac TEXT NOT NULL, address TEXT NOT NULL,
            name TEXT NOT NULL, source TEXT NOT NULL, first_s REAL NOT NULL, last_s REAL NOT NULL
        )
        """,
        _ROLLUP.format(name="minutes"),
        _ROLLUP.format(name="hours"),
        _ROLLUP.format(name="days"),
    ),
)
"""From each version to the next, beginning with an empty file. What has been released is never changed."""

VERSION = len(MIGRATIONS)


class NewerDatabaseError(MamoriError):
    """A newer release has written this database."""

    def __init__(self, path: Path, version: int, known: int) -> None:
        self.version = version
        super().__init__(
            f"{path}: version: expected at most {known}, got {version}", "a newer release wrote it; this one cannot read it"
        )


def read_version(connection: sqlite3.Connection) -> int:
    """Which of MIGRATIONS came last; 0 for an empty file."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Bring the database to the newest version, one transaction for each step. NewerDatabaseError if it is newer."""
    version = read_version(connection)
    if version > len(migrations):
        raise NewerDatabaseError(path, version, len(migrations))
    for number, statements in enumerate(migrations[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def hour_of(at_s: int) -> int:
    """The first second of the hour; 0, no time, stays 0."""
    return at_s // HOUR_S * HOUR_S


def day_of(at_s: int) -> int:
    """The first second of the day in Japan; 0, no time, stays 0."""
    return (at_s + JAPAN_S) // DAY_S * DAY_S - JAPAN_S if at_s else 0

"""The database as its one writer has it: one transaction for each batch, old rows dropped in small steps.

WAL with synchronous=NORMAL: a power cut loses at most the transactions since the last checkpoint, never half of one, and
nothing that stood before (sqlite.org/wal.html, /pragma.html#pragma_synchronous). Any sqlite3.Error leaves the store unusable:
close it, and open another.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from mamori.events.batch import NO_TIME, Batch, Row
from mamori.events.retention import Cutoffs, expired_up_to, plan_size
from mamori.events.schema import day_of, hour_of, migrate, read_version
from mamori.events.terminals import Terminals

PRUNE_ROWS = 1000
"""Events dropped in one step: twice as many as one batch brings, so pruning keeps up, and done in some milliseconds."""

VACUUM_PAGES = 1024
"""Pages given back to the file system in one step: 4 MB."""

BUSY_S = 2.0
"""Patience with somebody else's write lock. Nobody but the writer should have one."""

_JOURNAL_BYTES = 8 * 1024 * 1024
"""What stays of the WAL file after a checkpoint; a long reader can make it larger for a while."""

_CORRUPT, _NO_DATABASE = 11, 26
"""SQLITE_CORRUPT and SQLITE_NOTADB (sqlite.org/rescode.html)."""

_INSERT_EVENT = "INSERT INTO events VALUES (NULL" + ", ?" * 17 + ")"
_REPEAT_EVENT = "UPDATE events SET times = ?, last_s = ? WHERE id = ?"
_ADD_SUM = """
INSERT INTO {} VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    scanned = scanned + excluded.scanned, blocked = blocked + excluded.blocked
"""


class DamagedError(Exception):
    """The file is no database, or its parts contradict each other."""


def is_damage(error: Exception) -> bool:
    """Whether the error says that the database is damaged, and not that it cannot be written just now."""
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, DamagedError) or (isinstance(error, sqlite3.Error) and code & 0xFF in (_CORRUPT, _NO_DATABASE))


def set_aside(path: Path, word: str) -> Path:
    """Rename the database to `NAME.word`, in the place of an earlier one, and make way for a new one. The new name."""
    aside = path.with_name(f"{path.name}.{word}")
    for end in ("-wal", "-shm"):
        aside.with_name(aside.name + end).unlink(missing_ok=True)
    path.replace(aside)
    with contextlib.suppress(FileNotFoundError):
        path.with_name(f"{path.name}-wal").replace(aside.with_name(f"{aside.name}-wal"))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    return aside


class Store:
    """An open database. `check` looks through the whole file first: some seconds for the largest."""

    def __init__(self, path: Path, *, check: bool) -> None:
        self._path = path
        path.parent.mkdir(exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            self._set_up(check)
            self._terminals = Terminals(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the database; its WAL becomes part of it if that can be done."""
        self._connection.close()

    def write(self, batch: Batch) -> None:
        """All of the batch in one transaction, or none of it."""
        numbers: list[tuple[Row, int]] = []
        with self._transaction():
            for seen in batch.names.values():
                self._terminals.name(seen)
            for row in batch.rows.values():
                if row.rowid is None or not self._repeat(row):
                    numbers.append((row, self._insert(row)))
            self._add_sums(batch)
        for row, number in numbers:
            row.rowid = number

    def prune(self, cutoffs: Cutoffs | None, max_bytes: int | None = None) -> bool:
        """One step of dropping what is too old (None: nothing is) or too much. Whether another step is needed."""
        max_bytes = self.max_bytes() if max_bytes is None else max_bytes
        with self._transaction():
            more = cutoffs is not None and self._prune_age(cutoffs)
            if self.used_bytes() > max_bytes:
                more |= self._prune_size()
        # The pragma gives a row without columns for each page, of which `execute` would take the first, and no page more.
        self._connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        return more

    def used_bytes(self) -> int:
        """What the database holds, without pages that are free to be used again."""
        pages, free, size = (self._number(f"PRAGMA {name}") for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def max_bytes(self) -> int:
        """What it may hold on this partition."""
        disk = os.statvfs(self._path.parent)
        return plan_size(disk.f_blocks * disk.f_frsize)

    def _set_up(self, check: bool) -> None:
        execute = self._connection.execute
        # Before the first table, or it has no effect.
        execute("PRAGMA auto_vacuum = INCREMENTAL")
        if (mode := execute("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
            raise sqlite3.OperationalError(f"journal mode {mode}")
        execute("PRAGMA synchronous = NORMAL")
        execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        if check and (said := execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise DamagedError(str(said).partition("\n")[0])
        version = read_version(self._connection)
        migrate(self._connection, self._path)
        if version != read_version(self._connection):
            # From now on the file alone is a database of this version, whatever becomes of the WAL.
            execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _insert(self, row: Row) -> int:
        event = row.event
        terminal = self._terminals.find(event.terminal_mac, event.terminal, row.last_s if row.is_clock_good else NO_TIME)
        values = (
            *(event.at_s, row.last_s, row.is_clock_good, row.times),
            *(event.function.value, event.action.value, event.heading.value),
            *(terminal, event.terminal_mac, event.terminal, event.peer, event.peer_port, event.protocol),
            *(event.subject, event.list_name, event.category, event.detail),
        )
        return self._connection.execute(_INSERT_EVENT, values).lastrowid or 0

    def _repeat(self, row: Row) -> bool:
        """Whether the row was still there."""
        return self._connection.execute(_REPEAT_EVENT, (row.times, row.last_s, row.rowid)).rowcount > 0

    def _add_sums(self, batch: Batch) -> None:
        rows = []
        for (function, unit, mac, address, category, minute), sum_ in batch.sums.items():
            terminal = self._terminals.find(mac, address, minute)
            rows.append((minute, function.value, unit, terminal, category, sum_.scanned, sum_.blocked))
        for table, span in (("minutes", int), ("hours", hour_of), ("days", day_of)):
            self._connection.executemany(_ADD_SUM.format(table), ((span(row[0]), *row[1:]) for row in rows))

    def _prune_age(self, cutoffs: Cutoffs) -> bool:
        more = False
        oldest = self._connection.execute("SELECT id, at_s, clock_ok FROM events ORDER BY id LIMIT ?", (PRUNE_ROWS,))
        last = expired_up_to(oldest, cutoffs.events_s)
        if last is not None:
            more = self._connection.execute("DELETE FROM events WHERE id <= ?", (last,)).rowcount == PRUNE_ROWS
        for table, cutoff_s in (("minutes", cutoffs.minutes_s), ("hours", cutoffs.hours_s), ("days", cutoffs.days_s)):
            more |= self._drop_oldest(table, cutoff_s)
        return more

    def _prune_size(self) -> bool:
        """The oldest events; when there are none, sums, the finest first."""
        delete = "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT ?)"
        if self._connection.execute(delete, (PRUNE_ROWS,)).rowcount:
            return True
        return any(self._drop_oldest(table, float("inf")) for table in ("minutes", "hours", "days"))

    def _drop_oldest(self, table: str, cutoff_s: float) -> bool:
        """Drop one span of time if it is older. Sums without a time stay: there is one span of them."""
        (at_s,) = self._connection.execute(f"SELECT min(at_s) FROM {table} WHERE at_s > 0").fetchone()  # noqa: S608 - ours
        if at_s is None or at_s >= cutoff_s:
            return False
        self._connection.execute(f"DELETE FROM {table} WHERE at_s = ?", (at_s,))  # noqa: S608
        return True

    def _number(self, pragma: str) -> int:
        (number,) = self._connection.execute(pragma).fetchone()
        return int(number)

"""The writer without its socket: datagrams in, transactions out, whatever state the disk is in.

    writer.receive(datagram, clocks)
    writer.on_timer(clocks)         # when next_deadline() has come

A disk that is full, read-only or not there is no reason to end: the batch stays in memory, bounded, and is tried again. A damaged
database, or one of a newer release (this one is what a failed update fell back to), is set aside, and a new one begun with
an event that says so. Each kind of trouble is logged when it begins and when it is over.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mamori.events.batch import Merger
from mamori.events.record import own_event
from mamori.events.retention import ClockWatch, plan_cutoffs
from mamori.events.schema import NewerDatabaseError
from mamori.events.sender import lost_records
from mamori.events.store import Store, is_damage, set_aside
from mamori.events.wire import WireError, parse_datagram

COMMIT_EVERY_S = 1.0
"""What a power cut may cost, and how late the portal is."""

COMMIT_RECORDS = 500
"""So many are written at once: more would make other readers of the socket wait longer, without being cheaper for each."""

RETRY_EVERY_S = 5.0
"""How often a disk that could not be written is tried."""

PRUNE_EVERY_S = 60.0
PRUNE_AGAIN_S = 0.02
"""Between two steps of pruning, records are taken in."""

REFUSALS_EVERY_S = 60.0
"""Records that are none are logged at most so often."""

DATABASE_REPLACED = "database-replaced"
"""The category of the event that says that older events are no longer here."""

DISK_TROUBLE = "disk-trouble"
"""Of the event that says, once it is over, for how long and why events could not be written."""

WRITER_KILLED = "writer-killed"
"""Of the event that says that the writer before this one did not end in order."""

_BUGS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.InterfaceError)
"""What SQLite says of wrong statements and values, and never of a disk."""

ERROR, WARNING, NOTICE = 3, 4, 5
"""Levels of syslog(3)."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Both clocks at one moment: `now` only goes forward, `wall_s` is Unix time and may be wrong or jump."""

    now: float
    wall_s: float


class Writer:
    """See the module. `build_s` is when this release was built, `log` takes a level and a line."""

    def __init__(self, path: Path, build_s: float, log: Callable[[int, str], None], clocks: Clocks) -> None:
        self._path = path
        self._build_s = build_s
        self._log = log
        self._merger = Merger(build_s)
        self._watch = ClockWatch(clocks.wall_s - clocks.now, clocks.now)
        self._store: Store | None = None
        self._trouble = ""
        self._trouble_since: float | None = None
        self._damage = ""
        self._is_checked = False
        self._commit_at = clocks.now
        self._prune_at = clocks.now
        self._refused = 0
        self._refusals_at = -math.inf
        self.on_timer(clocks)

    @property
    def is_writing(self) -> bool:
        """Whether the disk took what it was last given."""
        return not self._trouble

    def receive(self, datagram: bytes, clocks: Clocks) -> None:
        """One datagram of a sender."""
        try:
            parsed = parse_datagram(datagram)
        except WireError as error:
            self._refuse(1, str(error), clocks)
            return
        if parsed.refusals:
            self._refuse(len(parsed.refusals), parsed.refusals[0], clocks)
        if not parsed.records:
            return
        if not self._merger.batch.records and not self._trouble:
            self._commit_at = clocks.now + COMMIT_EVERY_S
        for record in parsed.records:
            self._merger.add(record, clocks.wall_s)
        if self._merger.batch.records >= COMMIT_RECORDS and not self._trouble:
            self._commit(clocks)

    def next_deadline(self) -> float:
        """When `on_timer` has something to do, in monotonic seconds."""
        commit_at = self._commit_at if self._merger.batch.records or self._trouble else math.inf
        return min(commit_at, self._prune_at)

    def on_timer(self, clocks: Clocks) -> None:
        """Write, try again or prune, whatever is due."""
        if clocks.now >= self._commit_at and (self._store is None or self._merger.batch.records):
            self._commit(clocks)
        if clocks.now >= self._prune_at:
            self._watch = self._watch.look(clocks.wall_s, clocks.now)
            self._prune_at = clocks.now + PRUNE_EVERY_S
            self._prune(clocks)

    def close(self, clocks: Clocks) -> None:
        """Write what is left, and close the database."""
        if self._merger.batch.records:
            self._commit(clocks)
        if self._store:
            self._store.close()
            self._store = None

    def _commit(self, clocks: Clocks) -> None:
        try:
            store = self._store = self._store or self._open(clocks)
            self._report_loss(clocks)
            batch = self._merger.take()
            try:
                store.write(batch)
            except BaseException:
                self._merger.put_back(batch)
                raise
            if store.used_bytes() > store.max_bytes():
                self._prune_at = clocks.now
        except (sqlite3.Error, OSError) as error:
            self._fail(error, clocks)
            return
        self._commit_at = clocks.now + COMMIT_EVERY_S
        if self._trouble:
            self._log(NOTICE, "events are written again")
            if self._trouble_since is not None:
                subject = f"for {clocks.now - self._trouble_since:.0f} s events could not be written"
                self._merger.add_always(own_event(clocks.wall_s, DISK_TROUBLE, subject, self._trouble), clocks.wall_s)
            self._trouble, self._trouble_since = "", None

    def _report_loss(self, clocks: Clocks) -> None:
        """Once the database is open again: what the memory had no room for. It comes before what is written with it."""
        lost, self._merger.lost = self._merger.lost, 0
        if lost:
            self._merger.add_always(
                lost_records(clocks.wall_s, lost, f"the disk could not be written: {self._trouble}"), clocks.wall_s
            )

    def _prune(self, clocks: Clocks) -> None:
        if self._store is None:
            return
        is_settled = self._watch.is_settled(clocks.wall_s, clocks.now, self._build_s)
        try:
            if self._store.prune(plan_cutoffs(clocks.wall_s) if is_settled else None):
                self._prune_at = clocks.now + PRUNE_AGAIN_S
        except (sqlite3.Error, OSError) as error:
            self._fail(error, clocks)

    def _open(self, clocks: Clocks) -> Store:
        """The database, or a new one if that is of no use. sqlite3.Error, OSError if neither can be had now."""
        if self._damage:
            # It showed only when something was written: a look through the file need not find it.
            return self._replace("damaged", self._damage, clocks)
        # SQLite deletes this file when the last one who has the database open closes it.
        was_left = self._path.with_name(f"{self._path.name}-wal").exists()
        try:
            store = Store(self._path, check=not self._is_checked)
        except NewerDatabaseError as error:
            return self._replace(f"newer-{error.version}", str(error).partition("\n")[0], clocks)
        except Exception as error:
            if not is_damage(error):
                raise
            return self._replace("damaged", str(error), clocks)
        if was_left and not self._is_checked:
            subject = "the writer of events was killed, or the power went"
            self._merger.add_always(own_event(clocks.wall_s, WRITER_KILLED, subject, ""), clocks.wall_s)
        self._is_checked = True
        return store

    def _replace(self, word: str, reason: str, clocks: Clocks) -> Store:
        aside = set_aside(self._path, word)
        self._log(ERROR, f"{self._path}: {reason}; set aside as {aside.name}, a new one begins")
        self._damage = ""
        store = Store(self._path, check=False)
        self._is_checked = True
        self._merger.forget()
        subject = f"a new database of events begins: the last one is {word.partition('-')[0]}"
        self._merger.add_always(own_event(clocks.wall_s, DATABASE_REPLACED, subject, reason), clocks.wall_s)
        return store

    def _fail(self, error: Exception, clocks: Clocks) -> None:
        if self._store:
            self._store.close()
            self._store = None
        if isinstance(error, _BUGS):
            # It would fail again and again. The service manager starts a writer without this batch.
            raise error
        if is_damage(error):
            self._damage = str(error)
        if not self._trouble:
            self._trouble_since = None if self._damage else clocks.now  # the new database begins with the news of its own
            self._log(ERROR, f"{self._path}: events cannot be written and are kept in memory: {error}")
        self._trouble = str(error) or type(error).__name__
        self._commit_at = clocks.now + RETRY_EVERY_S

    def _refuse(self, number: int, reason: str, clocks: Clocks) -> None:
        self._refused += number
        if clocks.now >= self._refusals_at:
            self._refusals_at = clocks.now + REFUSALS_EVERY_S
            self._log(WARNING, f"{self._refused} records refused: {reason}")
            self._refused = 0

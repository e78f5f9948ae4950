"""Scans files while they pass: their hashes are looked up, and clamd is asked, without ever waiting for it.

    scanner = Scanner(settings, now)                            # in the process that uses it: after the fork
    scanner.begin(file, expected_bytes); scanner.feed(file, data, now); scanner.finish(file, now)
    scanner.on_ready(now)                                       # when scanner.fileno() is readable: one descriptor for all
    scanner.on_timer(now)                                       # when next_deadline() has come
    for scanned in scanner.take_results(): ...                  # after each of these

Every file that was begun gets one verdict, unless it is cancelled: Infected as soon as that is known, anything else once it is
finished. When clamd is away that is in `finish` itself, so nobody waits for it. What is fed after the verdict is ignored.

`finish` says that all there is was fed. If the carrier broke off, the verdict is on what came: that is what the receiver has.

How a file goes
---------------
A small file is kept until it is finished: most of those that come often are small, and of what was scanned before only the hash is
needed. A larger one goes to clamd while it comes, in a session that gets all of it, and in one for each checkpoint that gets the
file's beginning. What the largest size leaves out is hashed only.

Nothing of this decides how long packets are held: whoever holds them has a timer, and may `cancel`.
"""

from __future__ import annotations

import select
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from mamori.inspect.scan.clamd import is_of_any_length
from mamori.inspect.scan.clamd_link import ClamdLink
from mamori.inspect.scan.files import FileScan, checkpoints
from mamori.inspect.scan.hashes import HashSource
from mamori.inspect.scan.health import Health
from mamori.inspect.scan.known import KnownFiles
from mamori.inspect.scan.sessions import StreamSession
from mamori.inspect.scan.verdicts import Clean, Infected, Scanned, Unscanned, Verdict, Why

MAX_SCAN_BYTES = 25 * 1024 * 1024
"""Of a file. clamd.conf's StreamMaxLength and MaxFileSize are no less. Few viruses are larger, and mail servers stop at this."""
SMALL_BYTES = 64 * 1024
"""A file below this is kept until it is finished."""
MAX_FILES = 4096
"""At a time, in one process: 40 for each of 100 PCs. One costs 1 KB besides its backlog."""
FILE_BACKLOG_BYTES = 8 * 1024 * 1024
"""What clamd may be behind with one file: 90 ms of a full line. It only has to copy it, but may have no processor just now."""
TOTAL_BACKLOG_BYTES = 32 * 1024 * 1024
"""What it may be behind with all, and small files: 500 of these. Then more of them go to clamd before they are finished."""
STREAMED_BYTES = 128 * 1024 * 1024
"""What clamd may hold of streams, in temporary files in memory (its unit's TemporaryFileSystem): five of the largest files."""
MAX_SESSIONS = 128
"""At a time, in one process. They are cheap for clamd, which does not give one a thread before the stream ends; its MaxQueue and
its limit of open files are larger. When half of them are in use, beginnings are not scanned by themselves."""
ANSWER_TIMEOUT_S = 40.0
"""After a file's end. Longer than the longest `hold_ms`, so it is no answer that anybody waits for."""
KNOWN_FOR_S = 3600.0
"""What was scanned before is forgotten after that time, because a database that does not tell its name may have been replaced."""
HASHES_EVERY_S = 60.0
"""How often the list of hashes is looked at for a new one."""
_EVENTS = 64


@dataclass(frozen=True)
class ScanSettings:
    """`socket` is clamd's, None on a box without it; `hash_list` a compiled list (hashes.py). The rest as said at the constants."""

    socket: Path | None
    hash_list: Path | None = None
    max_scan_bytes: int = MAX_SCAN_BYTES
    max_files: int = MAX_FILES
    file_backlog_bytes: int = FILE_BACKLOG_BYTES
    total_backlog_bytes: int = TOTAL_BACKLOG_BYTES
    streamed_bytes: int = STREAMED_BYTES
    max_sessions: int = MAX_SESSIONS
    answer_timeout_s: float = ANSWER_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Usage:
    """How much there is at the moment. `held_bytes` are kept here, `streamed_bytes` are in clamd's temporary files."""

    open_files: int
    open_sessions: int
    known_files: int
    held_bytes: int
    streamed_bytes: int


class Scanner:
    """See the module. Not for more than one thread."""

    def __init__(self, settings: ScanSettings, now: float) -> None:
        self._settings = settings
        self._epoll = select.epoll()
        self._clamd = ClamdLink(settings.socket, self._epoll, now)
        self._files: dict[int, FileScan] = {}
        self._sessions: dict[int, StreamSession] = {}  # by descriptor
        self._waiting: OrderedDict[int, FileScan] = OrderedDict()  # for a free session
        self._awaited: OrderedDict[int, float] = OrderedDict()  # file -> when it was finished, in that order
        self._known = KnownFiles()
        self._known_generation = self._clamd.generation
        self._known_until = now + KNOWN_FOR_S
        self._hashes = HashSource(settings.hash_list)
        self._hashes_at = now
        self._held_bytes = 0
        self._streamed_bytes = 0
        self._results: list[Scanned] = []
        self._glances: list[int] = []
        self.on_timer(now)

    # What callers ask

    def fileno(self) -> int:
        """Readable when `on_ready` has something to do."""
        return self._epoll.fileno()

    @property
    def health(self) -> Health:
        return self._clamd.health

    def take_changes(self) -> list[Health]:
        """What clamd's condition became since the last call, oldest first; for events."""
        return self._clamd.take_changes()

    def take_results(self) -> list[Scanned]:
        """The verdicts since the last call."""
        results, self._results = self._results, []
        return results

    def usage(self) -> Usage:
        return Usage(len(self._files), len(self._sessions), len(self._known), self._held_bytes, self._streamed_bytes)

    def backlog_bytes(self, file: int) -> int:
        """How far clamd is behind with a file. Who can slow its sender down does so before this is FILE_BACKLOG_BYTES."""
        scan = self._files.get(file)
        return 0 if scan is None else len(scan.backlog)

    @property
    def hashes_problem(self) -> str:
        """Why the list of hashes is missing or an old one, "" if all is well."""
        return self._hashes.problem

    # Files

    def begin(self, file: int, expected_bytes: int | None = None) -> None:
        """A file begins. `expected_bytes` is what its sender says of its length: it saves work, and a lie costs little."""
        if file in self._files:
            raise ValueError(f"file {file} was begun already")
        if len(self._files) >= self._settings.max_files:
            self._results.append(Scanned(file, Unscanned(Why.OVERLOADED, "too many files at once")))
            return
        self._files[file] = scan = FileScan(file, expected_bytes)
        if not self.health.is_usable:
            scan.stopped = self._unavailable()

    def feed(self, file: int, data: bytes | memoryview, now: float) -> None:
        """The file's next bytes."""
        scan = self._files.get(file)
        if scan is None or not data:
            return
        self._held_bytes += scan.receive(data, self._settings.max_scan_bytes)
        if not scan.goes_to_clamd:
            return
        if scan.is_streamed:
            self._send(scan, now)
        elif len(scan.backlog) >= SMALL_BYTES and file not in self._waiting:
            self._open(scan, now)
        if scan.goes_to_clamd:
            self._keep_limits(scan, now)
        self._follow_up(now)

    def finish(self, file: int, now: float) -> None:
        """All of the file was fed."""
        scan = self._files.get(file)
        if scan is None or scan.finished_at is not None:
            return
        scan.finish(now)
        known = self._look_up(scan)
        if known is not None:
            self._settle(scan, known)
        elif scan.stopped is not None:
            self._settle(scan, scan.stopped)
        elif scan.answer is not None:
            self._settle_answered(scan, scan.answer)
        else:
            self._awaited[file] = now
            if scan.is_streamed:
                self._send(scan, now)
            elif file not in self._waiting:
                self._open(scan, now)
        self._follow_up(now)

    def glance(self, file: int, now: float) -> None:
        """Its sender pauses: look at what came. What is found is a verdict as always; if nothing is, `take_glances` says so. Of a
        file that goes to clamd while it comes, the beginnings are looked at anyway."""
        scan = self._files.get(file)
        if scan is None or not scan.goes_to_clamd or scan.is_streamed or not scan.backlog or file in self._waiting:
            self._glances.append(file)
            return
        session = self._clamd.open_session(scan, scan.backlog.end, now)
        if session is None:
            self._glances.append(file)
        else:
            session.is_glance = True
            self._sessions[session.fileno()] = session
            scan.sessions.append(session)
            self._send(scan, now)
        self._follow_up(now)

    def take_glances(self) -> list[int]:
        """The files that were looked at, or could not be, since the last call."""
        glances, self._glances = self._glances, []
        return glances

    def cancel(self, file: int, now: float) -> None:
        """Nobody wants the verdict any more."""
        scan = self._files.get(file)
        if scan is not None:
            self._drop(scan)
            self._follow_up(now)

    def _look_up(self, scan: FileScan) -> Verdict | None:
        name = self._hashes.find(scan.digest, scan.length)
        if name is not None:
            return Infected(name)
        return Clean() if scan.length == 0 else self._known.get(scan.digest, scan.length)

    def _settle_answered(self, scan: FileScan, verdict: Verdict) -> None:
        """A finished file has clamd's verdict on all that clamd got."""
        if isinstance(verdict, Clean) and scan.length > self._settings.max_scan_bytes:
            verdict = Unscanned(Why.TOO_LARGE, f"the first {self._settings.max_scan_bytes} bytes are clean")
        elif not isinstance(verdict, Unscanned) and scan.generation == self._clamd.generation == self._known_generation:
            self._known.add(scan.digest, scan.length, verdict)
        self._settle(scan, verdict)

    def _settle(self, scan: FileScan, verdict: Verdict) -> None:
        self._results.append(Scanned(scan.number, verdict))
        self._drop(scan)

    def _drop(self, scan: FileScan) -> None:
        del self._files[scan.number]
        self._awaited.pop(scan.number, None)
        scan.is_over = True
        self._release(scan)

    def _stop(self, scan: FileScan, reason: Unscanned) -> None:
        """clamd will not tell: from here on the file is only hashed."""
        scan.stopped = reason
        if scan.finished_at is None:
            self._release(scan)
        else:
            self._settle(scan, reason)

    def _release(self, scan: FileScan) -> None:
        """Let go of its sessions and its bytes."""
        for session in tuple(scan.sessions):
            self._close(session)
        self._waiting.pop(scan.number, None)
        self._held_bytes -= scan.backlog.release(scan.backlog.end)

    def _keep_limits(self, scan: FileScan, now: float) -> None:
        settings = self._settings
        if len(scan.backlog) > settings.file_backlog_bytes // 2:
            # What clamd has to take goes down to a half and less without the beginnings.
            for session in [session for session in scan.sessions if session.end is not None]:
                self._close(session)
            self._send(scan, now)
        is_full = self._held_bytes > settings.total_backlog_bytes
        if is_full and not scan.is_streamed and scan.number not in self._waiting:
            self._open(scan, now)  # of many small files that dawdle, clamd can have this one already
            is_full = self._held_bytes > settings.total_backlog_bytes
        if len(scan.backlog) > settings.file_backlog_bytes or is_full:
            self._stop(scan, Unscanned(Why.OVERLOADED, "clamd takes files too slowly"))
            self._clamd.suspect(now)
        elif self._streamed_bytes > settings.streamed_bytes:
            self._stop(scan, Unscanned(Why.OVERLOADED, "too many large files at once"))

    # Sessions

    def _open(self, scan: FileScan, now: float) -> None:
        """Begin to send the file, or wait for a free session."""
        free = self._settings.max_sessions - len(self._sessions)
        if free <= 0:
            self._waiting[scan.number] = scan
            return
        ends: list[int | None] = [None]
        if scan.finished_at is None and free > self._settings.max_sessions // 2:
            ends += checkpoints(scan.expected_bytes, self._settings.max_scan_bytes)
        scan.generation = self._clamd.generation
        for end in ends[:free]:
            session = self._clamd.open_session(scan, end, now)
            if session is None:
                self._stop(scan, self._unavailable())
                return
            self._sessions[session.fileno()] = session
            scan.sessions.append(session)
        self._send(scan, now)

    def _send(self, scan: FileScan, now: float) -> None:
        """Give all of the file's sessions what they lack."""
        for session in tuple(scan.sessions):
            if session.is_closed:
                continue  # by what happened to another one
            was_blocked = session.is_blocked
            is_last = session.is_glance or scan.is_last(session.end, self._settings.max_scan_bytes)
            try:
                self._streamed_bytes += session.send(scan.backlog, is_last)
            except OSError:
                session.read()  # it says why before it closes
                self._on_answer(session, now)
                continue
            if session.is_blocked != was_blocked:
                self._epoll.modify(session.fileno(), select.EPOLLIN | (select.EPOLLOUT if session.is_blocked else 0))
        if not scan.is_streamed:
            return  # looked at only: all of it will be needed again
        self._held_bytes -= scan.backlog.release(min((session.needs for session in scan.sessions), default=scan.backlog.end))

    def _close(self, session: StreamSession) -> None:
        self._streamed_bytes -= session.framing.offset
        del self._sessions[session.fileno()]
        session.file.sessions.remove(session)
        if session.is_glance:
            self._glances.append(session.file.number)
        session.close()  # epoll forgets it by itself

    def _on_answer(self, session: StreamSession, now: float) -> None:
        """A session has said what it will say."""
        scan, verdict = session.file, session.verdict()
        is_early = not session.framing.is_done
        self._close(session)
        if session.end is not None and not is_of_any_length(verdict):
            return  # a beginning by itself is no file: only what is found in it counts
        if isinstance(verdict, Infected):
            if scan.finished_at is None:
                self._settle(scan, verdict)
            else:
                self._settle_answered(scan, verdict)
        elif is_early or (isinstance(verdict, Unscanned) and verdict.why is Why.FAILED):
            self._stop(scan, verdict if isinstance(verdict, Unscanned) else Unscanned(Why.FAILED, "an answer before the end"))
            self._clamd.suspect(now)
        elif scan.finished_at is None:
            scan.answer = verdict
        else:
            self._settle_answered(scan, verdict)

    def on_ready(self, now: float) -> None:
        """Go on with the sessions that can."""
        for descriptor, events in self._epoll.poll(0, _EVENTS):
            if self._clamd.on_ready(descriptor, now):
                continue
            session = self._sessions.get(descriptor)
            if session is None:
                continue
            if events & ~select.EPOLLOUT and session.read():
                self._on_answer(session, now)
            elif events & select.EPOLLOUT:
                self._send(session.file, now)
        self._follow_up(now)

    def next_deadline(self) -> float:
        """When `on_timer` is due."""
        oldest = next(iter(self._awaited.values()), None)
        due = [self._hashes_at, self._known_until, self._clamd.next_deadline(oldest)]
        return min(due if oldest is None else [*due, oldest + self._settings.answer_timeout_s])

    def on_timer(self, now: float) -> None:
        """Do what is due."""
        while self._awaited:
            number, finished_at = next(iter(self._awaited.items()))
            if now < finished_at + self._settings.answer_timeout_s:
                break
            self._stop(self._files[number], Unscanned(Why.TIMED_OUT))
        self._clamd.on_timer(next(iter(self._awaited.values()), None), now)
        if now >= self._known_until:
            self._known.clear()
            self._known_until = now + KNOWN_FOR_S
        if now >= self._hashes_at:
            self._hashes.refresh()
            self._hashes_at = now + HASHES_EVERY_S
        self._follow_up(now)

    def _follow_up(self, now: float) -> None:
        """What follows from all that was done: at the end, so that it does not happen in the middle of it."""
        if self._known_generation != self._clamd.generation:
            self._known.clear()
            self._known_generation = self._clamd.generation
        while self._waiting and len(self._sessions) < self._settings.max_sessions and self.health.is_usable:
            self._open(self._waiting.popitem(last=False)[1], now)
        if not self.health.is_usable and (self._sessions or self._waiting or self._awaited):
            # Whoever waits for it waits no longer.
            for scan in [scan for scan in self._files.values() if scan.goes_to_clamd]:
                self._stop(scan, self._unavailable())

    def _unavailable(self) -> Unscanned:
        return Unscanned(Why.UNAVAILABLE, self.health.reason)

    def close(self) -> None:
        """Let go of everything; files that are open get no verdict."""
        for session in tuple(self._sessions.values()):
            self._close(session)
        self._clamd.close()
        self._hashes.close()
        self._epoll.close()

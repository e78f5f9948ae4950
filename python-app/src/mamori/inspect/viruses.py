"""The files of one connection, and what the policy makes of them: what waits for the scanner, and what is written over or cut.

What is infected is cut in HTTP, and written over at equal length where mail and files are to be delivered whole. A file is
judged by all of it that was seen: one that breaks off, or behind which nothing can be read any more, too.
"""

from __future__ import annotations

from mamori.events.record import Action, Function
from mamori.inspect.desk import Desk, ScanOwner
from mamori.inspect.files import CarriedFile, Files, can_overwrite
from mamori.inspect.findings import FileData, FileEnded, FileStarted, FileUnseen
from mamori.inspect.hold import HoldQueue
from mamori.inspect.interpose import Cut
from mamori.inspect.policy import Mode, Unseen
from mamori.inspect.telling import Teller

_DELIVERED_WHOLE = frozenset({"smtp", "pop3", "imap", "ftp-data"})
_REMEMBERED = frozenset({"http", "ftp-data"})
_LATE = "the scanner did not answer in time"


class Viruses:
    """See the module. `block` is how the connection is to be ended, None while it is not."""

    __slots__ = ("_desk", "_files", "_holds", "_teller", "block", "subject")

    def __init__(self, desk: Desk, teller: Teller, holds: tuple[HoldQueue, HoldQueue], owner: ScanOwner) -> None:
        self._desk = desk
        self._teller = teller
        self._holds = holds
        self._files = Files(desk, owner)
        self.block: Cut | None = None
        self.subject = teller.address

    @property
    def delivers_whole(self) -> bool:
        """Whether what is infected is written over instead of cut, so that bytes must not run ahead."""
        return self._teller.protocol in _DELIVERED_WHOLE

    @property
    def _blocks(self) -> bool:
        return self._desk.judge.policy.virus.mode is Mode.BLOCK

    def has_open_file(self, direction: int) -> bool:
        return self._files.open_in(direction)

    def keeps(self, direction: int, start: int, end: int) -> bool:
        """Whether bytes of an unjudged file lie here of which no copy is out."""
        return self._files.keeps(direction, start, end)

    def let_out(self, direction: int, start: int, end: int) -> None:
        """A copy of these bytes is out."""
        self._files.let_out(direction, start, end)

    def begin(self, direction: int, started: FileStarted, *, is_rest: bool = False) -> None:
        """A file begins. The rest of one (REST) whose beginning was infected is as bad, and nothing in it may tell."""
        if self._desk.judge.policy.virus.mode is Mode.OFF or self._teller.is_exempt:
            return
        carried = self._files.begin(direction, started)
        if is_rest and self._blocks and carried.unseen is None:
            carried.signature = self._desk.recall_infected(self.subject)
        if carried.unseen is not None or carried.signature is not None:
            self._on_scan(carried)

    def receive(self, data: FileData, direction: int) -> bool:
        """Its next bytes; whether the packet that brought them has to wait in the window."""
        carried = self._files.feed(data, self.delivers_whole and self._blocks)
        if carried is None:
            return False
        if carried.is_overwritten and data.end > data.start:
            self._holds[direction].overwrite(data.start, data.end, data.coding)
            return False
        # Of a file whose length was not said before, no packet is known to be the last.
        return (self.delivers_whole or carried.is_open_ended) and self._blocks and carried.unseen is None

    def end(self, ended: FileEnded, direction: int) -> bool:
        """Its end; whether the packet that brought it has to wait for the verdict."""
        return self._await(self._files.end(ended.file), direction)

    def lose(self, unseen: FileUnseen) -> None:
        """It cannot be read any further."""
        carried = self._files.lose(unseen.file, unseen.reason)
        if carried is not None:
            self._on_scan(carried)

    def end_all(self) -> bool:
        """Nothing more can be read of the files that are open: what was seen of them is judged. Whether something waits."""
        waits = False
        for file, direction in self._files.all_open():
            waits = self._await(self._files.end(file), direction) or waits
        return waits

    def give_up(self, direction: int) -> None:
        """The scanner did not answer in time, or too much waits for it."""
        for file in self._files.overdue(direction):
            self._files.cancel(file)
            self.scanned(file, None, _LATE)
        self._holds[direction].wait_until = None

    def scanned(self, file: int, signature: str | None, unseen: str | None) -> None:
        """The scanner's word; see Connection.scanned."""
        carried = self._files.judge(file, signature, unseen)
        if carried is None:
            return
        if signature is None and unseen is None:
            self._desk.tally(self._teller.parties, Function.VIRUS, "file")
        else:
            self._on_scan(carried)
        if not self._files.waiting(carried.direction):
            self._holds[carried.direction].wait_until = None

    def glance(self, direction: int) -> None:
        """A sender pauses, and its packets would go for that. What came of small files is looked at first: else whoever pauses just
        before the end of an attachment would have it out before its verdict."""
        if self._blocks and self._files.glance(direction, all_open=self.delivers_whole):
            self._wait(direction)

    def lag(self, file: int, is_behind: bool) -> None:
        """The scanner is behind with a file: its sender is stopped for a while, as a slow receiver would."""
        carried = self._files.lag(file, is_behind)
        if carried is None or not self._blocks:
            return
        if is_behind:
            self._wait(carried.direction)
        elif not self._files.waiting(carried.direction):
            self._holds[carried.direction].wait_until = None

    def close(self) -> None:
        """Nobody waits for any of them any more."""
        self._files.close()
        for hold in self._holds:
            hold.wait_until = None

    def _await(self, carried: CarriedFile | None, direction: int) -> bool:
        if carried is None or not carried.is_waiting or not self._blocks:
            return False
        self._wait(direction)
        return True

    def _wait(self, direction: int) -> None:
        hold = self._holds[direction]
        if hold.wait_until is None:
            hold.wait_until = self._desk.now + self._desk.judge.policy.virus.hold_ms / 1000

    def _on_scan(self, carried: CarriedFile) -> None:
        """A file that is not clean, or of which nothing is known."""
        desk, teller, virus = self._desk, self._teller, self._desk.judge.policy.virus
        infected = carried.signature is not None
        blocks = virus.mode is Mode.BLOCK and (infected or virus.unseen is Unseen.BLOCK)
        action = Action.BLOCKED if blocks else Action.LOGGED if infected else Action.UNSEEN
        carrier = carried.subject if carried.subject and teller.protocol != "ftp-data" else self.subject
        subject = carrier if not carried.name or carried.name in carrier else f"{carrier} {carried.name}"
        category, detail = carried.signature or "", carried.unseen or ""
        if action is not Action.UNSEEN or desk.is_news(detail):
            desk.tell(teller.parties, Function.VIRUS, action, teller.protocol, subject, category=category, detail=detail)
        desk.tally(teller.parties, Function.VIRUS, "file" if infected else "unseen file", category, 1, int(blocks))
        if not blocks:
            return
        if infected and teller.protocol in _REMEMBERED:
            desk.remember_infected(carrier, category)
        if self.delivers_whole and can_overwrite(carried):
            carried.is_overwritten = True
            for each in carried.ranges:
                self._holds[carried.direction].overwrite(*each)
        else:
            self.block = self.block or Cut(carried.direction)

"""The files that cross a connection: which are open, which wait for their verdict, where their bytes lie."""

from __future__ import annotations

from dataclasses import dataclass, field

from mamori.inspect.commands import BeginScan, CancelScan, FeedScan, FinishScan, GlanceScan
from mamori.inspect.desk import Desk, ScanOwner
from mamori.inspect.findings import Coding, FileData, FileStarted
from mamori.inspect.hold import Range

MAX_FILES = 2000
"""Open at once on one connection: messages in messages, each with parts. More is an attack; they pass unseen, and are told."""


GLANCE_BYTES = 64 << 10
"""A file that is larger when its sender pauses is not looked at before it ends: so much was out anyway (hold.WINDOW_BYTES)."""

MAX_GLANCES = 16
"""Of one file. A line so slow that each packet is a pause sends as many in 64 KiB at most; more pauses are made to cost us time."""


@dataclass(slots=True)
class CarriedFile:
    """One file. `ranges` are those of its bytes that may still be written over, because they wait or are in the packet in hand.
    `signature`: what was found; `unseen`: why nothing can be said; `is_behind`: the scanner has much of it left to take."""

    direction: int
    name: str
    subject: str
    scan: int
    is_open_ended: bool = False
    is_open: bool = True
    is_waiting: bool = False
    is_behind: bool = False
    signature: str | None = None
    unseen: str | None = None
    is_overwritten: bool = False
    fed_bytes: int = 0
    glanced_bytes: int = 0
    glances: int = 0
    ranges: list[Range] = field(default_factory=list)


class Files:
    """Those of one connection."""

    __slots__ = ("_desk", "_files", "_owner")

    def __init__(self, desk: Desk, owner: ScanOwner) -> None:
        self._desk = desk
        self._owner = owner
        self._files: dict[int, CarriedFile] = {}

    def begin(self, direction: int, started: FileStarted) -> CarriedFile:
        """A file begins, and its scan with it."""
        desk = self._desk
        scan, desk.next_scan = desk.next_scan, desk.next_scan + 1
        carried = CarriedFile(direction, started.name, started.subject, scan, started.is_open_ended)
        if len(self._files) >= MAX_FILES:
            carried.unseen = "too many files at once"
        else:
            desk.scans[scan] = self._owner, started.file
            desk.out.append(BeginScan(scan, started.expected_bytes))
        self._files[started.file] = carried
        return carried

    def feed(self, data: FileData, keeps_ranges: bool) -> CarriedFile | None:
        """Its next bytes, which go to the scanner. Ranges are kept only where they may have to be written over, and somebody
        forgets them again."""
        carried = self._files.get(data.file)
        if carried is None:
            return None
        carried.fed_bytes += len(data.data)
        if carried.signature is None and carried.unseen is None and len(data.data):
            self._desk.out.append(FeedScan(carried.scan, data.data))
        if keeps_ranges and data.end > data.start:
            if carried.ranges and carried.ranges[-1].end == data.start and carried.ranges[-1].coding is data.coding:
                carried.ranges[-1] = Range(carried.ranges[-1].start, data.end, data.coding)
            else:
                carried.ranges.append(Range(data.start, data.end, data.coding))
        return carried

    def end(self, file: int) -> CarriedFile | None:
        """Its last byte is here; whether it waits for the scanner says `is_waiting`. One that broke off is judged by what came:
        many receivers keep that."""
        carried = self._files.get(file)
        if carried is None or not carried.is_open:
            return None
        carried.is_open = carried.is_behind = False
        if carried.signature is None and carried.unseen is None:
            carried.is_waiting = True
            self._desk.out.append(FinishScan(carried.scan))
            return carried
        del self._files[file]
        return carried

    def lose(self, file: int, reason: str) -> CarriedFile | None:
        """It cannot be read any further."""
        carried = self._files.get(file)
        if carried is None or carried.unseen is not None or carried.signature is not None:
            return None
        carried.unseen = reason
        self._cancel(carried)
        return carried

    def judge(self, file: int, signature: str | None, unseen: str | None) -> CarriedFile | None:
        """The scanner's word; a file that is ended is done with."""
        carried = self._files.get(file)
        if carried is None:
            return None
        carried.signature, carried.unseen, carried.is_waiting, carried.is_behind = signature, unseen, False, False
        self._desk.scans.pop(carried.scan, None)
        if not carried.is_open:
            del self._files[file]
        return carried

    def waiting(self, direction: int) -> bool:
        """Whether a file of this direction waits for its verdict, or for the scanner to catch up."""
        return bool(self.overdue(direction))

    def open_in(self, direction: int) -> bool:
        return any(carried.is_open and carried.direction == direction for carried in self._files.values())

    def all_open(self) -> list[tuple[int, int]]:
        """The files whose end has not come, and their directions."""
        return [(file, carried.direction) for file, carried in self._files.items() if carried.is_open]

    def overdue(self, direction: int) -> list[int]:
        """The files of this direction that wait."""
        return [
            file
            for file, carried in self._files.items()
            if (carried.is_waiting or carried.is_behind) and carried.direction == direction
        ]

    def glance(self, direction: int, *, all_open: bool) -> bool:
        """Have the scanner look at what came of the small files that are open, if it did not see that yet; whether it does. If not
        `all_open`, then only of those whose end shows late."""
        paused = [
            carried
            for carried in self._files.values()
            if carried.direction == direction and carried.is_open and carried.signature is None and carried.unseen is None
            if (all_open or carried.is_open_ended)
            and carried.glanced_bytes < carried.fed_bytes < GLANCE_BYTES
            and carried.glances < MAX_GLANCES
        ]
        for carried in paused:
            carried.glanced_bytes, carried.is_behind = carried.fed_bytes, True
            carried.glances += 1
            self._desk.out.append(GlanceScan(carried.scan))
        return bool(paused)

    def lag(self, file: int, is_behind: bool) -> CarriedFile | None:
        """The scanner cannot keep up with an open file, or can again."""
        carried = self._files.get(file)
        if carried is None or not carried.is_open or carried.unseen is not None or carried.signature is not None:
            return None
        carried.is_behind = is_behind
        return carried

    def cancel(self, file: int) -> None:
        """What is open is not to be scanned any further."""
        carried = self._files.get(file)
        if carried is not None and carried.is_open:
            self._cancel(carried)

    def keeps(self, direction: int, start: int, end: int) -> bool:
        """Whether bytes of an unjudged file lie here of which no copy is out."""
        return any(
            carried.direction == direction and any(each.start < end and start < each.end for each in carried.ranges)
            for carried in self._files.values()
        )

    def let_out(self, direction: int, start: int, end: int) -> None:
        """A copy of these bytes is out: it cannot be written over any more, and every other copy must be the same."""
        for carried in self._files.values():
            ranges = carried.ranges
            if carried.direction == direction and ranges and ranges[0].start < end and start < ranges[-1].end:
                carried.ranges = [rest for each in ranges for rest in _without(each, start, end)]

    def close(self) -> None:
        """The connection is over."""
        for carried in self._files.values():
            self._cancel(carried)
        self._files.clear()

    def _cancel(self, carried: CarriedFile) -> None:
        if self._desk.scans.pop(carried.scan, None) is not None:
            self._desk.out.append(CancelScan(carried.scan))


def _without(piece: Range, start: int, end: int) -> list[Range]:
    if piece.end <= start or end <= piece.start:
        return [piece]
    rest = (piece._replace(end=start), piece._replace(start=end))
    return [each for each in rest if each.start < each.end]


def can_overwrite(carried: CarriedFile) -> bool:
    """Whether what is left of it can be made harmless in place."""
    return all(each.coding is not Coding.COMPRESSED for each in carried.ranges)

"""Cuts: a recorded cycle, replayed to each place where the power may go, and in each way in which a disk may then have lost writes.

What a disk has acknowledged lies in its cache until it is flushed. So at each flush, all before it is there; between two flushes
any of the writes may be there or not. Every beginning of them is tried; so is every choice of partitions whose writes got
through, and some choices of single writes. Of a write that is under way, some sectors are there (a sector is written whole or
not at all, §2.4), and for the boot state also the broken promise: garbage in a sector (§7.2). A write with FUA set is taken for
one without: that is stricter.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from firmware.powercut.view import Fault, Start, View
from firmware.powercut.writelog import Buffer, Entry, Flag, read_entries
from mamori.formats.bootstate import SECTOR_BYTES, BootState

RANDOM_ORDERS = 8
"""Choices of single writes that are tried for each flush, beside the systematic ones."""

MAX_SINGLES = 64
"""Writes to a boot partition or the boot state between two flushes of which each is tried alone, and as the only one lost. RAUC
writes only blocks that differ, and Linux gathers neighbours: a handful."""

MAX_KEPT = 50
"""Findings that are kept with their words; one broken order gives thousands."""


@dataclass(frozen=True)
class Write:
    """A write to a watched partition."""

    offset: int
    data: bytes
    partition: str


@dataclass(frozen=True)
class Finding:
    """What is wrong after a cut, and where in the log that is: the entry that was the last one to reach the disk, or the next."""

    entry: int
    cut: str
    fault: Fault


@dataclass
class Report:
    """How many cuts of each kind were tried, what started, and what was wrong."""

    cuts: Counter[str] = field(default_factory=Counter)
    starts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    states: list[BootState | None] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return sum(self.cuts.values())

    @property
    def bricks(self) -> int:
        """Cuts with a fault; one that has two counts twice."""
        return sum(self.faults.values())

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"power cuts tried: {self.tried} ({', '.join(f'{count} {kind}' for kind, count in sorted(self.cuts.items()))})"
        for (slot, version), count in sorted(self.starts.items()):
            yield f"started: slot {slot}, {version}: {count} times"
        yield f"bricks found: {self.bricks}"
        for finding in self.findings:
            yield f"entry {finding.entry}, {finding.cut}: {finding.fault.value}"

    def note(self, entry: int, cut: str, start: Start, legal: Iterable[BootState | None]) -> None:
        """`legal` are the states of which one must count."""
        self.cuts[cut] += 1
        self.starts[start.slot.value if start.slot else "none", start.version or "none"] += 1
        faults = start.faults | ({Fault.THIRD_STATE} if start.state not in set(legal) else set())
        for fault in sorted(faults, key=lambda fault: fault.name):
            self.faults[fault] += 1
            if len(self.findings) < MAX_KEPT:
                self.findings.append(Finding(entry, cut, fault))


def replay(view: View, logs: Sequence[Buffer], report: Report | None = None) -> Report:
    """All cuts of all `logs`: one for each time that the machine was on. What it wrote until it went off is there at the next
    start, which is one of the cuts."""
    report = report or Report()
    epoch = _Epoch(view, report, 0)
    for number, log, entry in number_entries(logs):
        if entry is None or entry.flags & Flag.FLUSH:
            epoch.close()
            epoch = _Epoch(view, report, number)
        if entry is not None and entry.size:
            epoch.write(number, entry.offset, entry.data(log))
    epoch.close()
    return report


def advance(view: View, logs: Sequence[Buffer], last: int) -> None:
    """Write all up to the entry with the number `last`, as the findings count them."""
    for number, log, entry in number_entries(logs):
        if number > last:
            return
        if entry is not None and entry.size:
            view.write(entry.offset, entry.data(log))


def number_entries(logs: Sequence[Buffer]) -> Iterator[tuple[int, Buffer, Entry | None]]:
    """Every entry with its number, from 1 through all logs; None where the machine was switched on again."""
    number = 0
    for position, log in enumerate(logs):
        if position:
            number += 1
            yield number, log, None
        for entry in read_entries(log):
            number += 1
            yield number, log, entry


class _Epoch:
    """The writes from one flush to the next."""

    def __init__(self, view: View, report: Report, entry: int) -> None:
        self._view, self._report, self._entry = view, report, entry
        self._writes: list[Write] = []
        self._before: list[bytes] = []
        self._legal: list[BootState | None] = [view.start().state]
        report.note(entry, "flush", view.start(), self._legal)
        self._note_state()

    def write(self, entry: int, offset: int, data: bytes) -> None:
        self._entry = entry
        partition = self._view.partition_at(offset)
        if partition is not None:
            write = Write(offset, data, partition)
            torn = [(cut, self._try(piece)) for cut, piece in _tear(write)]
            self._before.append(self._view.write(offset, data))
            self._writes.append(write)
            self._legal.append(self._view.start().state)
            self._note_state()
            for cut, start in torn:
                self._report.note(entry, cut, start, self._legal)
        else:
            self._view.write(offset, data)
        self._report.note(entry, "write", self._view.start(), self._legal)

    def close(self) -> None:
        """The flush: nothing that was before it can be lost any more, so what can be is tried now."""
        if len(self._writes) < 2:
            return
        for write, before in zip(reversed(self._writes), reversed(self._before), strict=True):
            self._view.write(write.offset, before)
        for cut, chosen in _orders(self._writes, self._entry):
            undo = [(write.offset, self._view.write(write.offset, write.data)) for write in chosen]
            self._report.note(self._entry, cut, self._view.start(), self._legal)
            for offset, before in reversed(undo):
                self._view.write(offset, before)
        for write in self._writes:
            self._view.write(write.offset, write.data)

    def _try(self, write: Write) -> Start:
        before = self._view.write(write.offset, write.data)
        start = self._view.start()
        self._view.write(write.offset, before)
        return start

    def _note_state(self) -> None:
        state = self._view.start().state
        if not self._report.states or self._report.states[-1] != state:
            self._report.states.append(state)


def _tear(write: Write) -> Iterator[tuple[str, Write]]:
    """Parts of the write: of the boot state each beginning, each end, and each sector spoiled; else the first sector, a half, and
    all but the first and the last sector."""
    sectors = len(write.data) // SECTOR_BYTES
    is_state = write.partition == "bootstate"
    places = range(1, sectors) if is_state else sorted({1, sectors // 2, sectors - 1} & set(range(1, sectors)))
    for place in places:
        at = place * SECTOR_BYTES
        yield "torn", Write(write.offset, write.data[:at], write.partition)
        yield "torn", Write(write.offset + at, write.data[at:], write.partition)
    if is_state:
        for at in range(0, len(write.data), SECTOR_BYTES):
            for garbage in (bytes(SECTOR_BYTES), b"\xff" * SECTOR_BYTES):
                yield "garbage", Write(write.offset + at, garbage, write.partition)


def _orders(writes: Sequence[Write], seed: int) -> Iterator[tuple[str, list[Write]]]:
    """Choices of the writes of which a disk's cache may have let through only these."""
    partitions = sorted({write.partition for write in writes})
    for count in range(1, len(partitions)):
        for chosen in itertools.combinations(partitions, count):
            yield "reordered", [write for write in writes if write.partition in chosen]
    roots = [write for write in writes if write.partition.startswith("root-")]
    for single in [write for write in writes if not write.partition.startswith("root-")][:MAX_SINGLES]:
        yield "reordered", [single]
        yield "reordered", [*roots, single]
        yield "reordered", [write for write in writes if write is not single]
    dice = random.Random(seed)  # noqa: S311 (no secret; the same log gives the same cuts)
    for _ in range(RANDOM_ORDERS):
        yield "reordered", [write for write in writes if dice.random() < 0.5]

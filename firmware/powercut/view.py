"""A disk as it would be found after a power cut, and what the boot loader makes of it.

`§` is a clause of docs/boot-state.md. The whole disk lies in memory as a private map of its image, so only what was written takes
room, and what a write replaced can be put back.
"""

from __future__ import annotations

import enum
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware.image.root import BLOCK_BYTES as ROOT_BLOCK_BYTES
from firmware.layout import SLOTS, Layout, Partition
from firmware.powercut.fat import FatError, read_file
from mamori.formats.bootstate import BLOCK_BYTES, COPIES, BootState, Slot, candidates, choose, locate
from mamori.formats.problems import MamoriError

UKI_NAME = "mamori.efi"
WATCHED = ("bootstate", *(f"{kind}-{slot}" for slot in SLOTS for kind in ("boot", "root")))
"""What decides about a start. Nothing in the updater writes the ESP, so a write there is a fault of its own."""

_CHUNK_BYTES = 1 << 20


class Fault(enum.Enum):
    """What a power cut must never leave."""

    NOTHING_STARTS = "neither slot has a kernel that verifies"
    UNVERIFIED = "a slot starts whose root does not verify"
    HALF_WRITTEN = "a slot that is not whole would start if the other one did not (§6.5)"
    NO_WAY_BACK = "a trial starts and the confirmed slot is not whole (§7.4)"
    THIRD_STATE = "neither the state before the write nor the one after it counts (§7.1)"
    OTHER_SECTORS = "something beside the copies of the boot state was written (§1.3)"


@dataclass(frozen=True)
class Firmware:
    """A signed release: what its version is, its kernel image and its root with the verity tree, byte for byte."""

    version: str
    uki: bytes
    root: bytes


@dataclass(frozen=True)
class Start:
    """What the loader would do: `slot` and `version` of what starts, None if nothing does; `state` is what counts."""

    slot: Slot | None
    version: str | None
    state: BootState | None
    faults: frozenset[Fault]


class View:
    """`disk` with all that was written to it since. `releases` are all that may ever lie in a slot."""

    def __init__(self, disk: Path, layout: Layout, releases: Sequence[Firmware]) -> None:
        self._layout, self._releases = layout, {release.version: release for release in releases}
        with disk.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._bounds = {name: (layout[name].start_bytes, layout[name].start_bytes + layout[name].size_bytes) for name in WATCHED}
        start, end = self._bounds["bootstate"]
        self._copies = tuple(start + offset for offset in locate(self._map[start:end]))
        if len(self._copies) != len(COPIES):
            raise MamoriError(f"{disk}: {len(self._copies)} copies of the boot state, not {len(COPIES)} (§6.2)")
        self._metadata = self._read_metadata()
        self._differing = {
            (slot, version): _compare(self._map, layout[f"root-{slot}"].start_bytes, release.root)
            for slot in SLOTS
            for version, release in self._releases.items()
        }
        self._kernels: dict[str, str | None] = {}
        self._start: Start | None = None

    def partition_at(self, offset: int) -> str | None:
        """The watched partition that the byte is in."""
        return next((name for name, (start, end) in self._bounds.items() if start <= offset < end), None)

    def write(self, offset: int, data: bytes) -> bytes:
        """What was there before. The disk is as large as its image: a write beyond is a MamoriError."""
        if offset + len(data) > len(self._map):
            raise MamoriError(f"a write to byte {offset + len(data)} of a disk of {len(self._map)} bytes")
        before = self._map[offset : offset + len(data)]
        self._map[offset : offset + len(data)] = data
        name = self.partition_at(offset)
        if name is None or before == data:
            return before
        self._start = None
        kind, _, slot = name.partition("-")
        if kind == "boot":
            self._kernels.pop(slot, None)
        elif kind == "root":
            self._compare_again(slot, offset, len(data))
        return before

    def start(self) -> Start:
        """The loader's choice (§5), and everything that is wrong with it."""
        if self._start is None:
            self._start = self._decide()
        return self._start

    def states(self) -> BootState | None:
        """What counts (§4)."""
        return choose([self._map[offset : offset + BLOCK_BYTES] for offset in self._copies])

    def save(self, path: Path) -> None:
        """The disk as a sparse file, for a real boot."""
        with path.open("wb") as file:
            file.truncate(len(self._map))
            for offset in range(0, len(self._map), _CHUNK_BYTES):
                piece = self._map[offset : offset + _CHUNK_BYTES]
                if piece.strip(b"\0"):
                    file.seek(offset)
                    file.write(piece)

    def _decide(self) -> Start:
        state = self.states()
        order = candidates(state)
        kernels = {slot: self._kernel(slot.value) for slot in order}
        whole = {slot: version is not None and not self._differing[slot.value, version] for slot, version in kernels.items()}
        first = next((slot for slot in order if kernels[slot] is not None), None)
        faults = set()
        if first is None:
            faults.add(Fault.NOTHING_STARTS)
        elif not whole[first]:
            faults.add(Fault.UNVERIFIED)
        elif kernels[first.other] is not None and not whole[first.other]:
            faults.add(Fault.HALF_WRITTEN)
        if first is not None and state is not None and first is state.trial and not whole[state.confirmed]:
            faults.add(Fault.NO_WAY_BACK)
        if self._read_metadata() != self._metadata:
            faults.add(Fault.OTHER_SECTORS)
        return Start(first, kernels[first] if first else None, state, frozenset(faults))

    def _kernel(self, slot: str) -> str | None:
        if slot not in self._kernels:
            self._kernels[slot] = self._read_kernel(slot)
        return self._kernels[slot]

    def _read_kernel(self, slot: str) -> str | None:
        """The version whose signed kernel image a loader would read from the slot; None if it would refuse what is there."""
        partition: Partition = self._layout[f"boot-{slot}"]
        with memoryview(self._map) as content:
            try:
                uki = read_file(content[partition.start_bytes : partition.start_bytes + partition.size_bytes], UKI_NAME)
            except FatError:
                return None
        return next((version for version, release in self._releases.items() if release.uki == uki), None)

    def _read_metadata(self) -> bytes:
        """The partition of the boot state without its copies."""
        content = bytearray(self._map[slice(*self._bounds["bootstate"])])
        for offset in self._copies:
            at = offset - self._bounds["bootstate"][0]
            content[at : at + BLOCK_BYTES] = bytes(BLOCK_BYTES)
        return bytes(content)

    def _compare_again(self, slot: str, offset: int, size: int) -> None:
        root_at = self._layout[f"root-{slot}"].start_bytes
        first, last = (offset - root_at) // ROOT_BLOCK_BYTES, (offset + size - root_at - 1) // ROOT_BLOCK_BYTES
        for version, release in self._releases.items():
            differing = self._differing[slot, version]
            for block in range(first, min(last, (len(release.root) - 1) // ROOT_BLOCK_BYTES) + 1):
                at = block * ROOT_BLOCK_BYTES
                wanted = release.root[at : at + ROOT_BLOCK_BYTES]
                if self._map[root_at + at : root_at + at + len(wanted)] == wanted:
                    differing.discard(block)
                else:
                    differing.add(block)


def _compare(disk: mmap.mmap, start: int, root: bytes) -> set[int]:
    """The numbers of the blocks in which the partition differs from the image."""
    differing = set()
    for at in range(0, len(root), _CHUNK_BYTES):
        wanted = root[at : at + _CHUNK_BYTES]
        if disk[start + at : start + at + len(wanted)] == wanted:
            continue
        for offset in range(0, len(wanted), ROOT_BLOCK_BYTES):
            piece = wanted[offset : offset + ROOT_BLOCK_BYTES]
            if disk[start + at + offset : start + at + offset + len(piece)] != piece:
                differing.add((at + offset) // ROOT_BLOCK_BYTES)
    return differing

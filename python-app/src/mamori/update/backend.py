"""RAUC's boot loader backend (RAUC manual, "Custom Bootloader Backend"): RAUC asks here which slot is good and which is first.

    mamori boot-backend get-primary | set-primary SLOT | get-state SLOT | set-state SLOT good|bad | get-current

RAUC thinks of one step, "install and make it first". Ours are two, and RAUC has only the first: it may spoil a slot before
it writes it, and nothing that it says here arms one (docs/update.md §4.4, §5.2). Spoiled is a slot by the beginning of its boot
partition, without which the loader finds no file system in it, and no kernel in the file.
"""

from __future__ import annotations

import os
from pathlib import Path

from mamori.formats.bootstate import SECTOR_BYTES, Slot, candidates
from mamori.formats.problems import MamoriError
from mamori.paths import Device
from mamori.sysfs import read_line
from mamori.update.bootdisk import BootDisk

GOOD, BAD = "good", "bad"

SPOILED_BYTES = 1 << 20
"""How much of a boot partition is overwritten: the FAT's tables and the beginning of the kernel image behind them, with its
headers and its command line. The first sector alone would do until RAUC writes it: RAUC goes from the first block to the last,
so the old tables would be whole again while the kernel behind them still is the old one, and the root already the new one. What
has to come back now before the loader takes a kernel is its command line, which names the root; in front of another kernel's
end its signature does not hold (docs/boot-state.md §6.5)."""


class BackendError(MamoriError):
    """A question or an order of RAUC's that has no answer."""


def answer(device: Device, words: list[str]) -> str:
    """What is printed for RAUC, "" for orders. BackendError, BootDiskError or UnreadableError when it cannot be done."""
    match words:
        case ["get-primary"]:
            return candidates(BootDisk(device.bootstate).read().state)[0].value
        case ["get-current"]:
            return _running(device).value
        case ["get-state", name]:
            return BAD if _is_spoiled(device.boot_partition(_slot(name).value)) else GOOD
        case ["set-state", name, "bad"]:
            slot = _slot(name)
            if slot is _running(device):
                raise BackendError(f"slot {name} runs: it is not spoiled")
            _spoil(device.boot_partition(slot.value))
            return ""
        case ["set-state", name, "good"]:
            _slot(name)  # that it is good is said by what RAUC has written into it
            return ""
        case ["set-primary", name]:
            raise BackendError(f"slot {_slot(name).value} is armed by `mamori update`, when its window opens")
        case _:
            raise BackendError(f"not a question of a boot loader backend: {' '.join(words)[:100]}")


def _running(device: Device) -> Slot:
    return _slot(read_line(device.slot))


def _slot(name: str) -> Slot:
    try:
        return Slot(name)
    except ValueError:
        raise BackendError(f"{name[:20]!r} is not a slot") from None


def _is_spoiled(partition: Path) -> bool:
    try:
        with partition.open("rb") as file:
            return not file.read(SECTOR_BYTES).strip(b"\0")
    except OSError as error:
        raise BackendError(f"{partition}: {error.strerror}") from None


def _spoil(partition: Path) -> None:
    """On the disk when this returns."""
    try:
        descriptor = os.open(partition, os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC)
        try:
            size = min(SPOILED_BYTES, os.lseek(descriptor, 0, os.SEEK_END))
            at = 0
            while at < size:
                at += os.pwrite(descriptor, bytes(size - at), at)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BackendError(f"{partition}: {error.strerror}") from None

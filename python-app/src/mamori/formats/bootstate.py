"""The boot state: which slot is confirmed, which is on trial, and how often it may still be tried.

Normative text: docs/boot-state.md; `§` below is a clause of it. The container is GRUB's environment block (GRUB manual,
section "The GRUB environment block"; its reader and writer are grub-core/lib/envblk.c), because GRUB can write no other.

No checksum guards it: GRUB could not compute one. What a damaged block can do is told and bounded in §7.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mamori.formats.problems import MamoriError

BLOCK_BYTES = 1024
"""GRUB's tools make and expect this size (§2.1)."""

SECTOR_BYTES = 512
"""What a disk writes whole or not at all; all that matters is in the first one (§2.4)."""

SIGNATURE = b"# GRUB Environment Block\n"

COPIES = ("bootstate-1", "bootstate-2")
"""Names of the two copies in the root folder of the `bootstate` FAT (§1.1)."""

CONFIRMED, TRIAL, TRIES, SEQUENCE = VARIABLES = ("confirmed", "trial", "tries", "sequence")
"""Names of the variables, in the order in which we write them; GRUB may reorder them (§3)."""

NO_TRIAL = "none"

DEFAULT_TRIES = 3
"""An owner who pulls the plug may pull it twice: one spare beyond that."""

MAX_TRIES = 9
"""One digit, so that GRUB's script, which cannot subtract, needs one line per value (§3.3)."""

MAX_SEQUENCE = 999_999_999
"""Nine digits: below 2^31, so GRUB's signed comparison holds on every platform (§3.4)."""

FIRST_SEQUENCE = 1


class Slot(enum.Enum):
    A = "a"
    B = "b"

    @property
    def other(self) -> Slot:
        return Slot.B if self is Slot.A else Slot.A


class BootStateError(MamoriError):
    """Not a boot state: a block that breaks a clause of docs/boot-state.md, or a value that no block can hold."""


@dataclass(frozen=True)
class BootState:
    """`tries` counts starts of `trial` that are still allowed: 0 with a trial means that it had its chances (§3.3)."""

    confirmed: Slot
    trial: Slot | None = None
    tries: int = 0
    sequence: int = FIRST_SEQUENCE

    def __post_init__(self) -> None:
        if self.trial is self.confirmed:
            raise BootStateError(f"boot state: slot {self.confirmed.value} is confirmed and on trial (§3.2)")
        if not 0 <= self.tries <= (MAX_TRIES if self.trial else 0):
            raise BootStateError(f"boot state: {self.tries} tries with trial {_slot_name(self.trial)} (§3.3)")
        if not 0 <= self.sequence <= MAX_SEQUENCE:
            raise BootStateError(f"boot state: sequence {self.sequence} is not 0 to {MAX_SEQUENCE} (§3.4)")


def encode(state: BootState) -> bytes:
    """The state as a block of BLOCK_BYTES; `decode` gives it back."""
    values = (state.confirmed.value, _slot_name(state.trial), str(state.tries), str(state.sequence))
    lines = "".join(f"{name}={value}\n" for name, value in zip(VARIABLES, values, strict=True))
    return (SIGNATURE + lines.encode("ascii")).ljust(BLOCK_BYTES, b"#")


def decode(block: bytes) -> BootState:
    """The state in a block, written by us or by GRUB; BootStateError names the first clause that it breaks."""
    if len(block) != BLOCK_BYTES:
        raise BootStateError(f"boot state: {len(block)} bytes, not {BLOCK_BYTES} (§2.1)")
    if not block.startswith(SIGNATURE):
        raise BootStateError("boot state: no signature of a GRUB environment block (§2.2)")
    if block[SECTOR_BYTES - 1 :].strip(b"#"):
        raise BootStateError("boot state: something else than padding after the first sector (§2.4)")
    values: dict[str, str] = {}
    for name, value in _variables(block):
        if name in values:
            raise BootStateError(f"boot state: `{name}` stands there twice (§2.5)")
        values[name] = value
    missing = [name for name in VARIABLES if name not in values]
    if missing:
        raise BootStateError(f"boot state: no `{missing[0]}` (§3)")
    trial = None if values[TRIAL] == NO_TRIAL else _slot(TRIAL, values[TRIAL])
    tries = _number(TRIES, values[TRIES], MAX_TRIES)
    # Without a trial GRUB does not look at the tries, so neither do we (§3.3).
    return BootState(
        _slot(CONFIRMED, values[CONFIRMED]), trial, tries if trial else 0, _number(SEQUENCE, values[SEQUENCE], MAX_SEQUENCE)
    )


def choose(copies: Sequence[bytes | None]) -> BootState | None:
    """The state that counts among the copies in the order of COPIES, None for one that cannot be read; None if no copy is valid.

    The higher sequence counts; in a tie the fewer tries, since a loader that cannot count up still spends tries; in a
    tie of both the first copy (§4).
    """
    states = [state for state in map(_valid, copies) if state]
    return min(states, key=lambda state: (-state.sequence, state.tries), default=None)


def candidates(state: BootState | None) -> tuple[Slot, Slot]:
    """The slots in the order in which the loader tries them (§5.1); without a state every device starts with A."""
    if state is None:
        return (Slot.A, Slot.B)
    first = state.trial if state.trial and state.tries else state.confirmed
    return (first, first.other)


def locate(partition: bytes) -> tuple[int, ...]:
    """Offsets in bytes, ascending, of every sector in the `bootstate` partition that starts with a block's signature (§6.2)."""
    offsets = range(0, len(partition) - BLOCK_BYTES + 1, SECTOR_BYTES)
    return tuple(offset for offset in offsets if partition.startswith(SIGNATURE, offset))


def _variables(block: bytes) -> Iterator[tuple[str, str]]:
    """Name and value of every variable, by GRUB's own rules (§2.3): a line that starts with `#` is skipped, a value ends at
    a newline without a backslash before it, and a name at the first `=`, wherever that is. Reading stops without a
    word at what does not end."""
    position = len(SIGNATURE)
    while position < len(block):
        if block[position] == ord("#"):
            position = _end_of_line(block, position) + 1
            continue
        equals = block.find(b"=", position)
        end = _end_of_line(block, equals + 1)
        if equals < 0 or end >= len(block):
            return
        value = re.sub(rb"\\(.)", rb"\1", block[equals + 1 : end], flags=re.DOTALL)
        yield block[position:equals].decode("latin-1"), value.decode("latin-1")
        position = end + 1


def _end_of_line(block: bytes, position: int) -> int:
    while position < len(block) and block[position] != ord("\n"):
        position += 2 if block[position] == ord("\\") else 1
    return position


def _valid(copy: bytes | None) -> BootState | None:
    try:
        return decode(copy) if copy is not None else None
    except BootStateError:
        return None


def _slot_name(slot: Slot | None) -> str:
    return slot.value if slot else NO_TRIAL


def _slot(name: str, value: str) -> Slot:
    try:
        return Slot(value)
    except ValueError:
        raise BootStateError(f"boot state: `{name}` is {value[:20]!r}, not a slot (§3)") from None


def _number(name: str, value: str, limit: int) -> int:
    # GRUB reads a leading 0 as octal, so a number has exactly one spelling.
    if not re.fullmatch(f"0|[1-9][0-9]{{0,{len(str(limit)) - 1}}}", value):
        raise BootStateError(f"boot state: `{name}` is {value[:20]!r}, not a number from 0 to {limit} (§3)")
    return int(value)

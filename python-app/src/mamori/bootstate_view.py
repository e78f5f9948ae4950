"""Shows the boot state as the loader will see it: from two files, or from the partition, which is never mounted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mamori.formats.bootstate import BLOCK_BYTES, COPIES, NO_TRIAL, BootState, BootStateError, candidates, choose, decode, locate
from mamori.paths import Device
from mamori.sysfs import UnreadableError, read_bytes

MAX_PARTITION_BYTES = 16 * 1024 * 1024
"""Boards give the partition 4 MiB; more would be another partition."""


def read_boot_state(device: Device, files: Sequence[Path]) -> dict[str, Any]:
    """Each copy with its state or what is wrong with it, the state that counts or None, and the order of the slots.

    UnreadableError if a file, or without files the partition, cannot be read or does not hold two blocks.
    """
    blocks = [read_bytes(path, BLOCK_BYTES) for path in files] if files else _read_partition(device)
    counts = choose(blocks)
    return {
        "copies": [{"name": name, **_view(block)} for name, block in zip(COPIES, blocks, strict=True)],
        "state": _plain(counts) if counts else None,
        "candidates": [slot.value for slot in candidates(counts)],
    }


def render_boot_state(view: dict[str, Any]) -> str:
    """The same for people, each line with a newline."""
    lines = [f"{copy['name']}  {_words(copy['state']) if copy['state'] else copy['error']}" for copy in view["copies"]]
    lines.append(f"counts       {_words(view['state']) if view['state'] else 'no copy is valid'}")
    lines.append(f"starts       {', then '.join(view['candidates'])}")
    return "".join(f"{line}\n" for line in lines)


def _read_partition(device: Device) -> list[bytes]:
    content = read_bytes(device.bootstate, MAX_PARTITION_BYTES)
    offsets = locate(content)
    if len(offsets) != len(COPIES):
        raise UnreadableError(f"{device.bootstate}: {len(offsets)} boot state blocks, not {len(COPIES)} (docs/boot-state.md §6.2)")
    return [content[offset : offset + BLOCK_BYTES] for offset in offsets]


def _view(block: bytes) -> dict[str, Any]:
    try:
        return {"state": _plain(decode(block)), "error": None}
    except BootStateError as error:
        return {"state": None, "error": str(error)}


def _plain(state: BootState) -> dict[str, Any]:
    trial = state.trial.value if state.trial else None
    return {"confirmed": state.confirmed.value, "trial": trial, "tries": state.tries, "sequence": state.sequence}


def _words(state: dict[str, Any]) -> str:
    return " ".join(f"{name}={NO_TRIAL if value is None else value}" for name, value in state.items())

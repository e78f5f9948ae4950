"""What RAUC asks and orders of the boot loader, over files that are partitions."""

from __future__ import annotations

from pathlib import Path

import pytest

from mamori.formats.bootstate import BootState, Slot, encode
from mamori.formats.problems import MamoriError
from mamori.paths import Device
from mamori.update.backend import SPOILED_BYTES, answer

FAT = b"\xeb\x3c\x90mkfs.fat".ljust(SPOILED_BYTES + 1024, b"x")


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """Slot A runs; both slots can be loaded."""
    device = Device(tmp_path)
    for path in (device.bootstate, device.slot):
        path.parent.mkdir(parents=True, exist_ok=True)
    device.slot.write_text("a\n")
    device.bootstate.write_bytes(bytes(8192) + 2 * encode(BootState(Slot.A)).ljust(2048, b"\0") + bytes(8192))
    for slot in Slot:
        device.boot_partition(slot.value).write_bytes(FAT)
    return device


def test_the_slot_that_the_loader_would_take_is_the_primary_one(device: Device) -> None:
    assert answer(device, ["get-primary"]) == "a"
    armed = encode(BootState(Slot.A, Slot.B, 3, 2)).ljust(2048, b"\0")
    device.bootstate.write_bytes(bytes(8192) + 2 * armed + bytes(8192))
    assert answer(device, ["get-primary"]) == "b"
    assert answer(device, ["get-current"]) == "a"


def test_a_slot_is_bad_from_when_it_is_spoiled_until_it_is_written(device: Device) -> None:
    assert [answer(device, ["get-state", slot]) for slot in "ab"] == ["good", "good"]
    assert answer(device, ["set-state", "b", "bad"]) == ""
    assert answer(device, ["get-state", "b"]) == "bad"
    assert device.boot_partition("b").read_bytes() == bytes(SPOILED_BYTES) + b"x" * 1024
    assert answer(device, ["set-state", "b", "good"]) == ""
    assert answer(device, ["get-state", "b"]) == "bad", "words do not make it good"
    device.boot_partition("b").write_bytes(FAT)
    assert answer(device, ["get-state", "b"]) == "good"


def test_a_boot_partition_smaller_than_what_is_spoiled_keeps_its_size(device: Device) -> None:
    device.boot_partition("b").write_bytes(FAT[:700])
    answer(device, ["set-state", "b", "bad"])
    assert device.boot_partition("b").read_bytes() == bytes(700)


@pytest.mark.parametrize(
    "words",
    [
        ["set-state", "a", "bad"],
        ["set-primary", "b"],
        ["get-state", "c"],
        ["set-state", "../a", "bad"],
        ["set-state", "b", "fine"],
        ["get-primary", "a"],
        [""],
        [],
    ],
)
def test_what_may_not_be_is_refused_and_nothing_is_changed(device: Device, words: list[str]) -> None:
    before = device.bootstate.read_bytes()
    with pytest.raises(MamoriError):
        answer(device, words)
    assert device.bootstate.read_bytes() == before
    assert [device.boot_partition(slot).read_bytes() for slot in "ab"] == [FAT, FAT]


def test_a_partition_that_is_not_there_is_told(device: Device) -> None:
    device.boot_partition("b").unlink()
    with pytest.raises(MamoriError, match="boot-b: No such file"):
        answer(device, ["get-state", "b"])
    with pytest.raises(MamoriError, match="boot-b: No such file"):
        answer(device, ["set-state", "b", "bad"])

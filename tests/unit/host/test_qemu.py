"""The machine's argument list, its disk, its variables, and taps: what can be said without a start."""

from __future__ import annotations

import dataclasses
import itertools
import os
import socket
from pathlib import Path

import pytest

from firmware.netns import call_in_namespace, open_tap, start_namespace
from firmware.process import Argument
from firmware.qemu import MAC_ADDRESSES, Accelerator, Media, plan_machine, prepare_media
from firmware.recipe import Board, Ports, read_image
from mamori.formats.problems import MamoriError
from tests.support.need import need
from tests.support.recipes import SOURCE

CABLES = {"wan": "user", "lan": "tap,fd=7"}
MEDIA = Media(Path("/box,1/disk.img"), Path("/box,1/variables.fd"))


@pytest.fixture(scope="module")
def board() -> Board:
    return read_image("lab", SOURCE).board


def values(argv: list[Argument], option: str) -> list[str]:
    return [str(value) for name, value in itertools.pairwise(argv) if name == option]


def test_the_machine_is_what_the_board_says(board: Board) -> None:
    assert board.qemu
    facts = dataclasses.replace(board.qemu, machine="q35,x=1", cpu="some-cpu", memory_mib=777, cpus=3, watchdog="some-dog")
    argv = plan_machine(dataclasses.replace(board, qemu=facts), MEDIA, Accelerator.TCG, CABLES)
    assert values(argv, "-machine") == ["q35,x=1"]
    assert values(argv, "-cpu") == ["some-cpu"]
    assert values(argv, "-m") == ["777"]
    assert values(argv, "-smp") == ["3"]
    assert "some-dog" in values(argv, "-device")
    assert values(argv, "-action") == ["watchdog=reset"]


def test_a_disk_whose_writes_are_logged_is_behind_the_driver_that_does_it(board: Board) -> None:
    logged = dataclasses.replace(MEDIA, writes=Path("/box,1/writes"))
    (disk,) = [value for value in values(plan_machine(board, logged, Accelerator.TCG, CABLES), "-drive") if "id=disk" in value]
    assert "driver=blklogwrites" in disk
    assert "file.filename=/box,,1/disk.img" in disk
    assert "log.filename=/box,,1/writes" in disk


def test_a_stick_is_a_removable_disk_on_usb_and_not_what_is_started_from(board: Board) -> None:
    argv = plan_machine(board, dataclasses.replace(MEDIA, stick=Path("/box,1/stick.img")), Accelerator.TCG, CABLES)
    assert "if=none,id=stick,format=raw,file=/box,,1/stick.img" in values(argv, "-drive")
    assert "usb-storage,bus=xhci.0,drive=stick,removable=on" in values(argv, "-device")
    assert not any("usb" in device for device in values(plan_machine(board, MEDIA, Accelerator.TCG, CABLES), "-device"))


@pytest.mark.parametrize(("wan", "lan"), [(0, 1), (1, 0), (2, 5)])
def test_ports_lie_on_the_bus_in_the_order_that_the_board_gives(board: Board, wan: int, lan: int) -> None:
    argv = plan_machine(dataclasses.replace(board, ports=Ports(wan, lan)), MEDIA, Accelerator.TCG, CABLES)
    slots = {}
    for device in values(argv, "-device"):
        options = dict(part.split("=") for part in device.split(",")[1:])
        if "netdev" in options:
            assert options["mac"] == MAC_ADDRESSES[options["netdev"]]
            slots[options["netdev"]] = int(options["addr"], 16)
    assert slots["lan"] - slots["wan"] == lan - wan
    assert values(argv, "-netdev") == ["user,id=wan", "tap,fd=7,id=lan"]


def test_only_smm_code_may_write_the_keys(board: Board) -> None:
    argv = plan_machine(board, MEDIA, Accelerator.KVM, CABLES)
    assert "driver=cfi.pflash01,property=secure,value=on" in values(argv, "-global")
    code, variables = (drive for drive in values(argv, "-drive") if "if=pflash" in drive)
    assert "readonly=on" in code
    assert "readonly" not in variables


def test_a_comma_in_a_path_does_not_end_the_option(board: Board) -> None:
    drives = values(plan_machine(board, MEDIA, Accelerator.TCG, CABLES), "-drive")
    assert any(drive.endswith("file=/box,,1/disk.img") for drive in drives)


def test_a_board_without_emulation_is_named_as_the_reason(board: Board) -> None:
    with pytest.raises(MamoriError, match=r"\[qemu\]"):
        plan_machine(dataclasses.replace(board, qemu=None), MEDIA, Accelerator.TCG, CABLES)


@pytest.fixture
def image(tmp_path: Path) -> tuple[Path, Path]:
    disk, variables = tmp_path / "image", tmp_path / "variables"
    disk.write_bytes(b"image" + bytes(100_000))
    variables.write_bytes(b"keys")
    return disk, variables


def test_the_disk_keeps_what_a_machine_wrote_until_the_image_changes(tmp_path: Path, image: tuple[Path, Path]) -> None:
    media, is_new = prepare_media(tmp_path / "machine", *image)
    assert is_new
    assert media.disk.read_bytes() == image[0].read_bytes()
    media.disk.write_bytes(b"written")
    assert prepare_media(tmp_path / "machine", *image) == (media, False)
    assert media.disk.read_bytes() == b"written"
    image[0].write_bytes(b"another image")
    assert prepare_media(tmp_path / "machine", *image) == (media, True)
    assert media.disk.read_bytes() == b"another image"
    assert media.variables.read_bytes() == b"keys"


def test_a_fresh_disk_is_one_that_no_machine_wrote_to(tmp_path: Path, image: tuple[Path, Path]) -> None:
    media, _ = prepare_media(tmp_path / "machine", *image)
    media.disk.write_bytes(b"written")
    assert prepare_media(tmp_path / "machine", *image, fresh=True) == (media, True)
    assert media.disk.read_bytes() == image[0].read_bytes()


def test_a_larger_disk_has_the_image_at_its_start(tmp_path: Path, image: tuple[Path, Path]) -> None:
    media, _ = prepare_media(tmp_path / "machine", *image, size_bytes=1_000_000)
    assert media.disk.stat().st_size == 1_000_000
    assert media.disk.read_bytes().startswith(b"image")


def test_a_machine_that_still_runs_keeps_its_disk_when_another_is_made(tmp_path: Path, image: tuple[Path, Path]) -> None:
    media, _ = prepare_media(tmp_path / "machine", *image)
    with media.disk.open("rb") as running:
        prepare_media(tmp_path / "machine", *image, fresh=True)
        media.disk.write_bytes(b"of the new machine")
        assert running.read() == image[0].read_bytes()


def test_a_missing_namespace_is_named() -> None:
    with pytest.raises(MamoriError, match="no network namespace nowhere"):
        open_tap("nowhere", "tap0")


def test_a_name_that_linux_would_cut_off_is_refused() -> None:
    with pytest.raises(MamoriError, match="15 bytes"):
        open_tap("nowhere", "a-name-of-16-let")


def test_a_tap_is_opened_inside_the_namespace_is_up_and_goes_with_its_descriptor() -> None:
    need(os.geteuid() == 0, "namespaces and taps need root")
    need("ip", "makes the namespace")
    with start_namespace(f"mamori-test-{os.getpid()}") as name:

        def interfaces() -> list[str]:
            return [entry[1] for entry in call_in_namespace(name, socket.if_nameindex)]

        tap = open_tap(name, "some-tap")
        try:
            assert "some-tap" in interfaces()
            assert "some-tap" not in [entry[1] for entry in socket.if_nameindex()]
            with pytest.raises(MamoriError, match="some-tap"):
                open_tap(name, "some-tap")
        finally:
            os.close(tap)
        assert "some-tap" not in interfaces()


def test_what_fails_inside_a_namespace_is_raised_outside() -> None:
    need(os.geteuid() == 0, "namespaces need root")
    with start_namespace(f"mamori-test-{os.getpid()}") as name, pytest.raises(ZeroDivisionError):
        call_in_namespace(name, lambda: 1 // 0)

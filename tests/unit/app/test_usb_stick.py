"""The script of mamori-usb@.service over a loop device in place of a stick: what it mounts, how, and what it leaves behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.process import run
from firmware.recipe import ROOT
from mamori.paths import Device
from mamori.update.usb import REPOSITORY, Plug, list_plugs
from tests.support.need import need

SCRIPT = ROOT / "overlay/common/usr/lib/mamori/usb-stick"


class Stick:
    """A file system in a file behind a loop device, and a box that it is put into."""

    def __init__(self, folder: Path) -> None:
        self.image, self.device, self.content = folder / "stick.img", Device(folder / "box"), folder / "content"
        (self.content / REPOSITORY / "metadata").mkdir(parents=True)
        for path in (self.device.root / "proc/uptime", folder / "bin/mamori", self.device.data / "x"):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.up_for(20)
        (folder / "bin/mamori").write_text(
            f'#!/bin/sh\nPYTHONPATH={ROOT / "python-app/src"} exec {sys.executable} -m mamori.cli --root {self.device.root} "$@"\n'
        )
        (folder / "bin/mamori").chmod(0o755)
        self._environment = {"PATH": f"{folder / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin", "MAMORI_ROOT": str(self.device.root)}
        self.loop = ""

    def up_for(self, seconds: int) -> None:
        (self.device.root / "proc/uptime").write_text(f"{seconds}.50 10.00\n")

    def make(self, *arguments: str) -> None:
        """Format it with what is in `content`, and have a device for it."""
        self.image.write_bytes(bytes(8 << 20))
        if arguments:
            run([*arguments, self.image], explain="format the stick")
        self.loop = run(["losetup", "--find", "--show", self.image], explain="a device").stdout.strip()

    def run(self, verb: str) -> int:
        argv = ["/bin/sh", SCRIPT, verb, Path(self.loop).name]
        return subprocess.run(argv, env=self._environment, timeout=30, check=False, capture_output=True).returncode

    @property
    def mounted(self) -> Path:
        return self.device.sticks / Path(self.loop).name

    @property
    def options(self) -> set[str]:
        """Of the mount; none where nothing is mounted."""
        for line in Path("/proc/self/mounts").read_text().splitlines():
            source, point, kind, options = line.split()[:4]
            if point == str(self.mounted):
                return {source, kind, *options.split(",")}
        return set()


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Stick]:
    need(os.geteuid() == 0, "only root has loop devices and mounts")
    need("mkfs.ext4", "formats a stick")
    stick = Stick(tmp_path)
    try:
        yield stick
    finally:
        stick.run("release")
        if stick.loop:
            run(["losetup", "--detach", stick.loop], explain="give the device back")


def ext4(stick: Stick, *more: str) -> tuple[str, ...]:
    return ("mkfs.ext4", "-q", "-d", str(stick.content), *more)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_stick_is_mounted_to_be_read_and_not_one_byte_of_it_changes(stick: Stick) -> None:
    stick.make(*ext4(stick, "-O", "^metadata_csum"))
    # As pulled out of another computer: the journal wants to be played back (ext4's `needs_recovery`, incompatible feature 4).
    with stick.image.open("r+b") as file:
        file.seek(1024 + 96)
        features = int.from_bytes(file.read(4), "little") | 4
        file.seek(1024 + 96)
        file.write(features.to_bytes(4, "little"))
    before = digest(stick.image)
    assert stick.run("mount") == 0
    assert {stick.loop, "ext4", "ro", "nosuid", "nodev", "noexec"} <= stick.options
    (plug,) = list_plugs(stick.device.sticks)
    assert plug == Plug(stick.mounted.name, plug.number)
    assert (stick.mounted / REPOSITORY / "metadata").is_dir()
    assert stick.run("release") == 0
    assert stick.options == set()
    assert list(stick.device.sticks.iterdir()) == []
    assert digest(stick.image) == before


def test_a_stick_that_somebody_reads_can_be_pulled_out(stick: Stick) -> None:
    (stick.content / "file").write_bytes(bytes(100_000))
    stick.make(*ext4(stick))
    assert stick.run("mount") == 0
    with (stick.mounted / "file").open("rb"):
        assert stick.run("release") == 0
        assert list(stick.device.sticks.iterdir()) == []


def test_what_is_no_file_system_that_we_want_is_left_alone(stick: Stick) -> None:
    stick.make()
    assert stick.run("mount") == 0
    assert stick.options == set()
    assert list(stick.device.sticks.iterdir()) == []


def test_half_a_file_system_is_an_error_and_leaves_nothing(stick: Stick) -> None:
    stick.make(*ext4(stick))
    with stick.image.open("r+b") as file:
        file.seek(1024 + 4)
        file.write((1 << 30).to_bytes(4, "little"))  # more blocks than the stick has
    assert stick.run("mount") != 0
    assert list(stick.device.sticks.iterdir()) == []


@pytest.mark.parametrize(
    ("up_s", "is_marked"), [pytest.param(20, True, id="at power-on"), pytest.param(301, False, id="later: that is an accident")]
)
def test_a_stick_asks_for_a_factory_reset_when_the_power_comes(stick: Stick, up_s: int, is_marked: bool) -> None:
    (stick.content / "MAMORI-RESET").touch()
    stick.make(*ext4(stick))
    stick.up_for(up_s)
    assert stick.run("mount") == 0
    assert stick.device.reset_mark.exists() is is_marked
    if is_marked:
        assert "a USB stick" in stick.device.reset_mark.read_text()


@pytest.mark.parametrize("way", ["a folder", "a link", "nothing"])
def test_nothing_else_asks_for_one(stick: Stick, way: str) -> None:
    asks = stick.content / "MAMORI-RESET"
    if way == "a folder":
        asks.mkdir()
    elif way == "a link":
        asks.symlink_to("/etc/passwd")
    stick.make(*ext4(stick))
    assert stick.run("mount") == 0
    assert not stick.device.reset_mark.exists()

"""The updater as a process over a folder that stands for an appliance. No test is in here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from firmware.process import Argument, Running, run, start
from firmware.recipe import ROOT
from mamori.formats.bootstate import BootState, Slot, choose, encode, locate
from mamori.formats.release import Update
from mamori.formats.release import encode as encode_release
from mamori.paths import Device
from tests.support.guarded import RELEASE
from tests.support.update_world import COMPATIBLE
from tests.support.wait import check_until, patience_s

ENVIRONMENT = {"PYTHONPATH": str(ROOT / "python-app/src")}


def make_device(root: Path) -> Device:
    """An appliance in a folder: slot A runs, nothing is on trial."""
    device = Device(root)
    for path in (device.release, device.slot, device.bootstate, device.journal, device.tuf_anchor, device.update_runtime / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
    device.release.write_bytes(encode_release(replace(RELEASE, update=Update(COMPATIBLE), features=("portal",))))
    device.slot.write_text("a\n")
    write_state(device, BootState(Slot.A))
    return device


def write_state(device: Device, state: BootState) -> None:
    device.bootstate.write_bytes(bytes(8192) + 2 * encode(state).ljust(2048, b"\0") + bytes(8192))


def read_state(device: Device) -> BootState | None:
    content = device.bootstate.read_bytes()
    return choose([content[offset : offset + 1024] for offset in locate(content)])


def mamori(device: Device, *words: str) -> str:
    argv: list[Argument] = [sys.executable, "-m", "mamori.cli", "--root", device.root, *words]
    return run(argv, explain="ask", env=ENVIRONMENT).stdout


def refuse(device: Device, *words: str) -> str:
    """What a command says that does not do it."""
    argv: list[Argument] = [sys.executable, "-m", "mamori.cli", "--root", device.root, *words]
    return run(argv, explain="ask", env=ENVIRONMENT, accept=[2]).stderr


def status(device: Device) -> dict[str, Any]:
    return json.loads(mamori(device, "update", "status", "--json"))


@contextlib.contextmanager
def updater(device: Device) -> Iterator[Running]:
    argv: list[Argument] = [sys.executable, "-m", "mamori.cli", "--root", device.root, "update", "service"]
    socket = device.update_runtime / "socket"
    socket.unlink(missing_ok=True)
    with start(argv, explain="update", env=ENVIRONMENT, log=device.root / "log") as running:
        check_until("the updater answers", lambda: running.check() or socket.exists(), within_s=20)
        yield running
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait(patience_s(10)) == 0, (device.root / "log").read_text()

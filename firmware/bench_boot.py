"""How long an office is offline: from power-on to the first frame through the box, and to everything being ready.

Each round starts the image twice under the same QEMU, one after the other: as it is, and bare (`firmware.bench_bare`).
Frames are sent into the `lan` port all the time, and the first one that comes out of `wan` ends the outage.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from firmware.bench_bare import DISK as BARE_DISK
from firmware.bench_bare import build_bare_disk
from firmware.build import Built
from firmware.netns import call_in_namespace, start_namespace
from firmware.process import run
from firmware.qemu import TAPS, Accelerator, choose_accelerator, prepare_media, start_machine
from firmware.varstore import EMPTY, build_varstore
from firmware.workspace import Workspace
from mamori.formats.problems import MamoriError

READY = "mamori: ready "
READY_WITHIN_S = 300.0
ROUNDS = 3

MAX_FIRST_FRAME_RATIO, MAX_BARE_RATIO = 0.5, 1.2
"""The targets: a first frame in half the time to ready, and ready in 1.2 times that of a bare start."""

_FRAME_INTERVAL_S = 0.02
_KIND = 0x88B5  # IEEE 802: local experimental EtherType 1
_TARGET, _SOURCE = bytes.fromhex("024d00000001"), bytes.fromhex("024d00000002")


def bench_boot(workspace: Workspace, built: Built, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure `rounds` starts of either kind; all figures are in seconds."""
    accelerator = choose_accelerator()
    variables = build_varstore(workspace, built.signer.keyset)
    bare = build_bare_disk(workspace, built) / BARE_DISK
    measured: dict[str, list[float]] = {"first_frame_s": [], "ready_s": [], "bare_ready_s": []}
    for number in range(1, rounds + 1):
        with workspace.console.step(f"start {number} of {rounds}"):
            first_frame_s, ready_s = _time_start(built, built.disk, variables, accelerator)
            if first_frame_s is None:
                raise MamoriError("the box was ready, but no frame had come through it")
            measured["first_frame_s"].append(first_frame_s)
            measured["ready_s"].append(ready_s)
            measured["bare_ready_s"].append(_time_start(built, bare, EMPTY, accelerator)[1])
    return {"accelerator": accelerator.value, **_summarise(measured)}


def _summarise(measured: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: round(statistics.median(values), 2) for name, values in measured.items()}
    first_frame = medians["first_frame_s"] / medians["ready_s"]
    bare = medians["ready_s"] / medians["bare_ready_s"]
    return {
        "medians": medians,
        "first_frame_to_ready": {
            "ratio": round(first_frame, 3),
            "target": MAX_FIRST_FRAME_RATIO,
            "met": first_frame <= MAX_FIRST_FRAME_RATIO,
        },
        "ready_to_bare": {"ratio": round(bare, 3), "target": MAX_BARE_RATIO, "met": bare <= MAX_BARE_RATIO},
        "rounds": {name: [round(value, 2) for value in values] for name, values in measured.items()},
    }


def _time_start(built: Built, disk: Path, variables: Path, accelerator: Accelerator) -> tuple[float | None, float]:
    """Seconds from QEMU's start to the first forwarded frame (None if there was none) and to ready."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mamori-bench-")))
        sides = {side: stack.enter_context(start_namespace(f"mamori-bench-{side}-{os.getpid()}")) for side in ("wan", "lan")}
        media, _ = prepare_media(folder, disk, variables)
        # Copies are out of the way before the clock starts.
        os.sync()
        frames = stack.enter_context(_start_frames(sides))
        board, lan, wan = built.image.board, sides["lan"], sides["wan"]
        machine = stack.enter_context(start_machine(board, folder, media, lan=lan, wan=wan, accelerator=accelerator))
        ready_s = machine.wait_for(READY, READY_WITHIN_S)
        return (frames[0] - machine.started if frames else None), ready_s


@contextlib.contextmanager
def _start_frames(sides: dict[str, str]) -> Iterator[list[float]]:
    """Frames go into the lan port; the list gets the moment (CLOCK_MONOTONIC) when the first one came out of wan."""
    arrivals: list[float] = []
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        for side, namespace in sides.items():
            run(
                ["ip", "-n", namespace, "tuntap", "add", "dev", TAPS[side], "mode", "tap", "vnet_hdr"],
                explain=f"lay the cable to {side}",
            )
            run(["ip", "-n", namespace, "link", "set", TAPS[side], "up"], explain=f"raise the cable to {side}")
        outgoing = stack.enter_context(call_in_namespace(sides["lan"], lambda: _open(TAPS["lan"])))
        incoming = stack.enter_context(call_in_namespace(sides["wan"], lambda: _open(TAPS["wan"])))
        threads = [
            threading.Thread(target=_send, args=(outgoing, stop)),
            threading.Thread(target=_receive, args=(incoming, stop, arrivals)),
        ]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        yield arrivals


def _open(tap: str) -> socket.socket:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_KIND))
    packets.bind((tap, _KIND))
    packets.settimeout(0.2)
    return packets


def _send(packets: socket.socket, stop: threading.Event) -> None:
    frame = _TARGET + _SOURCE + struct.pack("!H", _KIND) + bytes(46)
    while not stop.wait(_FRAME_INTERVAL_S):
        with contextlib.suppress(OSError):  # until QEMU has plugged in, the network is down or its queue full
            packets.send(frame)


def _receive(packets: socket.socket, stop: threading.Event, arrivals: list[float]) -> None:
    while not stop.is_set() and not arrivals:
        with contextlib.suppress(TimeoutError):
            if packets.recv(2048).startswith(_TARGET + _SOURCE):
                arrivals.append(time.monotonic())

"""The box as a QEMU machine: UEFI with our Secure Boot keys, two ports, a watchdog, a serial console.

A machine is what `board.qemu` says; this module adds what differs from start to start. The two ports are cables: each ends
in a tap in a network namespace, or, without one, `wan` in QEMU's own network (which hands out an address and forwards SSH)
and `lan` nowhere.
"""

from __future__ import annotations

import contextlib
import enum
import os
import shlex
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from firmware.build import Built
from firmware.console import Console
from firmware.kvm import probe
from firmware.netns import open_tap
from firmware.process import PIPE, Argument, Running, run, start
from firmware.recipe import PORTS, Board, Qemu
from firmware.varstore import CODE, build_varstore
from firmware.workspace import Workspace
from mamori.formats.problems import MamoriError
from mamori.formats.release import Variant
from signing.uri import FileKey

TAPS: Mapping[str, str] = {port: f"mamori-{port}" for port in PORTS}
"""The name of a port's tap in its namespace: the office plugs in there."""

MAC_ADDRESSES: Mapping[str, str] = {"wan": "52:54:00:4d:00:00", "lan": "52:54:00:4d:00:01"}
"""Locally administered, in QEMU's range. The bridge takes that of `wan`."""

DISK, SERIAL = "disk.img", "serial.log"

_VARIABLES, _SOURCE, _LOG = "variables.fd", "disk.source", "qemu.log"
_NOWHERE = "socket,udp=127.0.0.1:9,localaddr=127.0.0.1:0"
"""Frames go to the discard port. A hub without a peer takes none, and the guest then complains about a stuck queue."""
_FIRST_SLOT = 0x10  # PCI slots of the ports: behind everything that QEMU places, and in the order of board.ports
_SSH_PORTS = range(2222, 2240)  # the first that is free; the range only ends so that a person can remember it
_POLL_S = 0.005  # bench_boot takes times from the serial log
_TAIL_CHARACTERS = 1500


class Accelerator(enum.Enum):
    KVM = "kvm"
    TCG = "tcg,thread=multi"


@dataclass(frozen=True)
class Media:
    """What a machine starts from and writes to: its own copies. `writes`, if there is one, becomes the log of all that is
    written to the disk (firmware.powercut.writelog). `stick` is a USB stick that is plugged in when the power comes."""

    disk: Path
    variables: Path
    writes: Path | None = None
    stick: Path | None = None


class Machine:
    """A running machine. `serial` is the log of its console, `started` when QEMU was started (CLOCK_MONOTONIC, seconds)."""

    def __init__(self, running: Running, folder: Path, ssh_port: int | None, started: float) -> None:
        self._running = running
        self.serial, self.ssh_port, self.started = folder / SERIAL, ssh_port, started

    @property
    def alive(self) -> bool:
        return self._running.code is None

    @property
    def console(self) -> str:
        """Everything that the serial console has said so far."""
        return self.serial.read_text(errors="replace") if self.serial.exists() else ""

    def check(self) -> None:
        """ToolError with QEMU's last words, if it has ended."""
        self._running.check()

    def wait(self) -> int:
        """QEMU's exit code."""
        return self._running.wait()

    def wait_for(self, text: str, within_s: float, times: int = 1) -> float:
        """When the console had said `text` for the `times`-th time, in seconds after the start; MamoriError if it does not."""
        deadline = time.monotonic() + within_s
        while self.console.count(text) < times:
            self._running.check()
            if time.monotonic() > deadline:
                tail = self.console[-_TAIL_CHARACTERS:]
                raise MamoriError(f"the machine did not say {text!r} in {within_s:g} s; its console ends with:\n{tail}")
            time.sleep(_POLL_S)
        return time.monotonic() - self.started

    def kill(self) -> None:
        """The plug is pulled: no process of the guest, and not QEMU, gets to finish anything."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._running.pid, signal.SIGKILL)
        self._running.wait()


def choose_accelerator() -> Accelerator:
    """KVM where it really works."""
    return Accelerator.TCG if probe() else Accelerator.KVM


def plan_machine(board: Board, media: Media, accelerator: Accelerator, cables: Mapping[str, str]) -> list[Argument]:
    """QEMU's argument list, without a console. `cables` gives each port its network backend (`-netdev` without the id)."""
    facts = _facts(board)
    argv: list[Argument] = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-machine", facts.machine, "-accel", accelerator.value, "-cpu", facts.cpu]
    argv += ["-smp", str(facts.cpus), "-m", str(facts.memory_mib)]
    # Only SMM code may write to the flash that holds the key variables.
    argv += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    argv += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_escape(CODE)}"]
    argv += ["-drive", f"if=pflash,unit=1,format=raw,file={_escape(media.variables)}"]
    argv += ["-drive", _plan_disk(media), "-device", f"{facts.disk},drive=disk,bootindex=0"]
    if media.stick is not None:
        argv += ["-device", "qemu-xhci,id=xhci", "-drive", f"if=none,id=stick,format=raw,file={_escape(media.stick)}"]
        argv += ["-device", "usb-storage,bus=xhci.0,drive=stick,removable=on"]
    for port, number in (("wan", board.ports.wan), ("lan", board.ports.lan)):
        argv += ["-netdev", f"{cables[port]},id={port}"]
        argv += ["-device", f"{facts.nic},netdev={port},mac={MAC_ADDRESSES[port]},addr={_FIRST_SLOT + number:#x},romfile="]
    return [*argv, "-device", facts.watchdog, "-action", "watchdog=reset"]


@contextlib.contextmanager
def start_machine(
    board: Board,
    folder: Path,
    media: Media,
    *,
    lan: str = "",
    wan: str = "",
    accelerator: Accelerator,
    foreground: bool = False,
    serial_number: str = "",
) -> Iterator[Machine]:
    """The machine, running until the block is left. `lan` and `wan` name network namespaces, `serial_number` is what its nameplate
    says (SMBIOS, type 1).

    Its console is on our terminal in the `foreground`, otherwise in the log below `folder`.
    """
    _facts(board)
    with contextlib.ExitStack() as cables:
        taps = {port: _open_cable(cables, namespace, port) for port, namespace in (("wan", wan), ("lan", lan)) if namespace}
        ssh_port = None if wan else _free_port()
        backends = {"wan": f"user,hostfwd=tcp:127.0.0.1:{ssh_port}-:22", "lan": _NOWHERE}
        backends |= {port: f"tap,fd={descriptor}" for port, descriptor in taps.items()}
        argv = [*plan_machine(board, media, accelerator, backends), *_plan_console(folder, foreground)]
        argv += ["-smbios", f"type=1,serial={serial_number.replace(',', ',,')}"] if serial_number else []
        (folder / SERIAL).unlink(missing_ok=True)
        if media.writes is not None:
            media.writes.write_bytes(b"")
        started = time.monotonic()
        stdin = None if foreground else PIPE
        machine = start(
            argv, explain="run QEMU", log=folder / _LOG, stdin=stdin, pass_fds=list(taps.values()), foreground=foreground
        )
        with machine as running:
            cables.close()  # QEMU has its own now; a tap that we held would outlive it
            yield Machine(running, folder, ssh_port, started)


def prepare_media(folder: Path, disk: Path, variables: Path, *, fresh: bool = False, size_bytes: int = 0) -> tuple[Media, bool]:
    """The machine's own disk and variables in `folder`, and whether they are new.

    What a machine wrote is kept from start to start, until the image at `disk` changes or `fresh` is asked for. A
    `size_bytes` larger than the image makes the disk that large, as a real one would be.
    """
    media, source = Media(folder / DISK, folder / _VARIABLES), folder / _SOURCE
    facts = disk.stat()
    stamp = f"{disk.resolve()} {facts.st_size} {facts.st_mtime_ns} {variables.resolve()}\n"
    if not fresh and source.exists() and source.read_text() == stamp and media.disk.exists() and media.variables.exists():
        return media, False
    folder.mkdir(parents=True, exist_ok=True)
    source.unlink(missing_ok=True)
    # A new file, not the old one overwritten: a machine that still runs keeps its disk.
    media.disk.unlink(missing_ok=True)
    run(["cp", "--sparse=always", "--reflink=auto", disk.resolve(), media.disk], explain="copy the disk image for the machine")
    if size_bytes > facts.st_size:
        os.truncate(media.disk, size_bytes)
    shutil.copyfile(variables, media.variables)
    source.write_text(stamp)
    return media, True


def boot_interactively(built: Built, console: Console, *, lan: str = "", wan: str = "", fresh: bool = False) -> None:
    """The built image on this terminal, until the machine is ended. It keeps its disk from start to start."""
    workspace, folder = Workspace(console), built.folder.parent / "machine"
    variables = build_varstore(workspace, built.signer.keyset)
    accelerator = choose_accelerator()
    known = (folder / _SOURCE).exists()
    media, is_new = prepare_media(folder, built.disk, variables, fresh=fresh)
    if is_new and known:
        console.tell(f"a new disk, because {'--fresh was given' if fresh else 'the image changed'}")
    with start_machine(built.image.board, folder, media, lan=lan, wan=wan, accelerator=accelerator, foreground=True) as machine:
        for line in _describe(built, accelerator, machine.ssh_port, lan, wan):
            console.tell(line)
        if machine.wait():
            machine.check()


def _describe(built: Built, accelerator: Accelerator, ssh_port: int | None, lan: str, wan: str) -> Iterator[str]:
    """What someone in front of the machine wants to know."""
    yield f"{built.image.label} {built.image.version}; leave with Ctrl-A X"
    if accelerator is Accelerator.TCG:
        yield "without KVM, so the start takes half a minute or more"
    for port, namespace in (("wan", wan), ("lan", lan)):
        if namespace:
            yield f"port {port} is {TAPS[port]} in the network namespace {namespace}"
    ssh = built.signer.keyset.ssh
    if ssh_port and ssh and isinstance(ssh.key, FileKey) and built.image.recipe.variant is Variant.LAB:
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        yield f"log in with: ssh -p {ssh_port} -i {shlex.quote(str(ssh.key.path))} {options} root@127.0.0.1"


def _plan_disk(media: Media) -> str:
    if media.writes is None:
        return f"if=none,id=disk,format=raw,file={_escape(media.disk)}"
    # The number of entries is written with each of them: a machine that is killed has no time for it.
    files = f"file.driver=file,file.filename={_escape(media.disk)},log.driver=file,log.filename={_escape(media.writes)}"
    return f"if=none,id=disk,driver=blklogwrites,{files},log-super-update-interval=1"


def _facts(board: Board) -> Qemu:
    if board.qemu is None:
        raise MamoriError("this board has no section [qemu] in its board.toml, so it cannot be emulated", "try --board qemu-x86_64")
    return board.qemu


def _plan_console(folder: Path, foreground: bool) -> list[str]:
    if foreground:
        # One terminal for console and monitor; Ctrl-C belongs to the guest, Ctrl-A X ends the machine.
        return ["-chardev", "stdio,id=serial,mux=on,signal=off", "-serial", "chardev:serial", "-mon", "chardev=serial"]
    log = f"stdio,id=serial,signal=off,logfile={_escape(folder / SERIAL)},logappend=off"
    return ["-chardev", log, "-serial", "chardev:serial", "-monitor", "none"]


def _open_cable(stack: contextlib.ExitStack, namespace: str, port: str) -> int:
    descriptor = open_tap(namespace, TAPS[port])
    stack.callback(os.close, descriptor)
    return descriptor


def _free_port() -> int:
    for port in _SSH_PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe_socket:
            probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe_socket.bind(("127.0.0.1", port))
            return port
    raise MamoriError(f"no port of {_SSH_PORTS.start} to {_SSH_PORTS.stop - 1} is free for SSH to the machine")


def _escape(path: Path) -> str:
    """In QEMU's options a comma is written twice."""
    return str(path).replace(",", ",,")

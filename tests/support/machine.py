"""Boxes: the built image in QEMU, with an office around it or alone, and a way in."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paramiko
import testinfra
from testinfra.host import Host

from firmware.build import Built, build_image
from firmware.console import Console
from firmware.netns import call_in_namespace
from firmware.qemu import Machine, Media, choose_accelerator, prepare_media, start_machine
from firmware.varstore import build_varstore
from firmware.workspace import Workspace
from signing.uri import FileKey
from tests.support.office import BOX, Office
from tests.support.wait import check_until, patience_s

READY = "mamori: ready "
STARTING = "mamori: starting slot "

READY_WITHIN_S = 240.0
"""Half a minute on an idle machine under TCG; others may be using it."""
LOADER_WITHIN_S = 90.0

_RETRY_S = 2.0

Edit = Callable[[Path], None]


@dataclass(frozen=True)
class Box:
    """A box that is up: its machine, and testinfra's view from inside."""

    machine: Machine
    media: Media
    host: Host

    def status(self) -> dict[str, Any]:
        """What `mamori status --json` says."""
        answer: dict[str, Any] = json.loads(self.host.check_output("mamori status --json"))
        return answer

    def packets(self) -> dict[str, Any]:
        """What the inspection reports of its workers and their packets; empty while it does not."""
        report: dict[str, Any] = json.loads(self.host.run("cat /run/mamori/inspect.json").stdout or "{}")
        return report.get("packets") or {}

    def events(self, *arguments: str) -> list[dict[str, Any]]:
        """What `mamori events --json` prints, oldest first."""
        return [json.loads(line) for line in self.host.check_output(f"mamori events --json {' '.join(arguments)}").splitlines()]

    def main_pid(self, unit: str) -> int:
        """The service's main process; 0 while there is none."""
        return int(self.host.check_output(f"systemctl show {unit} --property=MainPID --value"))


def build_lab() -> Built:
    """The lab's image; nothing is done when it is built already."""
    return build_image(Workspace(Console(progress=io.StringIO())), "lab")


@contextlib.contextmanager
def start_box(
    built: Built, *, edit: Edit = lambda _: None, office: Office | None = None, grow_bytes: int = 0, memory_mib: int = 0
) -> Iterator[tuple[Machine, Media]]:
    """A machine on its way up from a factory disk that `edit` has changed, `grow_bytes` larger than the image. Its memory is the
    board's, unless `memory_mib` says otherwise."""
    with tempfile.TemporaryDirectory(prefix="mamori-box-") as name:
        media = prepare_box(built, Path(name), grow_bytes)
        edit(media.disk)
        with start_again(built, media, office=office, memory_mib=memory_mib) as machine:
            yield machine, media


def prepare_box(built: Built, folder: Path, grow_bytes: int = 0) -> Media:
    """A factory disk in `folder`, `grow_bytes` larger than the image, and firmware with the keys."""
    variables = build_varstore(Workspace(Console()), built.signer.keyset)
    media, _ = prepare_media(folder, built.disk, variables, size_bytes=built.disk.stat().st_size + grow_bytes)
    return media


@contextlib.contextmanager
def start_again(
    built: Built, media: Media, *, office: Office | None = None, memory_mib: int = 0, serial_number: str = ""
) -> Iterator[Machine]:
    """The plug goes in: a machine on its way up from a disk as it is. The log of its console begins anew."""
    cables = {"wan": office.wan, "lan": office.lan} if office else {}
    board = built.image.board
    if memory_mib:
        assert board.qemu is not None
        board = replace(board, qemu=replace(board.qemu, memory_mib=memory_mib))
    folder = media.disk.parent
    accelerator = choose_accelerator()
    with start_machine(board, folder, media, accelerator=accelerator, serial_number=serial_number, **cables) as machine:
        yield machine


@contextlib.contextmanager
def start_ready_box(
    built: Built, *, edit: Edit = lambda _: None, office: Office | None = None, grow_bytes: int = 0, memory_mib: int = 0
) -> Iterator[Box]:
    """The same, once it has said that it is ready and lets the lab in."""
    with (
        start_box(built, edit=edit, office=office, grow_bytes=grow_bytes, memory_mib=memory_mib) as (machine, media),
        wait_until_ready(built, machine, media, office) as box,
    ):
        yield box


@contextlib.contextmanager
def wait_until_ready(built: Built, machine: Machine, media: Media, office: Office | None) -> Iterator[Box]:
    """Someone is logged in for as long as the block lasts."""
    machine.wait_for(READY, patience_s(READY_WITHIN_S))
    host = _log_in(built, machine, office)
    try:
        yield Box(machine, media, host)
    finally:
        host.backend.client.close()


def _log_in(built: Built, machine: Machine, office: Office | None) -> Host:
    """testinfra over a connection of ours: a socket opened in the office's network stays there, and needs no proxy."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - the box made its key a few seconds ago
    ssh = built.signer.keyset.ssh
    assert ssh is not None
    assert isinstance(ssh.key, FileKey)
    key = str(ssh.key.path)

    def answers() -> bool:
        machine.check()
        try:
            wire = _connect(machine, office)
            client.connect(
                "box",
                username="root",
                key_filename=key,
                sock=wire,
                banner_timeout=patience_s(30),
                look_for_keys=False,
                allow_agent=False,
            )
        except paramiko.AuthenticationException:
            raise  # patience does not help, and sshd punishes whoever insists
        except (OSError, EOFError, paramiko.SSHException):
            time.sleep(_RETRY_S)
            return False
        return True

    check_until("the box lets the lab in", answers, within_s=120)
    host = testinfra.get_host("paramiko://root@box")
    host.backend.client = client
    return host


def _connect(machine: Machine, office: Office | None) -> socket.socket:
    if office is None:
        return socket.create_connection(("127.0.0.1", machine.ssh_port), patience_s(10))
    return call_in_namespace(office.wan, lambda: socket.create_connection((BOX, 22), patience_s(10)))

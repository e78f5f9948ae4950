"""One whole update of a real box: found, staged, armed, tried and confirmed, with the plug pulled in between.

The box is in QEMU's own network, where the host's 127.0.0.1 is ROUTER; so nothing is needed on the host but QEMU and an SSH client.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from firmware.build import Built
from firmware.image.boot import UKI
from firmware.layout import Layout
from firmware.powercut.view import Firmware
from firmware.process import Argument, run
from firmware.qemu import Machine, Media, choose_accelerator, prepare_media, start_machine
from firmware.repository.anchor import read_anchor
from firmware.repository.repository import Repository
from firmware.repository.serve import serving
from firmware.repository.store import read_root
from firmware.varstore import build_varstore
from firmware.verify.release import read_releasable
from firmware.workspace import Workspace
from mamori.formats import bootstate
from mamori.formats.bootstate import BootState, Slot
from mamori.formats.offer import Channel, Offer, ReleaseNotes, Wave
from mamori.formats.problems import MamoriError
from signing.tuf import ROLES, read_role_keys, signers_at_hand
from signing.uri import FileKey

ROUTER = "10.0.2.2"
"""The host, as QEMU's user network has it (QEMU documentation, "Network emulation")."""

READY, STARTING = "mamori: ready ", "mamori: starting slot "
READY_WITHIN_S, STAGED_WITHIN_S, CONFIRMED_WITHIN_S = 600.0, 900.0, 600.0
"""On emulated processors that others use too."""

_DAY_S = 86_400
_POLL_S = 1.0
_LOGIN_WITHIN_S = 120.0


@dataclass(frozen=True)
class Lab:
    """A box's two releases and the repository that offers the newer one. `factory` is the disk as the factory makes it: a copy,
    because another build may clear the cache while a box is at work."""

    old: Built
    newer: Built
    releases: tuple[Firmware, Firmware]
    factory: Path
    variables: Path
    url: str

    @property
    def layout(self) -> Layout:
        return self.old.image.layout

    def prepare(self, folder: Path) -> Media:
        """A factory disk of its own."""
        return prepare_media(folder, self.factory, self.variables, fresh=True)[0]


@contextlib.contextmanager
def start_lab(workspace: Workspace, old: Built, newer: Built, folder: Path) -> Iterator[Lab]:
    """`newer` is offered to everyone, its window being open already. `folder` takes the repository and the factory's disk."""
    keyset = old.signer.keyset
    anchor = read_anchor(keyset)
    if anchor is None:
        raise MamoriError("the keyset has no TUF root metadata")
    factory, files = folder / "factory.img", folder / "repository"
    run(["cp", "--sparse=always", "--reflink=auto", old.disk, factory], explain="copy the factory's disk")
    releases = (read_firmware(old), read_firmware(newer))
    files.mkdir()
    repository = Repository(files, read_role_keys(keyset), {role: signers_at_hand(keyset, role) for role in ROLES})
    now = int(time.time())
    repository.init(now, read_root(anchor, "the anchor"))
    release = read_releasable(newer.tools, newer.folder, newer.folder.parents[2])
    offer = Offer(
        version=newer.image.version,
        compatible=newer.image.compatible,
        manifest_hash=release.manifest_hash,
        channel=Channel.STABLE,
        minimum_version="2026.1.0",
        waves=(Wave(100, now - _DAY_S),),
        notice_at=now - 60,
        activate_after=now - 30,
        activate_before=now + 8 * _DAY_S,
        notes=ReleaseNotes("電源断の試験です", "for power cuts"),
    )
    repository.add_release(newer.bundle, offer, now)
    variables = folder / "variables.fd"
    shutil.copyfile(build_varstore(workspace, keyset), variables)
    with serving(files) as port:
        yield Lab(old, newer, releases, factory, variables, f"http://{ROUTER}:{port}")


def read_firmware(built: Built) -> Firmware:
    return Firmware(built.image.version, (built.uki / UKI).read_bytes(), built.root.image.read_bytes())


@contextlib.contextmanager
def start_box(lab: Lab, media: Media) -> Iterator[Machine]:
    """The plug goes in."""
    with start_machine(lab.old.image.board, media.disk.parent, media, accelerator=choose_accelerator()) as machine:
        yield machine


def record_cycle(lab: Lab, folder: Path) -> list[Path]:
    """The logs of both starts of the machine. The plug is pulled once both copies of the boot state say what was waited for."""
    media = lab.prepare(folder)
    first, second = (replace(media, writes=folder / f"writes-{number}") for number in (1, 2))
    with start_box(lab, first) as machine:
        machine.wait_for(READY, READY_WITHIN_S)
        begin_update(lab, machine)
        armed = BootState(Slot.A, Slot.B, bootstate.DEFAULT_TRIES, bootstate.FIRST_SEQUENCE + 1)
        _wait(machine, "armed", lambda: read_states(media.disk, lab.layout) == [armed, armed], STAGED_WITHIN_S)
        machine.kill()
    with start_box(lab, second) as machine:
        confirmed = BootState(Slot.B, None, 0, bootstate.FIRST_SEQUENCE + 2)
        within_s = READY_WITHIN_S + CONFIRMED_WITHIN_S
        _wait(machine, "confirmed", lambda: read_states(media.disk, lab.layout) == [confirmed, confirmed], within_s)
        machine.kill()
    return [path for media in (first, second) if (path := media.writes)]


def begin_update(lab: Lab, machine: Machine) -> None:
    """Tell a box that is ready where its repository is, and have it ask at once. What follows goes by itself."""
    settings = f'url = "{lab.url}"\nrate_kbit_s = 0\n'
    log_in(lab, machine, f"printf '{settings}' > /data/update/settings.toml && sync && mamori update check")


def log_in(lab: Lab, machine: Machine, command: str) -> str:
    """What a command on the box prints; the box may still be about to let us in."""
    ssh = lab.old.signer.keyset.ssh
    if ssh is None or not isinstance(ssh.key, FileKey):
        raise MamoriError("only the lab's boxes let anyone in, with a key in a file")
    argv: list[Argument] = ["ssh", "-p", str(machine.ssh_port), "-i", ssh.key.path]
    argv += ["-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]
    argv += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={os.devnull}", "root@127.0.0.1", command]
    deadline = time.monotonic() + _LOGIN_WITHIN_S
    while True:
        answer = run(argv, explain="log in to the box", accept=range(256), timeout_s=_LOGIN_WITHIN_S)
        if answer.code == 0:
            return answer.stdout
        machine.check()
        if time.monotonic() > deadline:
            raise MamoriError(f"the box does not do what it is told: {command}\n{answer.stderr[-500:]}")
        time.sleep(_POLL_S)


def read_states(disk: Path, layout: Layout) -> list[BootState | None]:
    """What each copy says on a disk that a machine may be writing to; None for one that is not valid."""
    partition = layout["bootstate"]
    with disk.open("rb") as file:
        file.seek(partition.start_bytes)
        content = file.read(partition.size_bytes)
    return [bootstate.choose([content[at : at + bootstate.BLOCK_BYTES]]) for at in bootstate.locate(content)]


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[mmap.mmap]:
    """A log as bytes, without reading it all."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as log:
        yield log


def _wait(machine: Machine, what: str, holds: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        machine.check()
        if time.monotonic() > deadline:
            raise MamoriError(f"the box was not {what} within {within_s:g} s; its console ends with:\n{machine.console[-1500:]}")
        time.sleep(_POLL_S / 10)

"""The peers tree: real programs that tests and benchmarks put beside our code, and that this host's distribution lacks.

They are those of the image (Debian 13), so what passes beside them passes beside the appliance's. The tree is made and cached
like the tools tree, and it is another one: no byte of an image comes out of it, so it is not in `debian.lock` and a new
Suricata does not rebuild the world. A lock that has a section `peers` is obeyed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware import mmdebstrap
from firmware.lock import Lock
from firmware.process import Argument, Running, run, start
from firmware.workspace import Workspace

TREE_NAME = "peers"

PACKAGES = (
    "suricata",  # signatures
)

_TAR = "peers.tar"
_CAPABILITIES = ("NET_ADMIN", "NET_RAW", "SETUID", "SETGID", "SETPCAP", "DAC_OVERRIDE")
"""What a service manager has that starts a program as another user; packets of an interface (Suricata inline); and files of
tests that belong to their user."""


@dataclass(frozen=True)
class Peers:
    """The tree, unpacked at `tree`. A program sees it read-only, and of the host the folders that are named, at their own paths."""

    tree: Path

    def run(
        self, argv: Sequence[Argument], *, explain: str, writes: Sequence[Path] = (), accept: Sequence[int] = (0,), timeout_s: float
    ) -> str:
        """What a program prints, both streams, without a network."""
        command = [*self._sandbox(writes), "--unshare-net", "--", *argv]
        done = run(command, explain=explain, timeout_s=timeout_s, accept=accept)
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def start(
        self, argv: Sequence[Argument], *, explain: str, namespace: str, writes: Sequence[Path] = (), log: Path | None = None
    ) -> Iterator[Running]:
        """A program in a network namespace, as long as the block lasts. For its own number see `program_pid`."""
        command = ["ip", "netns", "exec", namespace, *self._sandbox(writes), "--", *argv]
        with start(command, explain=explain, log=log) as running:
            yield running

    def wrapper(self, program: str, path: Path, *, writes: Sequence[Path]) -> Path:
        """A script at `path` that is the program to whoever runs it."""
        words = [*map(str, self._sandbox(writes)), "--", program]
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        path.chmod(0o755)
        return path

    def _sandbox(self, writes: Sequence[Path]) -> list[Argument]:
        argv: list[Argument] = ["bwrap", "--die-with-parent", "--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin"]
        argv += ["--cap-drop", "ALL"]
        for capability in _CAPABILITIES:
            argv += ["--cap-add", f"CAP_{capability}"]
        for folder in ("usr", "etc", "var"):
            argv += ["--ro-bind", self.tree / folder, f"/{folder}"]
        for link in ("bin", "sbin", "lib", "lib64"):
            argv += ["--symlink", f"usr/{link}", f"/{link}"]
        argv += ["--dev", "/dev", "--proc", "/proc", "--ro-bind", "/sys", "/sys", "--tmpfs", "/tmp", "--tmpfs", "/run"]  # noqa: S108
        for path in writes:
            argv += ["--bind", path.resolve(), path.absolute()]
        return argv


def program_pid(running: Running) -> int:
    """The program that was started, behind the sandbox's monitor. It takes the kernel's CONFIG_PROC_CHILDREN."""
    pid = running.pid
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


def prepare_peers(workspace: Workspace, lock: Lock) -> Peers:
    """The peers tree, made if it is not there: less than a minute, once."""
    pins = lock.pins(TREE_NAME)
    with workspace.console.step("peers tree") as step:

        def make(folder: Path) -> None:
            work = folder / "work"
            work.mkdir()
            mmdebstrap.make_tree(
                mmdebstrap.Tree(packages=PACKAGES, pins=pins), folder / _TAR, epoch=lock.epoch, work=work, on_line=step.line
            )
            shutil.rmtree(work)

        inputs = {"packages": " ".join(PACKAGES), "pins": pins, "epoch": str(lock.epoch)}
        artifact = workspace.cache.step(TREE_NAME, inputs, make, code=(__file__, mmdebstrap.__file__), on_hit=step.cached)
        tree = workspace.out / TREE_NAME / artifact.key
        _unpack(artifact.folder / _TAR, tree)
    return Peers(tree)


def _unpack(tar: Path, tree: Path) -> None:
    """Unpack beside, then rename, unless it is there. Test processes run side by side, and older trees may be in use: they stay."""
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (tree.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if tree.is_dir():
            return
        fresh = tree.with_name(f".{tree.name}.{os.getpid()}")
        fresh.mkdir()
        run(["tar", "-xf", tar, "-C", fresh, "--no-same-owner", "--exclude=./dev/*"], explain="unpack the peers tree")
        fresh.rename(tree)

"""A build that the world stops: no mirror, half a download, a full disk, too small a slot, Ctrl-C. The last output stays."""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from firmware import mmdebstrap
from firmware.build import Built
from firmware.process import run
from firmware.workspace import Workspace
from tests.support.cli import Copy, check_refused, make_copy
from tests.support.mirror import start_half_mirror
from tests.support.need import need
from tests.support.wait import check_until

MIRROR = "MAMORI_DEBIAN_MIRROR"

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return make_copy(tmp_path / "checkout")


@pytest.fixture
def warm(copy: Copy, built: Built, checkout: Workspace) -> Copy:
    """A copy that has all that this checkout ever built, keys included."""
    with checkout.cache.locked():
        for folder in ("cache", "tools"):
            run(["cp", "--archive", "--link", checkout.out / folder, copy.root / "out" / folder], explain="share the cache")
    run(["cp", "--archive", checkout.root / "keys", copy.root / "keys"], explain="copy the keys")
    return copy


def unfinished(copy: Copy) -> list[Path]:
    """What a build leaves while it works, and never when it is over."""
    places = ("*/.*", "cache/*/.*")
    return [path for place in places for path in (copy.root / "out").glob(place) if path.name != ".lock"]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_mirror_that_does_not_answer_is_told_with_its_address(copy: Copy) -> None:
    before, address = copy.output(), f"http://127.0.0.1:{closed_port()}/debian"
    result = copy.inv("build", env={MIRROR: address})
    check_refused(result, "the Debian packages could not be fetched", "127.0.0.1", "is the mirror reachable from here?", MIRROR)
    assert copy.output() == before
    assert unfinished(copy) == []


def test_a_download_that_ends_in_the_middle_is_told(copy: Copy) -> None:
    before = copy.output()
    with start_half_mirror(mmdebstrap.find_mirrors().archive) as (address, asked):
        result = copy.inv("build", env={MIRROR: address})
    assert any(path.endswith(".deb") for path in asked), "apt never came as far as a package"
    check_refused(result, "the Debian packages could not be fetched", "127.0.0.1", MIRROR)
    assert copy.output() == before
    assert unfinished(copy) == []


def test_a_disk_that_fills_up_is_told_as_such(copy: Copy) -> None:
    """`out/` is a file system of 40 MB; the mount is the process's own and goes with it."""
    need(os.geteuid() == 0, "only root may mount a small file system and make a Debian tree on it")
    script = 'mount -t tmpfs -o size=40m tmpfs "$1" && shift && exec "$@"'
    before = copy.output()
    within: list[str | Path] = ["unshare", "--mount", "--", "sh", "-euc", script, "sh", copy.root / "out"]
    check_refused(copy.inv("build", within=within), "No space left on device", "free some room")
    assert copy.output() == before


def test_a_root_that_is_larger_than_its_slot_is_told_by_how_much(warm: Copy) -> None:
    board = "board/qemu-x86_64/board.toml"
    for slot in ("root-a = { start_mib = 108", "root-b = { start_mib = 940"):
        warm.edit(board, f"{slot}, size_mib = 768", f"{slot}, size_mib = 64")
    before = warm.output()
    result = warm.inv("build")
    check_refused(result, f"{board}: disk.partitions.root-a.size_mib: the root file system", "bytes (", "MiB) more than the 64 MiB")
    assert warm.output() == before
    assert unfinished(warm) == []


def processes_of(folder: Path) -> set[str]:
    """Command lines of all processes that speak of `folder`."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if str(folder) in line and path.parent.name != str(os.getpid()):
            found.add(line)
    return found


def temporary() -> set[str]:
    """What Debian trees are made in."""
    return {path.name for path in Path(tempfile.gettempdir()).iterdir() if path.name.startswith(("mamori-", "mmdebstrap."))}


def mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


@pytest.mark.parametrize(
    "program", [pytest.param("mmdebstrap", id="when it has just begun"), pytest.param("dpkg", id="while packages are installed")]
)
def test_ctrl_c_while_a_debian_tree_is_made_leaves_nothing_behind(copy: Copy, tmp_path: Path, program: str) -> None:
    before, folders, mounted = copy.output(), temporary(), mounts()
    with copy.start("build", log=tmp_path / "log") as running:
        works = re.compile(rf"(\S*perl )?(\S*/)?{program} ")
        check_until(f"{program} runs", lambda: any(works.match(line) for line in family_of(running.pid)), within_s=250)
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(30) == 130
        assert "interrupted" in (tmp_path / "log").read_text()
    check_until("every process is gone", lambda: not processes_of(copy.root), within_s=5)
    assert (temporary() - folders, mounts() - mounted) == (set(), set())
    assert unfinished(copy) == []
    assert copy.output() == before


def family_of(leader: int) -> set[str]:
    """Command lines of the process `leader` and all its descendants."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(") ")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    lines, waiting = set(), [leader]
    while waiting:
        process = waiting.pop()
        waiting += parents.get(process, [])
        try:
            lines.add(Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return lines


def test_after_ctrl_c_the_next_build_goes_on_as_if_nothing_was(warm: Copy, tmp_path: Path) -> None:
    warm.edit("python-app/src/mamori/cli.py", "from __future__", "# changed by a test\nfrom __future__")
    before = warm.output()
    with warm.start("build", log=tmp_path / "log") as running:
        check_until("the root is being made", lambda: any("mkfs.erofs" in line for line in processes_of(warm.root)), within_s=100)
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(30) == 130
    check_until("every process is gone", lambda: not processes_of(warm.root), within_s=5)
    assert (unfinished(warm), warm.output()) == ([], before)
    assert warm.inv("build").code == 0
    assert (warm.root / "out/lab/latest/SHA256SUMS").is_file()
    assert (warm.root / "out/lab/latest").resolve().name != "2026.1.0"
    assert unfinished(warm) == []

"""Mistakes of people, through the command that they type: exit code 2, one paragraph, and nothing that existed is touched."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from signing.development import LEAF_LIFE, init_development
from tests.support.cli import Copy, check_refused, make_copy
from tests.support.need import need

LAB, QEMU = "image-recipes/lab.toml", "board/qemu-x86_64/board.toml"
KEYS = Path("keys/development")


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    for tool in ("mmdebstrap", "bwrap"):
        need(tool, "./inv build asks for it before it looks at a recipe")
    return make_copy(tmp_path / "checkout")


def make_keys(copy: Copy, now: datetime) -> None:
    init_development(copy.root / KEYS, now)


def lose_a_key(copy: Copy) -> None:
    make_keys(copy, datetime.now(UTC))
    (copy.root / KEYS / "secure-boot" / "db.key").unlink()


def make_three(copy: Copy) -> None:
    copy.edit(LAB, 'variant = "lab"', 'variant = "lob"\ncolour = 1')
    copy.edit(QEMU, "timeout_s = 60", "timeout_s = 1")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


Mistake = Callable[[Copy], None]

MISTAKES: dict[str, tuple[Mistake, list[str], list[str]]] = {
    "a recipe that does not exist": (
        lambda _: None,
        ["--recipe=lap"],
        ["recipe: expected one of appliance, appliance-qemu, lab, got 'lap'", "did you mean `lab`?"],
    ),
    "a board that does not exist": (
        lambda _: None,
        ["--board=qemu-x86_46"],
        ["--board: board: expected one of", "got 'qemu-x86_46'", "did you mean `qemu-x86_64`?"],
    ),
    "a key that no recipe has": (
        lambda c: c.edit(LAB, "variant", 'colour = "red"\nvariant'),
        [],
        [f"{LAB}: colour: expected one of", "got an unknown key"],
    ),
    "three mistakes at once": (
        make_three,
        [],
        [f"{LAB}: colour:", f"{LAB}: variant:", f"{QEMU}: watchdog.timeout_s: expected 10 to 600, got 1"],
    ),
    "partitions that overlap": (
        lambda c: c.edit(QEMU, "root-b = { start_mib = 940", "root-b = { start_mib = 900"),
        [],
        [f"{QEMU}: disk.partitions.root-b.start_mib: expected at least 940, where boot-b ends, got 900", "root-b overlaps boot-b"],
    ),
    "a missing key": (
        lose_a_key,
        [],
        ["keys/development/keyset.toml: secure_boot.db.key: expected", "No such file or directory"],
    ),
    "expired certificates": (
        lambda c: make_keys(c, datetime.now(UTC) - 2 * LEAF_LIFE),
        [],
        ["bundle.ca1.signer.certificate: expected a certificate that is valid on", "got one that expired on"],
    ),
    "certificates of the future, or a clock that is wrong": (
        lambda c: make_keys(c, datetime.now(UTC) + LEAF_LIFE),
        [],
        ["secure_boot.db.certificate: expected a certificate that is valid on", "is the clock of this machine right?"],
    ),
    "a recipe whose Buildroot tree is not there": (
        lambda _: None,
        ["--recipe=appliance"],
        ["Recipe `appliance` is built from Buildroot", "there is no Buildroot tree here", "--buildroot PATH"],
    ),
    "a changelog without a version": (
        lambda c: c.edit("CHANGELOG.md", "## 2026.11.0", "## next"),
        [],
        ["CHANGELOG.md: top entry: expected a calendar version YYYY.M.N", "got 'next'"],
    ),
    "a lock that somebody cut short": (
        lambda c: cut_short(c.root / "debian.lock"),
        [],
        ["debian.lock: line ", "expected NAME VERSION ARCHITECTURE SHA256, or [TREE]"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_paragraph_and_changes_nothing(copy: Copy, mistake: str) -> None:
    make, arguments, told = MISTAKES[mistake]
    make(copy)
    before = copy.output()
    check_refused(copy.inv("build", *arguments), *told)
    assert copy.output() == before != {}
    assert not (copy.root / "out" / "cache").exists(), "something was built before the mistake was seen"


def test_the_lab_recipe_itself_is_no_mistake(copy: Copy) -> None:
    """The control: what the mistakes were made in works, as far as it is looked at before the first long step."""
    rendered = copy.inv("render", "lab")
    assert (rendered.code, rendered.stderr) == (0, "")
    assert "out/lab/rendered/genimage.cfg" in rendered.stdout


def test_a_benchmark_that_does_not_exist_is_told(copy: Copy) -> None:
    need("qemu-system-x86_64", "./inv bench asks for it")
    check_refused(copy.inv("bench", "speed"), "no such benchmark: speed", "build, boot")


def test_a_folder_that_cannot_be_verified_because_it_is_not_there_is_told(copy: Copy) -> None:
    check_refused(copy.inv("test", "--level=speed"), "no such test level: speed")


def test_a_full_disk_is_told_as_such(copy: Copy, tmp_path: Path) -> None:
    """`out/` is a file system with room for a few blocks; the mount is the process's own and goes with it."""
    within = tiny_disk(copy, "16k")
    before = copy.output()
    check_refused(copy.inv("render", "lab", within=within), "No space left on device", "free some room")
    assert copy.output() == before


def tiny_disk(copy: Copy, size: str) -> list[str]:
    need("unshare", "it gives a process mounts of its own")
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
    return ["unshare", "--mount", "--map-root-user", "--", "sh", "-euc", script, "sh", size, str(copy.root / "out")]

"""A box with a damaged disk: a flipped bit in slot a's kernel, and one in the root of slot b, which it falls back to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.build import Built
from firmware.image.boot import UKI
from tests.support.disk import flip_bit, kernel_offset
from tests.support.machine import STARTING, Box, start_ready_box

VICTIM = "/usr/bin/tcpdump"
"""A large file that nothing on the box reads by itself."""


@pytest.fixture(scope="module")
def damaged(built: Built) -> Iterator[Box]:
    layout, uki = built.image.layout, (built.uki / UKI).read_bytes()

    def edit(disk: Path) -> None:
        flip_bit(disk, kernel_offset(disk, layout, "a", uki))
        flip_bit(disk, layout["root-b"].start_bytes + _content_offset(built, VICTIM))

    with start_ready_box(built, edit=edit) as started:
        yield started


def test_a_kernel_with_one_flipped_bit_is_refused_and_the_other_slot_starts(damaged: Box) -> None:
    console = damaged.machine.console
    assert "bad shim signature" in console
    assert console.index(f"{STARTING}a") < console.index("mamori: slot a does not start") < console.index(f"{STARTING}b")
    status = damaged.status()
    assert status["slot"] == "b"
    assert status["secure_boot"] is True


def test_a_flipped_bit_in_the_root_is_an_error_and_not_data(damaged: Box) -> None:
    read = damaged.host.run(f"cat {VICTIM} > /dev/null")
    assert read.failed
    assert "Input/output error" in read.stderr
    assert "verity" in damaged.host.check_output("dmesg | grep -i verity | grep -i corrupt")


def test_the_box_goes_on_with_everything_else(damaged: Box) -> None:
    status = damaged.status()
    assert status["bridge"]["condition"] == "forwarding"
    assert status["root"] == {**status["root"], "verified": True, "read_only": True}
    assert damaged.host.check_output("systemctl is-active mamori-inspect") == "active"


def _content_offset(built: Built, path: str) -> int:
    """Where the middle of the file's content lies in the root image, by erofs-utils' own reader."""
    argv = ["dump.erofs", "-e", f"--path={path}", built.root.image]
    shown = built.tools.run(argv, reads=[built.root.image], explain="find a file in the root image").stdout
    # An extent's line: number: logical start..end | length : physical start..end | length
    extents = [line.split(":")[2].split("|")[0].split("..") for line in shown.splitlines() if line.count("..") == 2]
    assert extents, shown
    start, end = extents[len(extents) // 2]
    return (int(start) + int(end)) // 2

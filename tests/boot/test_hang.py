"""A box whose user space hangs, from power-on over the watchdog's reset to the next start, and what that left on its disk."""

from __future__ import annotations

from firmware.build import Built
from tests.support.disk import hash_partitions
from tests.support.machine import LOADER_WITHIN_S, STARTING, start_ready_box
from tests.support.wait import patience_s

TIMEOUT_S = 10
"""The board's own is a minute; the test shortens it on the running box."""

FIRMWARE = ("esp", "bootstate", "boot-a", "root-a", "boot-b", "root-b")
"""Everything but `data`: not one byte of it changes unless an update is on its way (docs/boot-state.md, clause 5.2)."""

SHORTEN = (
    "busctl set-property org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
    f" RuntimeWatchdogUSec t {TIMEOUT_S * 1_000_000}"
)
HANG = "echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze"
"""Freezes process 1: it cannot be stopped by a signal, but it can be kept from running, as a kernel bug would."""


def test_a_hung_box_is_reset_and_starts_again_and_nothing_was_written_to_the_firmware(built: Built) -> None:
    layout = built.image.layout
    before = hash_partitions(built.disk, layout, FIRMWARE)
    with start_ready_box(built) as box:
        box.host.check_output(SHORTEN)
        assert box.machine.console.count(STARTING) == 1
        box.host.check_output(HANG)
        box.machine.wait_for(STARTING, patience_s(TIMEOUT_S * 2 + LOADER_WITHIN_S), times=2)
        box.machine.kill()
        assert hash_partitions(box.media.disk, layout, FIRMWARE) == before

"""Factory reset: everything goes but identity, wherever the power is cut, and nothing outside of the partition is touched."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest

from mamori.formats.problems import MamoriError
from mamori.paths import Device
from mamori.update.reset import clear_data, mark_reset, take_record
from tests.support.updater import make_device, mamori, refuse, updater
from tests.support.wait import check_until

IDENTITY = "00112233445566778899aabbccddeeff\n"
NOW = 1_800_000_000


def fill(device: Device) -> None:
    """A partition that has been used for years."""
    outside = device.root / "outside"
    outside.mkdir(parents=True)
    (outside / "precious").write_text("not on the partition")
    files = (
        "policy/policy.toml",
        "events/events.db",
        "events/events.db-wal",
        "feeds/rules/x.rules",
        "update/journal.json",
        "format",
    )
    for name in (*files, "lost+found/#17", "update/tuf/root_history/1.root.json", ".hidden", "inspect/.deep/er/file"):
        (device.data / name).parent.mkdir(parents=True, exist_ok=True)
        (device.data / name).write_text(name)
    (device.data / "feeds/empty").mkdir()
    (device.data / "link-out").symlink_to(outside)
    (device.data / "feeds/link-out").symlink_to(outside / "precious")
    (device.data / "dangling").symlink_to("nowhere")
    os.mkfifo(device.data / "pipe")
    device.identity.parent.mkdir()
    device.identity.write_text(IDENTITY)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    device = Device(tmp_path / "box")
    fill(device)
    return device


def contents(device: Device) -> set[str]:
    return {str(path.relative_to(device.data)) for path in device.data.rglob("*")}


CLEARED = {"identity", "identity/id", "identity/reset.json", "lost+found"}


def test_all_goes_but_identity_and_the_mark_goes_last(device: Device) -> None:
    mark_reset(device, "console", NOW)
    before = contents(device)
    assert ".reset" in before
    gone = list(clear_data(device))
    assert gone[-1] == device.reset_mark
    assert contents(device) == CLEARED
    assert device.identity.read_text() == IDENTITY
    assert (device.root / "outside/precious").read_text() == "not on the partition"


def test_nothing_happens_without_a_mark(device: Device) -> None:
    before = contents(device)
    assert list(clear_data(device)) == []
    assert contents(device) == before


def test_the_power_may_go_after_each_deletion(tmp_path: Path) -> None:
    """The next start goes on: it ends as if nothing had been, and until then the mark is there."""
    for cut in itertools.count(1):
        device = Device(tmp_path / f"box{cut}")
        fill(device)
        mark_reset(device, "console", NOW)
        clearing = clear_data(device)
        done = list(itertools.islice(clearing, cut))
        clearing.close()
        was_over = done[-1] == device.reset_mark
        assert device.reset_mark.exists() is not was_over
        list(clear_data(device))
        assert contents(device) == CLEARED
        assert device.identity.read_text() == IDENTITY
        assert "console" in take_record(device)
        shutil.rmtree(device.root)
        if was_over:
            break
    assert cut > 20


def test_what_cannot_be_deleted_is_told_and_does_not_clear_again_at_every_start(device: Device) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root makes a folder that cannot be deleted")
    busy = device.data / "busy"
    busy.mkdir()
    mark_reset(device, "console", NOW)
    assert os.system(f"mount -t tmpfs none {busy}") == 0  # noqa: S605 (a path of the test's own)
    try:
        list(clear_data(device))
        assert not device.reset_mark.exists()
        assert contents(device) == {*CLEARED, "busy"}
        assert "1 files could not be deleted" in take_record(device)
    finally:
        assert os.system(f"umount {busy}") == 0  # noqa: S605


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 5000, b"[]", b'{"at": -1, "why": 7}', b'{"at": 1e99}', bytes(10_000)])
def test_a_mark_of_whatever_content_counts(device: Device, content: bytes) -> None:
    device.reset_mark.write_bytes(content)
    list(clear_data(device))
    assert contents(device) == CLEARED
    assert "a time that nobody knows" in take_record(device)


def test_a_disk_that_takes_no_mark_is_told(tmp_path: Path) -> None:
    device = Device(tmp_path)
    with pytest.raises(MamoriError, match="nothing will be cleared"):
        mark_reset(device, "console", NOW)


def test_the_command_asks_and_only_marks(device: Device) -> None:
    before = contents(device)
    assert "nothing was done" in refuse(device, "factory-reset")  # nobody answers
    assert contents(device) == before
    assert "next start" in mamori(device, "factory-reset", "--yes")
    assert contents(device) == {*before, ".reset"}
    assert "cleared" in mamori(device, "clear-data")
    assert contents(device) == CLEARED
    assert mamori(device, "clear-data") == ""


def test_the_updater_tells_it_once(tmp_path: Path) -> None:
    device = make_device(tmp_path / "box")
    mark_reset(device, "console", NOW)
    list(clear_data(device))
    for _ in range(2):
        with updater(device):
            pass
    check_until("it is logged", lambda: "factory settings" in (device.root / "log").read_text(), within_s=5)
    assert (device.root / "log").read_text().count("factory settings") == 1
    assert not (device.identity.parent / "reset.json").exists()

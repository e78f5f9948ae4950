"""A USB stick in the box: it is read with all checks, not one byte of it is written, and it can ask for a factory reset."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import pytest

from firmware.build import Built
from firmware.repository.anchor import read_anchor
from firmware.repository.repository import Repository
from firmware.repository.store import read_root
from mamori.update.usb import REPOSITORY
from signing.tuf import ROLES, read_role_keys, signers_at_hand
from tests.support.machine import prepare_box, start_again, wait_until_ready
from tests.support.wait import check_until

pytestmark = pytest.mark.timeout(1500)

SIZE_BYTES = 64 << 20
MARKED = "test -e /data/.reset"
STATUS = "cat /run/mamori/update/status.json"


def make_repository(built: Built, folder: Path) -> None:
    """Without any release, for boxes of `built`."""
    keyset = built.signer.keyset
    anchor = read_anchor(keyset)
    assert anchor is not None
    repository = Repository(folder, read_role_keys(keyset), {role: signers_at_hand(keyset, role) for role in ROLES})
    repository.init(int(time.time()), read_root(anchor, "the anchor"))


def make_stick(built: Built, folder: Path) -> Path:
    """One vfat of all that is in the folder, without a partition table, as many sticks are."""
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    script = 'mkfs.vfat "$IMAGE" >/dev/null; mcopy -s -i "$IMAGE" "$FOLDER"/* ::/'
    environment = {"IMAGE": str(image), "FOLDER": str(folder)}
    built.tools.run(["sh", "-euc", script], reads=[folder], writes=[image.parent], env=environment, explain="make a stick")
    return image


def test_a_stick_is_read_and_asks_for_a_reset_that_the_next_start_does(built: Built, tmp_path: Path) -> None:
    content = tmp_path / "stick"
    make_repository(built, content / REPOSITORY)
    (content / "MAMORI-RESET").touch()
    stick = make_stick(built, content)
    before = hashlib.sha256(stick.read_bytes()).hexdigest()
    media = replace(prepare_box(built, tmp_path / "box"), stick=stick)
    with start_again(built, media) as machine, wait_until_ready(built, machine, media, None) as box:
        mounts = box.host.check_output("cat /proc/mounts")
        (line,) = [line.split() for line in mounts.splitlines() if "/run/mamori/usb/" in line]
        assert line[2] == "vfat"
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(line[3].split(","))
        check_until("the mark is there", lambda: box.host.run(MARKED).rc == 0, within_s=60)
        check_until("the updater has read the stick", lambda: "there is no release" in box.host.run(STATUS).stdout, within_s=180)
        identity = box.host.check_output("cat /data/identity/id")
        box.host.check_output("echo '# mine' > /data/policy/policy.toml && sync")
        machine.kill()
    assert hashlib.sha256(stick.read_bytes()).hexdigest() == before
    pulled = replace(media, stick=None)
    with start_again(built, pulled) as machine, wait_until_ready(built, machine, pulled, None) as box:
        assert box.host.run(MARKED).rc != 0
        assert box.host.check_output("cat /data/identity/id") == identity
        assert box.host.run("test -e /data/policy/policy.toml").rc != 0
        assert box.host.check_output("stat -c %U /data/update /data/identity").split() == ["mamori-update"] * 2
        told = "the event is written"
        check_until(told, lambda: any(event.get("category") == "factory-reset" for event in box.events()), within_s=60)
        machine.kill()

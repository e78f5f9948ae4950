"""The dead man's handle of a trial, which is a shell script: run as the unit runs it, over a file instead of the partition."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mamori.formats.bootstate import BootState, Slot, encode

SCRIPT = Path(__file__).parents[3] / "overlay/common/usr/lib/mamori/trial-guard"

PARTITION_BYTES = 1 << 20
OFFSETS = (64 * 512, 70 * 512)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("dev/mamori", "run/mamori", "proc"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dev/kmsg").touch()
    (tmp_path / "run/mamori/slot").write_text("b\n")
    (tmp_path / "proc/uptime").write_text("12.34 20.00\n")
    return tmp_path


def put_states(root: Path, *states: BootState | bytes) -> None:
    content = bytearray(b"\xf5") * PARTITION_BYTES
    for offset, state in zip(OFFSETS, states, strict=True):
        block = state if isinstance(state, bytes) else encode(state)
        content[offset : offset + len(block)] = block
    (root / "dev/mamori/bootstate").write_bytes(content)


def start_guard(root: Path, within_s: int = 60) -> subprocess.Popen[str]:
    environment = {"PATH": "/usr/bin:/bin", "MAMORI_ROOT": str(root), "MAMORI_TRIAL_LOOK_S": "0.05"}
    environment["MAMORI_TRIAL_WITHIN_S"] = str(within_s)
    return subprocess.Popen(["/bin/sh", SCRIPT], env=environment, text=True, stderr=subprocess.PIPE)


TRIAL = BootState(Slot.A, Slot.B, tries=2, sequence=7)
CONFIRMED = BootState(Slot.B, sequence=8)


@pytest.mark.parametrize(
    "states",
    [
        pytest.param((CONFIRMED, CONFIRMED), id="the running slot is confirmed"),
        pytest.param((TRIAL, CONFIRMED), id="confirmed, and the plug was pulled before the first copy was written"),
        pytest.param((CONFIRMED, TRIAL), id="confirmed, and the plug was pulled before the second copy was written"),
        pytest.param((BootState(Slot.A), BootState(Slot.A)), id="not on trial: the confirmed slot did not start"),
        pytest.param((BootState(Slot.B, Slot.A, tries=3), CONFIRMED), id="the other slot is armed"),
        pytest.param((bytes(1024), bytes(1024)), id="no boot state"),
    ],
)
def test_a_slot_that_nobody_tries_is_left_alone(root: Path, states: tuple[BootState | bytes, ...]) -> None:
    put_states(root, *states)
    with start_guard(root, within_s=12) as guard:
        assert guard.wait(20) == 0
    assert (root / "dev/kmsg").read_text() == ""


@pytest.mark.parametrize(
    "states",
    [
        pytest.param((TRIAL, TRIAL), id="on trial"),
        pytest.param((TRIAL, BootState(Slot.A, sequence=6)), id="on trial by one copy"),
        pytest.param((bytes(1024), BootState(Slot.A, Slot.B, tries=0)), id="with its last try, and one copy"),
    ],
)
def test_a_trial_that_nobody_confirms_ends_badly(root: Path, states: tuple[BootState | bytes, ...]) -> None:
    put_states(root, *states)
    with start_guard(root, within_s=12) as guard:
        assert guard.wait(20) == 1
    assert "slot b was not confirmed" in (root / "dev/kmsg").read_text()


def test_it_waits_as_long_as_there_is_time_and_ends_well_once_the_slot_is_confirmed(root: Path) -> None:
    put_states(root, TRIAL, TRIAL)
    with start_guard(root) as guard:
        with pytest.raises(subprocess.TimeoutExpired):
            guard.wait(0.5)
        put_states(root, TRIAL, CONFIRMED)
        assert guard.wait(20) == 0


def test_it_ends_badly_when_the_time_is_over_while_it_waits(root: Path) -> None:
    put_states(root, TRIAL, TRIAL)
    with start_guard(root) as guard:
        with pytest.raises(subprocess.TimeoutExpired):
            guard.wait(0.5)
        (root / "proc/uptime").write_text("60.00 20.00\n")
        assert guard.wait(20) == 1

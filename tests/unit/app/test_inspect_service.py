"""The service as a process of its own: real files, a real notification socket, a real signal."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mamori.inspect import core
from mamori.inspect.report import encode_report, read_report, write_report
from mamori.paths import Device
from mamori.sysfs import UnreadableError

SOURCE = Path(__file__).parents[3] / "python-app/src"

PATIENCE_S = 30.0 * float(os.environ.get("MAMORI_TIMEOUT_MULTIPLIER", "1"))


@contextmanager
def running(device: Device, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "mamori.cli", "--root", str(device.root), "inspect", "--watch-only"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_report(device: Device, condition: str) -> dict:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if device.inspect_report.exists() and read_report(device.inspect_report)["condition"] == condition:
            return read_report(device.inspect_report)
        time.sleep(0.02)
    raise AssertionError(f"no report `{condition}` within {PATIENCE_S} s")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE_S)
        manager.bind(str(tmp_path / "notify"))
        yield manager


def test_a_life_of_the_service_as_the_manager_hears_it(device: Device, write: Callable[[str, str], None], manager) -> None:
    with running(device, NOTIFY_SOCKET=manager.getsockname(), WATCHDOG_USEC="1000000", JOURNAL_STREAM="1:1") as process:
        assert manager.recv(1000) == b"READY=1\nSTATUS=br0 forwards between wan and lan"
        ready_at = time.monotonic()
        assert wait_for_report(device, "forwarding")["at_monotonic_s"] <= ready_at + 0.001
        assert manager.recv(1000) == b"WATCHDOG=1"

        write("sys/class/net/lan/carrier", "0")
        report = wait_for_report(device, "waiting")
        heard = []
        while not heard or heard[-1] == b"WATCHDOG=1":
            heard.append(manager.recv(1000))
        assert heard[-1] == b"STATUS=lan: no carrier"
        assert report["ports"][1] == {
            "condition": "no carrier",
            "name": "lan",
            "mac": "02:00:00:00:00:02",
            "carrier": False,
            "state": 3,
            "rx_bytes": 2048,
            "tx_bytes": 3145728,
        }

        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        manager.settimeout(0.1)
        while (last := manager.recv(1000)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"
        assert process.stderr is not None
        assert process.stderr.read().splitlines() == ["<5>br0 forwards between wan and lan", "<5>lan: no carrier"]
    assert list(device.inspect_report.parent.iterdir()) == [], "a stopped service leaves no report behind"


def test_the_service_lives_through_a_bridge_that_vanishes_and_comes_back(device: Device) -> None:
    bridge = device.interfaces / "br0"
    with running(device) as process:
        wait_for_report(device, "forwarding")
        bridge.rename(device.interfaces / "gone")
        assert wait_for_report(device, "broken")["bridge"] is None
        (device.interfaces / "gone").rename(bridge)
        wait_for_report(device, "forwarding")
        assert process.poll() is None


def test_the_service_goes_on_after_it_was_stopped_for_longer_than_it_waits(device: Device) -> None:
    with running(device) as process:
        before = wait_for_report(device, "forwarding")["at_monotonic_s"]
        process.send_signal(signal.SIGSTOP)
        time.sleep(2 * core.PUBLISH_EVERY_S)
        process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + PATIENCE_S
        while process.poll() is None and read_report(device.inspect_report)["at_monotonic_s"] < before + 2 * core.PUBLISH_EVERY_S:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.poll() is None


def test_the_service_does_not_need_a_manager_that_listens(device: Device, tmp_path: Path) -> None:
    with running(device, NOTIFY_SOCKET=str(tmp_path / "gone")) as process:
        wait_for_report(device, "forwarding")
        assert process.poll() is None


def test_ctrl_c_ends_a_run_by_hand_quietly(device: Device) -> None:
    with running(device) as process:
        wait_for_report(device, "forwarding")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "mamori: br0 forwards between wan and lan\n"
    assert not device.inspect_report.exists()


def test_without_a_release_file_the_service_says_so_and_ends(device: Device) -> None:
    device.release.unlink()
    with running(device) as process:
        assert process.wait(PATIENCE_S) == 2
        assert process.stderr is not None
        assert process.stderr.read() == f"mamori: {device.release}: No such file or directory\n"


def test_a_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(path, b"1")
    with path.open() as reader:
        write_report(path, b"22")
        assert reader.read() == "1", "a reader keeps the report that it opened"
    assert path.read_text() == "22"
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_tells_of_ports_that_do_not_exist() -> None:
    settings = core.Settings("br0", ("wan", "lan"))
    state, _ = core.start(settings, 1.0)
    _, (publish, *_) = core.receive(state, core.BridgeSampled(core.Sample(None, ())), 2.0)
    assert isinstance(publish, core.Publish)
    assert json.loads(encode_report(publish, 3.0)) == {
        "condition": "broken",
        "text": "br0 does not exist",
        "since_monotonic_s": 2.0,
        "at_monotonic_s": 3.0,
        "bridge": None,
        "ports": [{"condition": "missing", "name": "wan"}, {"condition": "missing", "name": "lan"}],
        "packets": None,
    }


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"at_monotonic_s": "5"}', b'{"at_monotonic_s": NaN}', b"[" * 100_000], ids=repr
)
def test_what_is_no_report_is_unreadable(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match="not a report"):
        read_report(path)

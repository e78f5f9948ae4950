import os
import socket
from pathlib import Path

import pytest

from mamori.notify import parse_watchdog, send_notification


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        pytest.param({}, None, id="no watchdog"),
        pytest.param({"WATCHDOG_USEC": "30000000"}, 30.0, id="thirty seconds"),
        pytest.param({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0, id="meant for us"),
        pytest.param({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None, id="meant for another"),
        pytest.param({"WATCHDOG_USEC": "0"}, None, id="zero"),
        pytest.param({"WATCHDOG_USEC": "-1"}, None, id="negative"),
        pytest.param({"WATCHDOG_USEC": "soon"}, None, id="not a number"),
        pytest.param({"WATCHDOG_USEC": "３"}, None, id="a digit of another script"),
    ],
)
def test_the_watchdogs_patience_is_read_from_the_environment(environment: dict[str, str], seconds: float | None) -> None:
    assert parse_watchdog(environment, 7) == seconds


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_notification_arrives_at_either_kind_of_socket(kind: str, tmp_path: Path) -> None:
    address = f"@mamori-test-{os.getpid()}" if kind == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind("\0" + address[1:] if kind == "abstract" else address)
        send_notification(address, "READY=1\nSTATUS=雨")
        assert manager.recv(1000).decode() == "READY=1\nSTATUS=雨"


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_nothing_is_sent_and_no_socket_opened(address: str | None) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    send_notification(address, "READY=1")
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_a_manager_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        send_notification(str(tmp_path / "gone"), "READY=1")

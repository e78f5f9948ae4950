"""The service manager's notification protocol: sd_notify(3) and sd_watchdog_enabled(3), without their library."""

from __future__ import annotations

import socket
from collections.abc import Mapping


def parse_watchdog(environment: Mapping[str, str], pid: int) -> float | None:
    """Seconds after which the manager misses us, or None: no watchdog, or one that is meant for another process."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    usec = environment.get("WATCHDOG_USEC", "")
    return int(usec) / 1e6 if usec.isascii() and usec.isdigit() and int(usec) > 0 else None


def send_notification(address: str | None, message: str) -> None:
    """Send to NOTIFY_SOCKET, a path or, with a leading `@`, an abstract name; without one nothing. A manager that does
    not listen is not worth dying for: OSError is for the caller to log."""
    if not address:
        return
    name = b"\0" + address[1:].encode() if address.startswith("@") else address.encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(message.encode(), name)

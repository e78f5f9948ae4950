"""Reads what the kernel and the initramfs left in small files, with the reason when one cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mamori.bridge import Interface, Sample
from mamori.formats.problems import MamoriError
from mamori.paths import Device

MAX_READ_BYTES = 1024 * 1024
"""No file that is read here is larger; mountinfo, the largest, has some 10 KiB."""


class UnreadableError(MamoriError):
    """A file that is not there, may not be read, or does not say what it should."""


def read_bytes(path: Path, limit: int = MAX_READ_BYTES) -> bytes:
    """The file's content; UnreadableError names the file and the reason."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from None
    if len(content) > limit:
        raise UnreadableError(f"{path}: more than {limit} bytes")
    return content


def read_line(path: Path) -> str:
    """The file's text without white space around it."""
    return read_bytes(path).decode("utf-8", "replace").strip()


def read_number(path: Path) -> int:
    """The decimal number that is all of the file."""
    text = read_line(path)
    if not (text.isascii() and text.isdigit()):
        raise UnreadableError(f"{path}: {text[:40]!r} is not a number")
    return int(text)


def read_bridge(device: Device, name: str, ports: Sequence[str]) -> Sample:
    """The bridge and those of its ports that exist now. An interface that vanishes while it is read does not exist."""
    found = (_read_interface(device, port, name) for port in ports)
    return Sample(_read_interface(device, name, None), tuple(port for port in found if port))


def _read_interface(device: Device, name: str, bridge: str | None) -> Interface | None:
    folder = device.interfaces / name
    try:
        return Interface(
            name=name,
            mac=read_line(folder / "address"),
            carrier=_read_carrier(folder / "carrier"),
            state=_read_port_state(device.interfaces / bridge / "brif" / name / "state") if bridge else None,
            rx_bytes=read_number(folder / "statistics/rx_bytes"),
            tx_bytes=read_number(folder / "statistics/tx_bytes"),
        )
    except UnreadableError:
        return None


def _read_carrier(path: Path) -> bool | None:
    try:
        return read_number(path) == 1
    except UnreadableError:  # EINVAL while the interface is down
        return None


def _read_port_state(path: Path) -> int | None:
    try:
        return read_number(path)
    except UnreadableError:  # no such folder while it is no port of this bridge
        return None

"""A device's file system as a folder of real files: what the kernel, the initramfs and the host leave on an appliance."""

import contextlib
import dataclasses
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mamori.formats.release import Anchor, Base, Bridge, EarlyBridge, Release, Update, Variant, encode
from mamori.paths import Device

RELEASE = Release(
    product="Mamori",
    version="2026.11.0",
    recipe="lab",
    board="qemu-x86_64",
    base=Base.DEBIAN,
    variant=Variant.LAB,
    build_time=1_795_000_000,
    source_commit="0" * 40,
    features=("inspect",),
    update=Update(compatible="mamori-qemu-x86_64-lab"),
    early_bridge=EarlyBridge.FORWARD,
    bridge=Bridge("br0", ("wan", "lan")),
    anchors=(Anchor("db", "CN=db", "ab" * 32),),
)

ROOT_HASH = "5a" * 32

_INTERFACE = {"statistics/rx_bytes": "2048", "statistics/tx_bytes": "3145728", "carrier": "1"}


def _files() -> dict[str, str]:
    files = {
        "run/mamori/slot": "b\n",
        "run/mamori/verity": f"{ROOT_HASH}\n",
        "sys/block/dm-0/dm/name": "swap\n",
        "sys/block/dm-1/dm/name": "root\n",
        "sys/block/dm-1/dm/uuid": "CRYPT-VERITY-0123-root\n",
        "sys/block/dm-1/dev": "254:1\n",
        "sys/class/net/br0/address": "02:00:00:00:00:01\n",
        "proc/self/mountinfo": (
            "21 1 0:1 / / rw - rootfs rootfs rw\n"
            "22 21 254:1 / / ro,relatime shared:1 - erofs /dev/mapper/root ro\n"
            "23 22 259:7 / /data rw,nosuid shared:2 - ext4 /dev/vda7 rw\n"
        ),
        "proc/uptime": "93784.51 1000.00\n",
        "data/lost+found/x": "",
    }
    for number, name in enumerate(("br0", "wan", "lan")):
        files |= {f"sys/class/net/{name}/{file}": f"{value}\n" for file, value in _INTERFACE.items()}
        files[f"sys/class/net/{name}/address"] = f"02:00:00:00:00:0{number}\n"
    for port in ("wan", "lan"):
        files[f"sys/class/net/br0/brif/{port}/state"] = "3\n"
    return files


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A healthy appliance, with somebody who takes events."""
    device = Device(tmp_path / "root")
    for name, text in _files().items():
        path = device.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    device.release.parent.mkdir(parents=True)
    device.release.write_bytes(encode(RELEASE))
    device.secure_boot.parent.mkdir(parents=True)
    device.secure_boot.write_bytes(b"\x06\0\0\0\x01")
    device.events_socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as writer:
        with contextlib.chdir(device.events_socket.parent):  # the whole path may be too long for an address
            writer.bind(device.events_socket.name)
        yield device


@pytest.fixture
def write(device: Device) -> Callable[[str, str], None]:
    """Change one file of the device."""

    def write(name: str, text: str) -> None:
        (device.root / name).write_text(text)

    return write


@pytest.fixture
def release() -> Release:
    return dataclasses.replace(RELEASE)

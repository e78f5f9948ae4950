"""Network namespaces: one for as long as a block lasts, code that runs inside one, and taps opened in one.

A namespace belongs to a thread (setns(2)), so whatever is opened in one is opened by a thread made for it: a socket or a
tap stays in its namespace whoever holds it later.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from firmware.process import run
from mamori.formats.problems import MamoriError

T = TypeVar("T")

FOLDER = Path("/run/netns")
"""Where ip-netns(8) keeps them."""

# linux/sched.h, linux/if_tun.h, linux/sockios.h, linux/if.h
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_IFREQ = "16sH22x"
_NAME_BYTES = 15


@contextlib.contextmanager
def start_namespace(name: str) -> Iterator[str]:
    """A new network namespace with its loopback up, gone with everything in it when the block is left."""
    try:
        run(["ip", "netns", "add", name], explain=f"make the network namespace {name}")
    except (KeyboardInterrupt, SystemExit):  # it may be half made; an error says that it is another's, or none
        run(["ip", "netns", "delete", name], explain=f"remove the network namespace {name}", accept=(0, 1))
        raise
    try:
        run(["ip", "-n", name, "link", "set", "lo", "up"], explain=f"raise the loopback of {name}")
        yield name
    finally:
        run(["ip", "netns", "delete", name], explain=f"remove the network namespace {name}")


def call_in_namespace(name: str, function: Callable[[], T]) -> T:
    """What `function` returns or raises when a thread inside the namespace calls it; MamoriError if that cannot be entered."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            _enter(name)
            results.append(function())
        except BaseException as error:  # it is raised again where it was called
            errors.append(error)

    thread = threading.Thread(target=work, name=f"in {name}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def open_tap(namespace: str, name: str) -> int:
    """A file descriptor of the tap `name` in the namespace, with the interface up.

    Frames carry a virtio header (linux/virtio_net.h), so segmentation is left to the guest. A tap that was made before
    (`ip tuntap add`) is used; one that is made here vanishes with the descriptor.
    """
    if not name or len(name.encode()) > _NAME_BYTES:
        raise MamoriError(f"tap {name!r}: expected a name of at most {_NAME_BYTES} bytes")

    def work() -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack(_IFREQ, name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
            _raise_interface(name)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    try:
        return call_in_namespace(namespace, work)
    except OSError as error:
        hint = "taps need root, and /dev/net/tun" if error.errno != errno.EBUSY else "another machine uses it"
        raise MamoriError(f"tap {name} in the network namespace {namespace}: {error.strerror}", hint) from None


def _raise_interface(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack(_IFREQ, name.encode(), 0))
        flags = struct.unpack(_IFREQ, answer)[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_IFREQ, name.encode(), flags | _IFF_UP))


def _enter(name: str) -> None:
    try:
        descriptor = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MamoriError(f"there is no network namespace {name}", f"`ip netns add {name}` makes it") from None
    except OSError as error:
        raise MamoriError(f"network namespace {name}: {error.strerror}") from None
    try:
        # os.setns is there from Python 3.12 on only.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise MamoriError(f"network namespace {name}: {os.strerror(ctypes.get_errno())}", "only root can enter one")
    finally:
        os.close(descriptor)

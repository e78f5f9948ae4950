"""A packet queue of the kernel, over a netlink socket: packets out, verdicts in.

One netlink datagram is one packet, so packets are fetched one system call each; verdicts go out many to a call.

Trouble on the way is counted and never fatal. When nobody fetches fast enough, the kernel lets packets pass (fail-open) or
drops them, and the socket counts those. Without NETLINK_NO_ENOBUFS it would do worse: after the first packet that does
not fit, *every* packet is refused until the socket is empty (af_netlink.c, NETLINK_S_CONGESTED), which is a window
without inspection, or without traffic.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mamori.formats.problems import MamoriError
from mamori.inspect.nfqueue.messages import Flags, Packet, decode, encode_bind
from mamori.inspect.nfqueue.netlink import (
    NETLINK_CAP_ACK,
    NETLINK_NETFILTER,
    NETLINK_NO_ENOBUFS,
    SOL_NETLINK,
    Answered,
    MessageError,
)

# asm-generic/socket.h, linux/sock_diag.h
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE, _SO_MEMINFO = 33, 32, 55
_MEMINFO, _MEMINFO_DROPS = struct.Struct("=9I"), 8

MAX_LENGTH = 2048
"""Packets that may wait. As super-packets they are 128 MiB, but a sender's window ends that sooner."""
RECEIVE_BUFFER_BYTES = 16 * 1024 * 1024
"""250 super-packets, 26 ms of 5 Gbit/s: longer than a garbage collection. Each worker has its own; a small box has 2 GiB."""
SEND_BUFFER_BYTES = 4 * 1024 * 1024
SEND_BYTES = 1024 * 1024
"""One call's verdicts: 16 replaced super-packets. The kernel copies them into one block of memory, so no more than this."""
RECEIVE_LIMIT = 64
"""Packets of one `receive`: few enough that a verdict does not wait for long, many enough that its send costs little."""
DATAGRAM_BYTES = 0xFFFF + 1024
"""The longest packet message: a payload, and headers of a hundred bytes or two."""
ANSWER_WITHIN_S = 5.0
"""Configuration is answered at once; a kernel that loads modules for it takes longer."""

_SEQUENCE = 1


@dataclass(frozen=True)
class Settings:
    """`number` of the queue; with `fail_open` packets pass when it is full, else they are dropped."""

    number: int
    fail_open: bool
    max_length: int = MAX_LENGTH
    receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES


@dataclass(frozen=True)
class Counters:
    """Since the queue was opened: packets received; packets that did not fit in the socket, which passed uninspected
    (fail-open) or were dropped; verdicts that the kernel refused, nearly always because the packet was gone with its
    interface; system calls that failed for want of memory; datagrams that were no messages."""

    received: int
    overrun: int
    refused: int
    no_memory: int
    malformed: int


class Queue:
    """An open queue. `receive` packets and `send` verdicts; readable (`fileno`) when packets wait."""

    def __init__(self, settings: Settings, netlink: socket.socket, early: list[Packet]) -> None:
        self.settings = settings
        self._socket, self._early = netlink, early
        self._received = self._refused = self._no_memory = self._malformed = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self, limit: int = RECEIVE_LIMIT) -> list[Packet]:
        """Packets that wait now, at most `limit`; none is an empty list. Never blocks."""
        packets, self._early = self._early, []
        fetch = self._socket.recv
        for _ in range(limit):
            try:
                # A bytes object of its own for each, so that a packet can be held back while others are fetched.
                datagram = fetch(DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self._forgive(error)
                continue
            try:
                messages = decode(datagram)
            except MessageError:
                self._malformed += 1
                continue
            for message in messages:
                if isinstance(message, Packet):
                    packets.append(message)
                elif message.errno:
                    self._refused += 1
        self._received += len(packets)
        return packets

    def send(self, verdicts: Iterable[bytes]) -> None:
        """Send encoded verdicts, in as few system calls as they fit. A refusal is counted when the next packets are received."""
        waiting: list[bytes] = []
        size = 0
        for verdict in verdicts:
            if size + len(verdict) > SEND_BYTES:
                self._send_now(waiting)
                waiting, size = [], 0
            waiting.append(verdict)
            size += len(verdict)
        if waiting:
            self._send_now(waiting)

    def counters(self) -> Counters:
        memory = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        overrun = _MEMINFO.unpack(memory)[_MEMINFO_DROPS]
        return Counters(self._received, overrun, self._refused, self._no_memory, self._malformed)

    def _send_now(self, verdicts: list[bytes]) -> None:
        try:
            self._socket.send(b"".join(verdicts))
        except OSError as error:
            self._forgive(error)
            if len(verdicts) > 1:  # one by one needs less memory at a time, and a packet without a verdict waits for ever
                for verdict in verdicts:
                    self._send_now([verdict])

    def _forgive(self, error: OSError) -> None:
        """Count a want of memory, and go on; anything else is a bug of ours."""
        if error.errno not in (errno.ENOBUFS, errno.ENOMEM):
            raise error
        self._no_memory += 1


@contextlib.contextmanager
def start_queue(settings: Settings) -> Iterator[Queue]:
    """The queue, ours as long as the block lasts; MamoriError when the kernel does not let us have it.

    When it ends, however it ends, the kernel drops the packets that still wait, and the rule's bypass decides about the rest.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as netlink:
        try:
            early = _bind(netlink, settings)
        except OSError as error:
            raise MamoriError(
                f"packet queue {settings.number}: {error.strerror or 'the kernel does not answer'}", _hint(error)
            ) from None
        netlink.setblocking(False)
        yield Queue(settings, netlink, early)


def _bind(netlink: socket.socket, settings: Settings) -> list[Packet]:
    """Set up the socket and the queue; the packets that came before the kernel's answer. OSError is its refusal."""
    netlink.bind((0, 0))
    netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, settings.receive_buffer_bytes)
    netlink.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
    netlink.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
    netlink.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)  # a refused verdict comes back without its 64 KiB
    flags = Flags.GSO | Flags.FAIL_OPEN if settings.fail_open else Flags.GSO
    netlink.send(encode_bind(settings.number, max_length=settings.max_length, flags=flags, sequence=_SEQUENCE))
    early: list[Packet] = []
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while True:
        netlink.settimeout(max(0.0, deadline - time.monotonic()) or 0.001)
        for message in decode(netlink.recv(DATAGRAM_BYTES)):
            if isinstance(message, Packet):
                early.append(message)
            elif isinstance(message, Answered) and message.sequence == _SEQUENCE:
                if message.errno:
                    raise OSError(message.errno, os.strerror(message.errno))
                return early


def _hint(error: OSError) -> str:
    match error.errno:
        case errno.EPERM:
            return "it takes CAP_NET_ADMIN in the network namespace; and nobody else may have the queue"
        case errno.EBUSY:
            return "another process has this queue"
        case _:
            return ""

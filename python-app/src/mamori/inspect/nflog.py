"""Copies of packets from the kernel: a log group of netfilter over a netlink socket. The packets themselves go their way.

Messages are those of linux/netfilter/nfnetlink_log.h; what they share with the packet queue's is in nfqueue/netlink.py. The kernel
collects messages for a second and sends them in one datagram (nfnetlink_log.c, NFULNL_TIMEOUT_DEFAULT).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from struct import Struct
from typing import NamedTuple

from mamori.formats.problems import MamoriError
from mamori.inspect.nfqueue.netlink import (
    FAMILY,
    HEADER,
    NETLINK_NETFILTER,
    NETLINK_NO_ENOBUFS,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    SOL_NETLINK,
    Answered,
    MessageError,
    decode_answer,
    decode_attributes,
    encode_attribute,
    encode_message,
    read_header,
    read_hw_address,
    read_number,
)

COPY_BYTES = 2048
"""A packet of an Ethernet that is not jumbo, whole. Names stand at the beginning."""

RECEIVE_BUFFER_BYTES = 1 << 20
"""Whoever looks every half second finds at most what the rule's limit lets through in that time: a tenth of this."""

RECEIVE_LIMIT = 64
"""Datagrams of one look, each with a second's packets or a page of them."""

ANSWER_WITHIN_S = 5.0
"""Configuration is answered at once; a kernel that loads modules for it takes longer."""

_DATAGRAM_BYTES = 1 << 17
"""More than the kernel's largest: NFULA_CFG_NLBUFSIZ is left as it is, a page, and one packet may exceed it."""

_NFNL_SUBSYS_ULOG = 4
_PACKET, _CONFIG = (_NFNL_SUBSYS_ULOG << 8 | number for number in range(2))  # enum nfulnl_msg_types
_CFG_CMD, _CFG_MODE, _CMD_BIND, _COPY_PACKET = 1, 2, 1, 2
_A_PHYSINDEV, _A_HWADDR, _A_PAYLOAD = 6, 8, 9  # enum nfulnl_attr_type
_MODE = Struct(">IBx")  # nfulnl_msg_config_mode: copy range, copy mode

_SEQUENCE = 1


class Copy(NamedTuple):
    """A packet that passed. `payload` starts with the IP header, cut after COPY_BYTES; `physindev` is the number of the bridge's
    port that it came in by, 0 where there is none; `hw_address` is the source MAC, empty where the kernel says nothing."""

    payload: memoryview
    physindev: int
    hw_address: bytes


def encode_group(group: int, *, sequence: int) -> bytes:
    """Take the log group, with copies of packets, in one message that the kernel answers."""
    command = encode_attribute(_CFG_CMD, bytes([_CMD_BIND]))
    mode = encode_attribute(_CFG_MODE, _MODE.pack(COPY_BYTES, _COPY_PACKET))
    return encode_message(_CONFIG, NLM_F_REQUEST | NLM_F_ACK, sequence, group, command + mode)


def decode_log(datagram: bytes) -> list[Copy | Answered]:
    """The messages of one datagram in their order; MessageError for what is not one. Kinds that nobody asked for are skipped, the
    end of a batch (NLMSG_DONE) among them."""
    messages: list[Copy | Answered] = []
    view = memoryview(datagram)
    at = 0
    while at < len(datagram):
        length, kind = read_header(datagram, at)
        if kind == _PACKET:
            messages.append(_decode_copy(view, at + HEADER.size, at + length))
        elif kind == NLMSG_ERROR:
            messages.append(decode_answer(datagram, at + HEADER.size, at + length))
        at += length + 3 & ~3
    return messages


def _decode_copy(view: memoryview, at: int, end: int) -> Copy:
    if end - at < FAMILY.size:
        raise MessageError("a packet without the header of netfilter")
    found = decode_attributes(view, at + FAMILY.size, end)
    return Copy(found.get(_A_PAYLOAD, view[:0]), read_number(found, _A_PHYSINDEV), read_hw_address(found, _A_HWADDR))


class LogGroup:
    """An open group: ours until it is closed, or this process ends. MamoriError when the kernel does not let us have it."""

    def __init__(self, group: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        try:
            self._bind(group)
        except OSError as error:
            self._socket.close()
            # nfnetlink_log.c, nfulnl_recv_config: a group that another socket has is EPERM, too.
            hint = "it takes CAP_NET_ADMIN, and nobody else may have the group" if error.errno == errno.EPERM else ""
            raise MamoriError(f"log group {group}: {error.strerror or 'the kernel does not answer'}", hint) from None
        self._socket.setblocking(False)

    def receive(self) -> list[Copy]:
        """What has come since the last look, of RECEIVE_LIMIT datagrams. Never blocks; what cannot be read is left out."""
        copies: list[Copy] = []
        for _ in range(RECEIVE_LIMIT):
            try:
                datagram = self._socket.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.ENOMEM):
                    raise
                continue
            with contextlib.suppress(MessageError):
                copies += (message for message in decode_log(datagram) if isinstance(message, Copy))
        return copies

    def close(self) -> None:
        self._socket.close()

    def _bind(self, group: int) -> None:
        netlink = self._socket
        netlink.bind((0, 0))
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        # What does not fit is lost, and nothing else: see nfqueue/queue.py.
        netlink.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
        netlink.send(encode_group(group, sequence=_SEQUENCE))
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while True:
            netlink.settimeout(max(0.001, deadline - time.monotonic()))
            for message in decode_log(netlink.recv(_DATAGRAM_BYTES)):
                if isinstance(message, Answered) and message.sequence == _SEQUENCE:
                    if message.errno:
                        raise OSError(message.errno, os.strerror(message.errno))
                    return

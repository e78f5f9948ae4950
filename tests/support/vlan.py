"""A VLAN interface without the kernel's 8021q, which not every test machine has: a tap whose frames leave a port with a tag.

What the box sees are real tagged frames of real connections. Frames come back untagged by the kernel with the tag beside
them (packet(7), PACKET_AUXDATA), so whoever gets here has shown that the tag survived the way.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator

from firmware.netns import call_in_namespace, open_tap

_SOL_PACKET, _PACKET_AUXDATA = 263, 8  # linux/socket.h, linux/if_packet.h
_VLAN_VALID, _ETH_P_ALL, _TPID = 0x10, 0x0003, 0x8100
_AUXDATA = "IIIHHHH"  # struct tpacket_auxdata: status, length, captured, mac, net, tag, tag protocol
_MAX_FRAME_BYTES = 65600
_VNET_HEADER = bytes(10)  # struct virtio_net_hdr of an ordinary frame, which taps made by netns carry


@contextlib.contextmanager
def start_vlan(namespace: str, port: str, identifier: int, name: str) -> Iterator[None]:
    """The interface `name` in the namespace, a member of VLAN `identifier` on `port`, as long as the block lasts."""
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(call_in_namespace(namespace, lambda: _open_packets(port)))
        tap = open_tap(namespace, name)
        stack.callback(os.close, tap)
        stop, stopped = os.pipe()
        stack.callback(os.close, stop)
        thread = threading.Thread(target=_relay, args=(tap, wire, stop, identifier), name=f"vlan {identifier}")
        thread.start()
        stack.callback(thread.join)
        stack.callback(os.close, stopped)
        yield


def _open_packets(port: str) -> socket.socket:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    packets.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    packets.bind((port, _ETH_P_ALL))
    return packets


def _relay(tap: int, wire: socket.socket, stop: int, identifier: int) -> None:
    tag = struct.pack("!HH", _TPID, identifier)
    while True:
        ready, _, _ = select.select([tap, wire, stop], [], [])
        if stop in ready:
            return
        if tap in ready:
            frame = os.read(tap, _MAX_FRAME_BYTES)[len(_VNET_HEADER) :]
            wire.send(frame[:12] + tag + frame[12:])
        if wire in ready:
            frame, control, _, address = wire.recvmsg(_MAX_FRAME_BYTES, socket.CMSG_SPACE(struct.calcsize(_AUXDATA)))
            if address[2] != socket.PACKET_OUTGOING and _vlan(control) == identifier:
                os.write(tap, _VNET_HEADER + frame)


def _vlan(control: list[tuple[int, int, bytes]]) -> int | None:
    """The VLAN that a frame came with, or None."""
    for level, kind, data in control:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _, _, _, _, tag, _ = struct.unpack(_AUXDATA, data[: struct.calcsize(_AUXDATA)])
            return tag & 0xFFF if status & _VLAN_VALID else None
    return None

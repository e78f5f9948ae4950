"""A PPPoE session without the kernel's ppp: a tap whose frames leave a port inside the session's frames (RFC 2516).

What the box sees are real session frames of real connections. Discovery and PPP's negotiation are left out: a bridge takes no part
in them. Like the kernel's pppoe_rcv, the far end believes the length in the session's header: a frame shorter than that is
dropped, and what is behind it is cut off.
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
from firmware.process import run

MTU = 1492
"""RFC 2516 7: Ethernet's 1500 bytes without 6 of the session's header and 2 of PPP's protocol."""

ADDRESS = bytes.fromhex("020000000050")
"""Of both ends; nobody but them sees it. There is no ARP in PPP: tell each end that the other one has it."""

_ETH_P_ALL, _SESSION = 0x0003, 0x8864
_HEADER = struct.Struct("!BBHHH")  # version and type, code, session, length (with the protocol), PPP protocol
_PROTOCOLS = {0x0800: 0x0021, 0x86DD: 0x0057}  # ethertype to PPP protocol (RFC 1332, RFC 5072)
_ETHERTYPES = {protocol: ethertype for ethertype, protocol in _PROTOCOLS.items()}
_VNET_HEADER, _MAX_FRAME_BYTES = bytes(10), 65600


@contextlib.contextmanager
def start_pppoe(namespace: str, port: str, peer: bytes, session: int, name: str) -> Iterator[None]:
    """The interface `name` in the namespace, one end of a session on `port` with the host that has the MAC address `peer`."""
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(call_in_namespace(namespace, lambda: _open_packets(port)))
        own = wire.getsockname()[4]
        tap = open_tap(namespace, name)
        stack.callback(os.close, tap)
        run(
            ["ip", "-n", namespace, "link", "set", name, "mtu", str(MTU), "address", ADDRESS.hex(":")],
            explain="leave room for the session's header",
        )
        stop, stopped = os.pipe()
        stack.callback(os.close, stop)
        thread = threading.Thread(target=_relay, args=(tap, wire, stop, own, peer, session), name=f"session {session}")
        thread.start()
        stack.callback(thread.join)
        stack.callback(os.close, stopped)
        yield


def _open_packets(port: str) -> socket.socket:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    packets.bind((port, _ETH_P_ALL))
    return packets


def _relay(tap: int, wire: socket.socket, stop: int, own: bytes, peer: bytes, session: int) -> None:
    sources: list[int | socket.socket] = [tap, wire, stop]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if stop in ready:
            return
        if tap in ready:
            frame = os.read(tap, _MAX_FRAME_BYTES)[len(_VNET_HEADER) :]
            protocol = _PROTOCOLS.get(int.from_bytes(frame[12:14], "big"))
            if protocol:
                header = _HEADER.pack(0x11, 0, session, len(frame) - 14 + 2, protocol)
                wire.send(peer + own + _SESSION.to_bytes(2, "big") + header + frame[14:])
        if wire in ready:
            frame, address = wire.recvfrom(_MAX_FRAME_BYTES)
            packet = _unpack(frame, session) if address[2] == socket.PACKET_HOST else b""
            if packet:
                os.write(tap, _VNET_HEADER + packet)


def _unpack(frame: bytes, session: int) -> bytes:
    """The frame for the tap; nothing for what is not of the session or shorter than its header says."""
    if int.from_bytes(frame[12:14], "big") != _SESSION or len(frame) < 14 + _HEADER.size:
        return b""
    _, _, number, length, protocol = _HEADER.unpack_from(frame, 14)
    end = 14 + _HEADER.size - 2 + length
    if number != session or len(frame) < end or protocol not in _ETHERTYPES:
        return b""
    return ADDRESS + frame[6:12] + _ETHERTYPES[protocol].to_bytes(2, "big") + frame[14 + _HEADER.size : end]

"""Conversations as frames of a capture: who says what, with the handshake before it and an acknowledgement behind each turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

from tests.support import packets
from tests.support.captures import enhanced, ethernet, interface, pcap, section

OFFICE, OUTSIDE = "192.168.1.10", "203.0.113.5"
OFFICE_MAC, OUTSIDE_MAC = b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x0b"
START_S = 1_800_000_000
_SYN, _ACK, _PSH = 2, 16, 24


@dataclass
class Talk:
    """Frames in order, a hundredth of a second apart. `tags` are VLAN tags of all of them; `office` is who has OFFICE_MAC."""

    tags: tuple[tuple[int, int], ...] = ()
    frames: list[bytes] = field(default_factory=list)
    office: str = OFFICE

    def tcp(
        self, port: int, *turns: tuple[str, bytes], source_port: int = 40000, ends: tuple[str, str] = (OFFICE, OUTSIDE)
    ) -> Talk:
        """A connection of the first end to the port of the second; a turn is `c` or `s`, and what that side says."""
        next_ = {"c": 1000, "s": 5000}

        def send(side: str, data: bytes, flags: int) -> None:
            ours, theirs = (source_port, port) if side == "c" else (port, source_port)
            other = "s" if side == "c" else "c"
            acknowledged = next_[other] if flags & _ACK else 0
            segment = packets.tcp(data, ports=(ours, theirs), sequence=next_[side], acknowledgement=acknowledged, flags=flags)
            next_[side] += len(data) + bool(flags & _SYN)
            self.ip(segment, packets.TCP, ends if side == "c" else ends[::-1])

        send("c", b"", _SYN)
        send("s", b"", _SYN | _ACK)
        send("c", b"", _ACK)
        for side, data in turns:
            for at in range(0, len(data), 1400):
                send(side, data[at : at + 1400], _PSH)
            send("s" if side == "c" else "c", b"", _ACK)
        return self

    def udp(self, ports: tuple[int, int], data: bytes, ends: tuple[str, str] = (OFFICE, OUTSIDE)) -> Talk:
        self.ip(packets.udp(data, ports=ports), packets.UDP, ends)
        return self

    def ip(self, payload: bytes, protocol: int, ends: tuple[str, str]) -> None:
        packed = ip_address(ends[0]).packed, ip_address(ends[1]).packed
        make, kind = (packets.ipv4, 0x0800) if len(packed[0]) == 4 else (packets.ipv6, 0x86DD)
        source = OFFICE_MAC if ends[0] == self.office else OUTSIDE_MAC
        self.frames.append(ethernet(kind, make(payload, protocol, ends=packed), *self.tags, source=source))

    def pcap(self, snap_bytes: int = 1 << 18) -> bytes:
        """Of each frame at most so many bytes, as `tcpdump -s` keeps them."""
        return pcap(*((*_time(at), frame[:snap_bytes]) for at, frame in enumerate(self.frames)), wire_bytes=1514)

    def pcapng(self) -> bytes:
        """In microseconds, the default."""
        times = ((second * 1_000_000 + fraction) for second, fraction in map(_time, range(len(self.frames))))
        return section() + interface() + b"".join(enhanced(0, *each) for each in zip(times, self.frames, strict=True))


def _time(number: int) -> tuple[int, int]:
    return START_S + number // 100, number % 100 * 10_000

"""The transport checksum of a packet whose payload we replaced.

What the kernel wants back depends on what it gave, because a queue that takes super-packets gets checksums unfinished.
Where the kernel says CHECKSUM_NOT_READY, the field holds the sum over the pseudo header only, for the hardware to go on
from. A verdict with a payload sets skb->ip_summed to CHECKSUM_NONE (nfnetlink_queue.c, nfqnl_mangle): complete as it is.

- An ordinary packet therefore needs its full checksum, whatever the field held before.
- A super-packet without CHECKSUM_PARTIAL is segmented in software at the egress (netdevice.h, netif_needs_gso), which makes
  every segment's checksum: TCP's from scratch (tcp_offload.c, tcp4_gso_segment), UDP's from the pseudo header's sum that it
  finds (udp_offload.c, __udp_gso_segment). So the field must stay as it is, and 64 KiB need not be summed up.
"""

from __future__ import annotations

from mamori.inspect.errors import ParseError
from mamori.inspect.nfqueue.messages import Info

MAX_EXTENSIONS = 8
"""RFC 8200 §4.1 lists each header once and destination options twice; who sends more wants to be lost sight of."""

_TCP, _UDP = 6, 17
_CHECKSUM_AT = {_TCP: 16, _UDP: 6}  # RFC 9293 §3.1, RFC 768
_HEADER_BYTES = {_TCP: 20, _UDP: 8}
_HOP_BY_HOP, _ROUTING, _DESTINATION = 0, 43, 60  # RFC 8200 §4
_NOT_READY, _SUPER_PACKET = int(Info.CHECKSUM_NOT_READY), int(Info.SUPER_PACKET)


class ChecksumError(ParseError):
    """No checksum could be made: a fragment, not TCP or UDP, cut short, or routed by its sender."""


def finish_checksum(packet: bytearray, info: int) -> None:
    """Make the TCP or UDP checksum of a whole IP packet what the kernel wants it to be; `info` is that of the queued packet."""
    protocol, start, end, addresses = _find_transport(packet)
    if info & _SUPER_PACKET:
        if protocol == _UDP and not info & _NOT_READY:
            raise ChecksumError("a UDP super-packet whose segments keep their own checksums")
        return
    at = start + _CHECKSUM_AT[protocol]
    if protocol == _UDP and packet[at : at + 2] == b"\0\0" and packet[0] >> 4 == 4:
        return  # RFC 768: its sender made none
    packet[at : at + 2] = b"\0\0"
    # The ones' complement sum of 16-bit words is the remainder by 65535 (RFC 1071 §1): of one long number, 30 times
    # as fast as a loop over words. Remainder 0 stands for the sum 0xffff, as a pseudo header is never all zeros.
    words = packet[start:end] + bytes((end - start) % 2)
    total = int.from_bytes(words, "big") + int.from_bytes(addresses, "big") + protocol + end - start
    checksum = -total % 0xFFFF
    if protocol == _UDP:
        checksum = checksum or 0xFFFF
    packet[at : at + 2] = checksum.to_bytes(2, "big")


def _find_transport(packet: bytearray) -> tuple[int, int, int, bytearray]:
    """Protocol, offsets of the TCP or UDP segment's start and end, and both addresses."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        protocol, start, end = _find_in_ipv4(packet)
        addresses = packet[12:20]
    elif version == 6 and len(packet) >= 40:
        protocol, start, end = _find_in_ipv6(packet)
        addresses = packet[8:40]
    else:
        raise ChecksumError("not a whole IP header")
    if protocol not in _CHECKSUM_AT:
        raise ChecksumError(f"neither TCP nor UDP: protocol {protocol}")
    if not start + _HEADER_BYTES[protocol] <= end <= len(packet):
        raise ChecksumError("cut short")
    return protocol, start, end, addresses


def _find_in_ipv4(packet: bytearray) -> tuple[int, int, int]:
    start = (packet[0] & 0x0F) * 4
    if start < 20:
        raise ChecksumError("an IPv4 header that is too short")
    if int.from_bytes(packet[6:8], "big") & 0x3FFF:  # more fragments, or an offset
        raise ChecksumError("a fragment")
    return packet[9], start, int.from_bytes(packet[2:4], "big")


def _find_in_ipv6(packet: bytearray) -> tuple[int, int, int]:
    end = 40 + int.from_bytes(packet[4:6], "big")
    protocol, start = packet[6], 40
    for _ in range(MAX_EXTENSIONS):
        if protocol not in (_HOP_BY_HOP, _ROUTING, _DESTINATION):
            return protocol, start, end
        if start + 8 > min(end, len(packet)):
            raise ChecksumError("cut short")
        if protocol == _ROUTING and packet[start + 3]:
            raise ChecksumError("the destination in the header is not the last one")
        protocol, start = packet[start], start + (packet[start + 1] + 1) * 8
    raise ChecksumError("too many extension headers")

"""What tcpdump and editcap write is read as it was meant: packets of a namespace's loopback and of a tagged link."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from firmware.netns import call_in_namespace, start_namespace
from firmware.process import run, start
from mamori.inspect.capture import Captured, CaptureError, read_capture
from mamori.inspect.packet import UDP, parse_packet
from tests.support.captures import ethernet, pppoe
from tests.support.need import need
from tests.support.packets import ipv4, udp
from tests.support.wait import check_until

PORT = 5353
WORDS = [f"word {number}".encode() for number in range(5)]


@pytest.fixture(autouse=True)
def need_root() -> None:
    need(os.geteuid() == 0, "network namespaces need root")
    need("tcpdump", "writes the captures")


@contextmanager
def start_capture(namespace: str, device: str, file: Path, *options: str, datagrams: int = len(WORDS)) -> Iterator[None]:
    """tcpdump on a device of a namespace; the block ends when at least so many datagrams to PORT are in the file."""
    # In immediate mode a slot of the kernel's ring is as long as the longest packet: with the default, only eight fit.
    tcpdump = ["tcpdump", "-n", "-U", "--immediate-mode", "-s", "2000", "-i", device, "-w", file, *options]
    log = file.with_suffix(".log")
    with start(["ip", "netns", "exec", namespace, *tcpdump], explain="capture", log=log):
        check_until("tcpdump listens", lambda: log.exists() and b"listening on" in log.read_bytes(), within_s=10)
        yield
        check_until("tcpdump has written all", lambda: len(words(read_so_far(file))) >= datagrams, within_s=10)


def read_so_far(file: Path) -> list[Captured]:
    """What is in a file that is being written."""
    captured = []
    with suppress(CaptureError), file.open("rb") as opened:
        for one in read_capture(opened):
            captured.append(one)
    return captured


def say(namespace: str, family: socket.AddressFamily, address: str) -> None:
    """Send WORDS as datagrams."""

    def work() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            for word in WORDS:
                sender.sendto(word, (address, PORT))

    call_in_namespace(namespace, work)


def read(file: Path) -> list[Captured]:
    with file.open("rb") as opened:
        return list(read_capture(opened))


def words(captured: list[Captured]) -> list[bytes]:
    packets = [parse_packet(one.data) for one in captured]
    return [bytes(packet.payload) for packet in packets if packet.protocol == UDP and packet.destination_port == PORT]


KINDS = {
    "microseconds": ("lo", ("--micro",)),
    "nanoseconds": ("lo", ("--nano",)),
    "cooked": ("any", ("-y", "LINUX_SLL")),
    "cooked 2": ("any", ("-y", "LINUX_SLL2")),
}


@pytest.mark.parametrize(("device", "options"), KINDS.values(), ids=KINDS)
def test_a_capture_of_tcpdump_is_read(tmp_path: Path, device: str, options: tuple[str, ...]) -> None:
    file, began = tmp_path / "a.pcap", time.time()
    with (
        start_namespace(f"mamori-capture-{os.getpid()}") as namespace,
        start_capture(namespace, device, file, *options, datagrams=2 * len(WORDS)),
    ):
        say(namespace, socket.AF_INET, "127.0.0.1")
        say(namespace, socket.AF_INET6, "::1")
    captured = read(file)
    assert sorted(set(words(captured))) == WORDS
    assert {one.data[0] >> 4 for one in captured} == {4, 6}
    assert all(began - 1 <= one.at_s <= time.time() + 1 for one in captured)


@pytest.mark.parametrize("form", ["pcapng", "nsecpcap", "pcap"])
def test_a_file_that_editcap_rewrote_says_the_same(tmp_path: Path, form: str) -> None:
    need("editcap", "turns one format into another")
    file, other = tmp_path / "a.pcap", tmp_path / "b"
    with start_namespace(f"mamori-capture-{os.getpid()}") as namespace, start_capture(namespace, "lo", file, "--nano"):
        say(namespace, socket.AF_INET, "127.0.0.1")
    run(["editcap", "-F", form, file, other], explain="rewrite the capture")
    before, after = read(file), read(other)
    assert words(before) == words(after) == WORDS
    assert [one.data for one in before] == [one.data for one in after]
    assert [one.at_s for one in after] == pytest.approx([one.at_s for one in before], abs=1e-6)


def test_two_files_that_mergecap_joined_are_two_interfaces(tmp_path: Path) -> None:
    need("mergecap", "joins captures")
    files = [tmp_path / name for name in ("a.pcap", "b.pcap")]
    with start_namespace(f"mamori-capture-{os.getpid()}") as namespace:
        for file, device in zip(files, ("lo", "any"), strict=True):
            with start_capture(namespace, device, file):
                say(namespace, socket.AF_INET, "127.0.0.1")
    run(["mergecap", "-F", "pcapng", "-w", tmp_path / "c", *files], explain="join the captures")
    captured = read(tmp_path / "c")
    assert {one.interface for one in captured} == {0, 1}
    assert sorted(set(words(captured))) == WORDS


def test_tags_and_hardware_addresses_are_read_off_a_link(tmp_path: Path) -> None:
    file, mac = tmp_path / "a.pcap", b"\2\0\0\0\0\x2a"
    packet = ipv4(udp(b"tagged", ports=(1, PORT)), UDP)
    tags = {0: (), 100: ((0x8100, 100),), 5 << 12 | 100: ((0x88A8, 5), (0x8100, 100))}
    with start_namespace(f"mamori-capture-{os.getpid()}") as namespace:
        run(["ip", "-n", namespace, "link", "add", "near", "type", "veth", "peer", "name", "far"], explain="make a link")
        for end in ("near", "far"):
            run(["ip", "-n", namespace, "link", "set", end, "up"], explain="raise the link")

        def send() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind(("near", 0))
                for link in tags:
                    sender.send(ethernet(0x0800, packet, *tags[link], source=mac))
                sender.send(ethernet(0x8864, pppoe(0x0021, packet), source=mac))

        with start_capture(namespace, "far", file, datagrams=len(tags) + 1):
            call_in_namespace(namespace, send)
    spoken = [(one.data, one.source_mac, one.link) for one in read(file) if one.data[0] >> 4 == 4]
    assert spoken == [(packet, mac, link) for link in (*tags, 0)]

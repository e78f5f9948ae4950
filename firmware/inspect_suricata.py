"""Suricata in the lab, for comparison and behind our workers: its image's version, with a set of synthetic rules."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path

from firmware.inspect_box import weigh
from firmware.inspect_lab import ADDRESSES, Lab, wait_until
from firmware.peers import Peers, program_pid
from mamori.inspect.nfqueue.rules import SURICATA_QUEUE
from mamori.inspect.suricata.config import Facts, Paths, command, render_config

RULES = 20_000
"""What a box of this class carries of the ET open set."""

MEMORY_MIB = 4096
"""The box whose Suricata it is."""

_KINDS = (
    'alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"b {n}"; flow:established,to_server; http.uri; content:"/{word}"; {end}',
    'alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"b {n}"; flow:established,to_server; http.host; content:"{word}.co"; {end}',
    'alert http $EXTERNAL_NET any -> $HOME_NET any (msg:"b {n}"; flow:established,to_client; file.data; content:"{word}"; {end}',
    'alert tcp $EXTERNAL_NET any -> $HOME_NET any (msg:"b {n}"; flow:established,to_client; content:"{word}"; {end}',
    'alert tls $HOME_NET any -> $EXTERNAL_NET any (msg:"b {n}"; flow:established,to_server; tls.sni; content:"{word}.com"; {end}',
    'alert dns $HOME_NET any -> any any (msg:"b {n}"; dns.query; content:"{word}.net"; {end}',
)
_PORT = "  - {{interface: {}, cluster-id: {}, cluster-type: cluster_flow, copy-mode: ips, copy-iface: {}, use-mmap: yes}}\n"
_INLINE = "af-packet:\n" + _PORT.format("client", 91, "server") + _PORT.format("server", 92, "client")


def render_rules(count: int = RULES) -> str:
    """So many rules, the same every time, of the kinds that are most frequent in the ET set. None of them matches anything."""
    words = random.Random(20)  # noqa: S311 (no secret)
    lines = []
    for number in range(count):
        word = "".join(words.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=words.randrange(8, 17)))
        end = f"classtype:trojan-activity; sid:{3_000_000 + number}; rev:1;)"
        lines.append(_KINDS[number % len(_KINDS)].format(n=number, word=word, end=end))
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def start_suricata(lab: Lab, peers: Peers, folder: Path, rules: str, unit: str, *, inline: bool = False) -> Iterator[int]:
    """Suricata on its packet queue, or `inline` between the bridge's two ports, which leave the bridge; with the share of the
    processors that `unit` has. Its process number."""
    paths = Paths(folder / "suricata.yaml", folder / "active.rules", folder / "eve.sock", folder / "control.sock", folder)
    config = render_config(Facts(MEMORY_MIB, home=tuple(ip_network(address) for address in ADDRESSES["client"]), paths=paths))
    paths.config.write_text(config + (_INLINE if inline else ""))
    paths.rules.write_text(rules)
    argv = ["suricata", "-c", str(paths.config), "--af-packet"] if inline else command(paths.config)
    with contextlib.ExitStack() as stack:
        records = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        records.bind(str(paths.eve))
        if inline:
            _take_ports_off(lab)
        log = folder / "suricata.log"
        run_it = peers.start(argv, explain="run Suricata", namespace=lab.box, writes=[folder], log=log)
        running = stack.enter_context(run_it)
        weigh(running, unit)
        # The last words of its start: all threads run, which means that rules are loaded and the queue or the ports are open.
        wait_until(running, lambda: "Engine started" in log.read_text(), within_s=120)
        if not inline:
            wait_until(running, lambda: lab.queued(SURICATA_QUEUE) is not None)
        yield program_pid(running)


def render_queue_alone(family: str) -> Sequence[str]:
    """The command that sends all that crosses the bridge to Suricata's queue, without anything of ours."""
    return (family, "-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", str(SURICATA_QUEUE), "--queue-bypass")


def _take_ports_off(lab: Lab) -> None:
    """Suricata is the bridge now. AF_PACKET copies frame by frame, so nothing may be larger than a frame."""
    for port in ("client", "server"):
        lab.at(lab.box, "ip", "link", "set", port, "nomaster", explain="take a port off the bridge")
    for namespace, name in ((lab.client, "eth0"), (lab.server, "eth0"), (lab.box, "client"), (lab.box, "server")):
        offloads = [word for each in ("tso", "gso", "gro", "tx", "rx") for word in (each, "off")]
        lab.at(namespace, "ethtool", "-K", name, *offloads, explain="switch segmentation offload off")

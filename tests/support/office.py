"""An office around the box: `wan`, a network with a router's DHCP and a web server, and `lan`, where the computers are.

Both are network namespaces; the only way from one to the other is the box. Servers and clients are the real ones.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware.netns import start_namespace
from firmware.process import Argument, Result, run, start
from firmware.qemu import MAC_ADDRESSES, TAPS
from tests.support.nginx import start_nginx
from tests.support.vlan import start_vlan
from tests.support.wait import check_until, patience_s

ROUTER, ROUTER6, NETWORK6 = "10.77.0.1", "fd77::1", "fd77::"
BOX = "10.77.0.2"
"""The box's own address: the router's DHCP knows its MAC address."""

POOL = ("10.77.0.100", "10.77.0.199")
WEB_NAME = "www.office.test"

VLAN = 10
VLAN_ADDRESSES = {"wan": "10.78.0.1", "lan": "10.78.0.2"}

_numbers = itertools.count()

_HTTP = "access_log {folder}/access.log; server {{ listen 80; listen [::]:80; root {folder}/web; }}"

_LEASE = """\
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
"""


@dataclass(frozen=True)
class Office:
    """`wan` and `lan` are names of namespaces; `web` is what the server serves; `busybox` brings the DHCP client."""

    wan: str
    lan: str
    folder: Path
    busybox: Path

    @property
    def web(self) -> Path:
        return self.folder / "web"

    def at_lan(self, *argv: Argument, explain: str, within_s: float = 60, accept: Sequence[int] = (0,)) -> Result:
        """A program of a computer in the office, to its end."""
        command = ["ip", "netns", "exec", self.lan, *argv]
        return run(command, explain=explain, timeout_s=patience_s(within_s), accept=accept)

    def fetch(self, path: str, within_s: float = 30) -> str:
        """Head and body of what a computer in the office gets from the web server outside, or as much of it as came."""
        argv = ["curl", "--silent", "--include", "--max-time", f"{patience_s(within_s):g}", "--resolve", f"{WEB_NAME}:80:{ROUTER}"]
        return self.at_lan(*argv, f"http://{WEB_NAME}/{path}", explain="fetch", within_s=2 * within_s, accept=range(100)).stdout

    def lease(self) -> str:
        """The address that a computer in the office gets by DHCP, set on its interface."""
        script = self.folder / "lease"
        script.write_text(_LEASE)
        script.chmod(0o755)
        client = [self.busybox, "udhcpc", "-i", TAPS["lan"], "-f", "-q", "-n", "-t", "20", "-T", "2", "-s", script]
        self.at_lan(*client, explain="get an address by DHCP")
        return self.address("-4")

    def address(self, family: str) -> str:
        """The global address of the office's computer, empty if it has none; `family` is -4 or -6."""
        shown = run(
            ["ip", "-n", self.lan, "-o", family, "address", "show", "dev", TAPS["lan"], "scope", "global", "-tentative"],
            explain="ask for an address",
        ).stdout.split()
        return shown[3].split("/")[0] if len(shown) > 3 else ""

    @contextlib.contextmanager
    def vlan(self) -> Iterator[None]:
        """A member of VLAN 10 at both ends, reachable at VLAN_ADDRESSES."""
        with contextlib.ExitStack() as stack:
            for side, namespace in (("wan", self.wan), ("lan", self.lan)):
                stack.enter_context(start_vlan(namespace, TAPS[side], VLAN, "vlan"))
                address = f"{VLAN_ADDRESSES[side]}/24"
                run(["ip", "-n", namespace, "address", "add", address, "dev", "vlan"], explain="join the VLAN")
            yield


@contextlib.contextmanager
def start_office(folder: Path, busybox: Path) -> Iterator[Office]:
    """The office, gone with every process and interface when the block is left."""
    name = f"mamori-{os.getpid()}-{next(_numbers)}"
    with contextlib.ExitStack() as stack:
        office = Office(*(stack.enter_context(start_namespace(f"{name}-{side}")) for side in ("wan", "lan")), folder, busybox)
        office.web.mkdir(parents=True)
        _lay_cables(office)
        stack.enter_context(_start_router(office))
        stack.enter_context(_start_web(office))
        yield office


def _lay_cables(office: Office) -> None:
    """Taps that the box is plugged in to when it starts; they outlive it, and so do their addresses."""
    for side, namespace in (("wan", office.wan), ("lan", office.lan)):
        add = ["ip", "-n", namespace, "tuntap", "add", "dev", TAPS[side], "mode", "tap", "vnet_hdr"]
        run(add, explain=f"lay the cable to {side}")
        run(["ip", "-n", namespace, "link", "set", TAPS[side], "up"], explain=f"raise the cable to {side}")
    for address in (f"{ROUTER}/24", f"{ROUTER6}/64"):
        nodad = ["nodad"] if ":" in address else []
        argv = ["ip", "-n", office.wan, "address", "add", address, "dev", TAPS["wan"], *nodad]
        run(argv, explain="give the router its address")


@contextlib.contextmanager
def _start_router(office: Office) -> Iterator[None]:
    log = office.folder / "dnsmasq.log"
    argv = ["ip", "netns", "exec", office.wan, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root"]
    argv += [f"--interface={TAPS['wan']}", "--bind-interfaces", "--no-resolv", "--no-hosts", "--no-ping", f"--log-facility={log}"]
    argv += [f"--dhcp-leasefile={office.folder / 'leases'}", f"--pid-file={office.folder / 'dnsmasq.pid'}", "--dhcp-authoritative"]
    argv += [f"--dhcp-range={POOL[0]},{POOL[1]},255.255.255.0,1h", f"--dhcp-host={MAC_ADDRESSES['wan']},{BOX}"]
    argv += [f"--dhcp-range={NETWORK6},ra-only,64", "--enable-ra", f"--ra-param={TAPS['wan']},10"]
    argv += [f"--address=/{WEB_NAME}/{ROUTER}"]
    with start(argv, explain="run the office's router", log=office.folder / "dnsmasq.out") as running:
        check_until("the router answers", lambda: running.check() or (office.folder / "dnsmasq.pid").exists(), within_s=10)
        yield


@contextlib.contextmanager
def _start_web(office: Office) -> Iterator[None]:
    with start_nginx(office.wan, office.folder, _HTTP.format(folder=office.folder)):
        yield

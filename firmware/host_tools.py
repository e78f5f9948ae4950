"""What the host must have of its own, in one table: the rest of the tools comes from the tools tree.

Nothing but the standard library is imported here, because `./inv` reads this table before there is a virtual environment.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Purpose(Enum):
    """Why a tool is wanted; the value is what a person reads."""

    BUILD = "build an image"
    BOOT = "boot an image in QEMU"
    TEST = "test with real packets, servers and clients"
    LINT = "lint shell scripts"


@dataclass(frozen=True)
class Tool:
    """`found_by` is a command on the PATH, or the absolute path of a file that the package brings."""

    found_by: str
    package: str
    needed_for: str
    purposes: frozenset[Purpose]

    @property
    def is_present(self) -> bool:
        return Path(self.found_by).exists() if self.found_by.startswith("/") else which(self.found_by) is not None


def _tool(found_by: str, package: str, needed_for: str, *purposes: Purpose) -> Tool:
    return Tool(found_by, package, needed_for, frozenset(purposes))


TOOLS = (
    _tool("mmdebstrap", "mmdebstrap", "makes the tools tree and the Debian base", Purpose.BUILD),
    _tool("bwrap", "bubblewrap", "runs the tools tree without root", Purpose.BUILD),
    _tool("newuidmap", "uidmap", "user namespaces with more than one user", Purpose.BUILD),
    _tool(
        "/usr/share/keyrings/debian-archive-trixie-stable.gpg", "debian-archive-keyring", "checks what apt fetches", Purpose.BUILD
    ),
    _tool("git", "git", "names the commit in an image, fetches Buildroot", Purpose.BUILD),
    _tool("qemu-system-x86_64", "qemu-system-x86", "runs the image", Purpose.BOOT),
    _tool("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "ovmf", "UEFI with Secure Boot for QEMU", Purpose.BOOT),
    _tool("ip", "iproute2", "network namespaces and bridges", Purpose.BOOT, Purpose.TEST),
    _tool("dnsmasq", "dnsmasq-base", "DHCP and DNS around the box", Purpose.TEST),
    _tool("udhcpc", "udhcpc", "a real DHCP client", Purpose.TEST),
    _tool("nginx", "nginx-light", "a real web server", Purpose.TEST),
    _tool("curl", "curl", "a real web client", Purpose.TEST),
    _tool("wget", "wget", "another one", Purpose.TEST),
    _tool("socat", "socat", "raw TCP and UDP through the box", Purpose.TEST),
    _tool("ping", "iputils-ping", "reachability through the box", Purpose.TEST),
    _tool("iperf3", "iperf3", "throughput through a bridge", Purpose.TEST),
    _tool("wrk", "wrk", "many small web requests", Purpose.TEST),
    _tool("iptables-nft-restore", "iptables", "loads the rules around the packet queue", Purpose.TEST),
    _tool("nft", "nftables", "loads the sets of known-bad addresses", Purpose.TEST),
    _tool("ethtool", "ethtool", "switches segmentation offload off and on", Purpose.TEST),
    _tool("/usr/sbin/clamd", "clamav-daemon", "the real virus scanner", Purpose.TEST),
    _tool("openssl", "openssl", "a second opinion on signatures, TLS servers", Purpose.TEST),
    _tool("tcpdump", "tcpdump", "real captures", Purpose.TEST),
    _tool("strace", "strace", "shows and cuts off the system calls of a program", Purpose.TEST),
    _tool("editcap", "wireshark-common", "captures in pcapng", Purpose.TEST),
    _tool("vsftpd", "vsftpd", "a real FTP server", Purpose.TEST),
    _tool("dovecot", "dovecot-core", "a real POP3 and IMAP server", Purpose.TEST),
    _tool("/usr/lib/dovecot/pop3", "dovecot-pop3d", "its POP3 part", Purpose.TEST),
    _tool("/usr/lib/dovecot/imap", "dovecot-imapd", "its IMAP part", Purpose.TEST),
    _tool("postfix", "postfix", "a real mail server", Purpose.TEST),
    _tool("swaks", "swaks", "a real mail client", Purpose.TEST),
    _tool("mutt", "mutt", "another one", Purpose.TEST),
    _tool("uuencode", "sharutils", "uuencoded files", Purpose.TEST),
    _tool("/usr/share/publicsuffix/public_suffix_list.dat", "publicsuffix", "which names belong to nobody", Purpose.TEST),
    _tool("ssh", "openssh-client", "tells a box in a machine what to do", Purpose.TEST),
    _tool("shellcheck", "shellcheck", "checks the shell in templates and overlays", Purpose.LINT),
)


def missing(purposes: Iterable[Purpose]) -> tuple[Tool, ...]:
    """The tools that these purposes want and this machine lacks, in table order."""
    wanted = frozenset(purposes)
    return tuple(tool for tool in TOOLS if tool.purposes & wanted and not tool.is_present)


def which(command: str) -> str | None:
    """Where the command is, on the PATH or in the system folders that a user's PATH lacks."""
    return shutil.which(command) or shutil.which(command, path="/usr/local/sbin:/usr/sbin:/sbin")


def install_command(tools: Iterable[Tool]) -> str:
    """The one command that brings all of them."""
    return f"apt-get install {' '.join(sorted({tool.package for tool in tools}))}"


def install_hint(command: str) -> str:
    """Where a missing command comes from; empty when this table does not know."""
    return next((f"{tool.needed_for}: {install_command([tool])}" for tool in TOOLS if tool.found_by == command), "")

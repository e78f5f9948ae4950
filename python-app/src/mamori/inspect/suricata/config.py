"""suricata.yaml, made on the box: the policy is live, and memory and addresses are the box's own. Starts nothing, reads nothing.

Suricata takes packets that our worker hands on (`messages.requeue`), from a packet queue of its own:

    MAMORI ─▶ NFQUEUE, worker ─▶ requeue(SURICATA_QUEUE) ─▶ Suricata: accept or drop ─▶ POSTROUTING

Everything is set to let traffic pass when Suricata is in trouble: a full queue, no memory, a stream that it did not see
from its beginning. Its own default in this mode is to drop such flows (user guide, "Exception Policies", `auto`).
The keys are those of Suricata 7's user guide, chapter "Suricata.yaml"; that Suricata takes them is shown in tests/net.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from pathlib import Path

from mamori.inspect.nfqueue.rules import SURICATA_DONE_MARK, SURICATA_QUEUE

Network = IPv4Network | IPv6Network

LOCAL_NETWORKS: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
        "169.254.0.0/16",  # RFC 3927: a PC that found no DHCP server
        "fe80::/10",  # RFC 4291: link-local
        "fc00::/7",  # RFC 4193: unique local
    )
)
"""What is the office whatever its addresses are. 100.64.0.0/10 is missing: that is the provider's side (RFC 6598)."""

STREAM_DEPTH_BYTES = 1024 * 1024
"""Of each direction of a connection. Exploits and commands of malware are in the first kilobytes, files are the virus
scanner's; behind it Suricata says that it is done, and the worker hands on no more."""

MAX_PENDING_PACKETS = 2048
"""Packets inside Suricata, and a fourth of those that may wait in the kernel (source-nfq.c). A packet of Suricata is 3.5 KB."""

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Memory:
    """Bytes that parts of Suricata may have, in MiB: flows, TCP sessions, data of streams, fragments, hosts, one body of HTTP."""

    flow_mib: int
    stream_mib: int
    reassembly_mib: int
    defrag_mib: int
    host_mib: int
    http_mib: int


MEMORY = (
    (0, Memory(flow_mib=16, stream_mib=16, reassembly_mib=48, defrag_mib=4, host_mib=4, http_mib=16)),
    (3 * 1024, Memory(flow_mib=32, stream_mib=32, reassembly_mib=96, defrag_mib=8, host_mib=8, http_mib=32)),
    (7 * 1024, Memory(flow_mib=64, stream_mib=64, reassembly_mib=256, defrag_mib=16, host_mib=16, http_mib=64)),
)
"""From so many MiB of the box's memory on. A flow is 400 bytes and a session 300: 100 PCs with 200 connections each are
20,000, or 14 MB; so even the smallest is roomy, and data of streams is what grows. The rules come on top: 30,000 of them
take 300 to 500 MB, twice that while they are loaded again, which is why a box with less than 2 GiB has no Suricata."""


@dataclass(frozen=True)
class Paths:
    """Where Suricata finds and leaves things. `config` and `rules` are what we render and prepare; `eve` is the socket of
    the keeper, which reads the records, in the keeper's own folder; `control` is Suricata's socket, and `log_folder` is for what
    it wants to write besides, which is nothing. mamori-suricata.service names the same places."""

    config: Path = Path("/data/suricata/suricata.yaml")
    rules: Path = Path("/data/suricata/active.rules")
    eve: Path = Path("/run/mamori/signatures/eve.sock")
    control: Path = Path("/run/mamori/suricata/control.sock")
    log_folder: Path = Path("/run/mamori/suricata")
    classification: Path = Path("/etc/suricata/classification.config")
    reference: Path = Path("/etc/suricata/reference.config")

    @classmethod
    def below(cls, root: Path) -> Paths:
        """Those of an appliance whose file system is in a folder. Suricata's own files are where it is installed."""
        ours = (path.relative_to("/") for path in (cls.config, cls.rules, cls.eve, cls.control, cls.log_folder))
        return cls(*(root / path for path in ours))


@dataclass(frozen=True)
class Facts:
    """What the box knows of itself: its memory, and which networks are the office's (see `home_networks`)."""

    memory_mib: int
    home: tuple[Network, ...] = LOCAL_NETWORKS
    paths: Paths = field(default_factory=Paths)


def home_networks(own: Iterable[Network] = ()) -> tuple[Network, ...]:
    """The office's networks: those that are local by their numbers, and `own`, the networks that the bridge has addresses in.
    Without the latter an office with public IPv6, as most in Japan, would be outside."""
    networks = (*LOCAL_NETWORKS, *own)
    ipv4 = collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
    ipv6 = collapse_addresses(network for network in networks if isinstance(network, IPv6Network))
    return (*ipv4, *ipv6)


def memory_for(memory_mib: int) -> Memory:
    """What fits a box with so much memory in all."""
    return [memory for least_mib, memory in MEMORY if memory_mib >= least_mib][-1]


def command(config: Path, *, queue: int = SURICATA_QUEUE) -> list[str]:
    """The argument list that starts Suricata. One queue, one receiving thread; `autofp` shares its packets, flow by flow, between
    threads that inspect, one for each processor."""
    return ["suricata", "-c", str(config), "-q", str(queue), "--runmode", "autofp"]


def check_command(config: Path, candidate: Path, log_folder: Path) -> list[str]:
    """The argument list that reads a configuration and a file of rules as Suricata would, and ends: 0 is a yes. Any rule that
    Suricata does not take is a no, and is named in what it prints (`ruleset.refused_lines`). Its own folder for logs is only
    there while it runs, and it wants one."""
    return ["suricata", "-T", "-l", str(log_folder), "-c", str(config), "-S", str(candidate)]


def render_config(facts: Facts) -> str:
    """suricata.yaml."""
    paths, memory = facts.paths, memory_for(facts.memory_mib)
    home = ",".join(str(network) for network in facts.home)
    parts = (
        "%YAML 1.1\n---\n",
        _VARIABLES.format(home=home),
        _OUTPUTS.format(log_folder=_quoted(paths.log_folder), eve=_quoted(paths.eve), control=_quoted(paths.control)),
        _CAPTURE.format(done=SURICATA_DONE_MARK, pending=MAX_PENDING_PACKETS),
        _ENGINE.format(depth=STREAM_DEPTH_BYTES, **vars(memory)),
        _PROTOCOLS.format(http_mib=memory.http_mib),
        _RULES.format(
            folder=_quoted(paths.rules.parent),
            rules=_quoted(Path(paths.rules.name)),
            classification=_quoted(paths.classification),
            reference=_quoted(paths.reference),
        ),
    )
    return "".join(parts)


def _quoted(path: Path) -> str:
    """In double quotes, which in YAML 1.1 are those of JSON."""
    return json.dumps(str(path))


# The names that rules of the ET format use; they name sides, not machines that the office would have to list. A group of ports
# is never `any`, since rules also say `!$HTTP_PORTS`.
_VARIABLES = """\
vars:
  address-groups:
    HOME_NET: "[{home}]"
    EXTERNAL_NET: "!$HOME_NET"
    HTTP_SERVERS: "$HOME_NET"
    SMTP_SERVERS: "$HOME_NET"
    SQL_SERVERS: "$HOME_NET"
    DNS_SERVERS: "$HOME_NET"
    TELNET_SERVERS: "$HOME_NET"
    AIM_SERVERS: "$EXTERNAL_NET"
    DC_SERVERS: "$HOME_NET"
    DNP3_SERVER: "$HOME_NET"
    DNP3_CLIENT: "$HOME_NET"
    MODBUS_CLIENT: "$HOME_NET"
    MODBUS_SERVER: "$HOME_NET"
    ENIP_CLIENT: "$HOME_NET"
    ENIP_SERVER: "$HOME_NET"
  port-groups:
    HTTP_PORTS: "[80,81,3128,8000,8008,8080,8888]"
    SHELLCODE_PORTS: "!80"
    ORACLE_PORTS: "1521"
    SSH_PORTS: "22"
    DNP3_PORTS: "20000"
    MODBUS_PORTS: "502"
    FILE_DATA_PORTS: "[80,110,143]"
    FTP_PORTS: "21"
    GENEVE_PORTS: "6081"
    VXLAN_PORTS: "4789"
    TEREDO_PORTS: "3544"
"""

# `flow: yes` gives an alert its flow's ends, which tell who began. The packet itself stays here: it is the owner's traffic.
_OUTPUTS = """\
default-log-dir: {log_folder}
stats:
  enabled: yes
  interval: 8
outputs:
  - eve-log:
      enabled: yes
      filetype: unix_dgram
      filename: {eve}
      community-id: no
      types:
        - alert:
            payload: no
            packet: no
            http-body: no
            metadata:
              app-layer: yes
              flow: yes
              rule:
                metadata: yes
                raw: no
            tagged-packets: no
logging:
  default-log-level: notice
  outputs:
    - console:
        enabled: yes
unix-command:
  enabled: yes
  filename: {control}
coredump:
  max-dump: 0
"""

# `accept`: a verdict ends the packet's way through FORWARD, as the worker's own would. The bypass mark is saved to the connection
# by the rules around the queue, and tells the worker to hand on no more of it.
_CAPTURE = """\
nfq:
  mode: accept
  bypass-mark: {done:#x}
  bypass-mask: {done:#x}
  fail-open: yes
max-pending-packets: {pending}
host-mode: sniffer-only
vlan:
  use-for-tracking: false
livedev:
  use-for-tracking: false
decoder:
  teredo:
    enabled: false
  vxlan:
    enabled: false
  geneve:
    enabled: false
"""

# `midstream`: the first packet of a connection passes beside the queues, so each begins with its second; from a SYN+ACK
# Suricata learns who began. A sequence number that does not fit is the worker's business, which may have rewritten data.
_ENGINE = """\
exception-policy: ignore
flow:
  memcap: {flow_mib}mb
  memcap-policy: ignore
  hash-size: 16384
  prealloc: 2000
  emergency-recovery: 30
flow-timeouts:
  default: {{new: 30, established: 300, closed: 0, bypassed: 100, emergency-new: 10, emergency-established: 100, \
emergency-closed: 0, emergency-bypassed: 50}}
  tcp: {{new: 60, established: 600, closed: 10, bypassed: 100, emergency-new: 5, emergency-established: 100, \
emergency-closed: 5, emergency-bypassed: 50}}
  udp: {{new: 30, established: 300, bypassed: 100, emergency-new: 10, emergency-established: 100, emergency-bypassed: 50}}
  icmp: {{new: 30, established: 300, bypassed: 100, emergency-new: 10, emergency-established: 100, emergency-bypassed: 50}}
stream:
  memcap: {stream_mib}mb
  memcap-policy: ignore
  midstream: yes
  midstream-policy: ignore
  checksum-validation: yes
  inline: auto
  drop-invalid: no
  bypass: yes
  prealloc-sessions: 1000
  reassembly:
    memcap: {reassembly_mib}mb
    memcap-policy: ignore
    depth: {depth}
    toserver-chunk-size: 2560
    toclient-chunk-size: 2560
    randomize-chunk-size: yes
defrag:
  memcap: {defrag_mib}mb
  memcap-policy: ignore
  hash-size: 4096
  trackers: 4096
  max-frags: 8192
  prealloc: no
  timeout: 30
host:
  hash-size: 4096
  prealloc: 100
  memcap: {host_mib}mb
detect:
  profile: medium
  sgh-mpm-context: auto
  inspection-recursion-limit: 3000
mpm-algo: auto
spm-algo: auto
pcre:
  match-limit: 3500
  match-limit-recursion: 1500
threading:
  set-cpu-affinity: no
  detect-thread-ratio: 1.0
security:
  limit-noproc: true
  lua:
    allow-rules: false
"""

# What an office speaks, and what attacks on it speak. Industrial protocols are not among it: their rules are left out.
_PROTOCOLS = """\
app-layer:
  error-policy: ignore
  protocols:
    http:
      enabled: yes
      memcap: {http_mib}mb
      libhtp:
        default-config:
          personality: IDS
          request-body-limit: 100kb
          response-body-limit: 100kb
          request-body-minimal-inspect-size: 32kb
          request-body-inspect-window: 4kb
          response-body-minimal-inspect-size: 40kb
          response-body-inspect-window: 16kb
          response-body-decompress-layer-limit: 2
          http-body-inline: auto
          double-decode-path: no
          double-decode-query: no
    http2: {{enabled: yes}}
    tls:
      enabled: yes
      detection-ports: {{dp: 443}}
      ja3-fingerprints: auto
      encryption-handling: bypass
    quic: {{enabled: yes}}
    dns:
      tcp: {{enabled: yes, detection-ports: {{dp: 53}}}}
      udp: {{enabled: yes, detection-ports: {{dp: 53}}}}
    smtp:
      enabled: yes
      raw-extraction: no
      mime:
        decode-mime: yes
        decode-base64: yes
        decode-quoted-printable: yes
        header-value-depth: 2000
        extract-urls: yes
        body-md5: no
      inspected-tracker:
        content-limit: 100000
        content-inspect-min-size: 32768
        content-inspect-window: 4096
    imap: {{enabled: detection-only}}
    ftp: {{enabled: yes, memcap: 8mb}}
    tftp: {{enabled: yes}}
    ssh: {{enabled: yes}}
    telnet: {{enabled: yes}}
    rdp: {{enabled: yes}}
    rfb: {{enabled: yes, detection-ports: {{dp: "5900, 5901, 5902, 5903"}}}}
    smb: {{enabled: yes, detection-ports: {{dp: "139, 445"}}}}
    dcerpc: {{enabled: yes}}
    nfs: {{enabled: yes}}
    krb5: {{enabled: yes}}
    ntp: {{enabled: yes}}
    dhcp: {{enabled: yes}}
    snmp: {{enabled: yes}}
    sip: {{enabled: yes}}
    ike: {{enabled: yes}}
    mqtt: {{enabled: yes}}
    bittorrent-dht: {{enabled: yes}}
    pgsql: {{enabled: no}}
    modbus: {{enabled: no}}
    dnp3: {{enabled: no}}
    enip: {{enabled: no}}
asn1-max-frames: 256
"""

_RULES = """\
default-rule-path: {folder}
rule-files:
  - {rules}
classification-file: {classification}
reference-config-file: {reference}
"""

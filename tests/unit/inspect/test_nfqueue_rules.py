"""The rules as text. That the kernel takes them, and what they do to packets, is shown in tests/net."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest

from mamori.inspect.nfqueue.rules import Family, QueueRules, render_known_bad, render_no_rules, render_queue_rules

IPV6 = """\
*mangle
:POSTROUTING ACCEPT
-F POSTROUTING
-A POSTROUTING -m physdev --physdev-is-bridged -m mark --mark 0x4d000000/0xff000000 \
-j CONNMARK --save-mark --nfmask 0xff000000 --ctmask 0xff000000
-A POSTROUTING -m physdev --physdev-is-bridged -m mark --mark 0x10000/0x10000 -j CONNMARK --set-xmark 0x10000/0x10000
COMMIT
*filter
:FORWARD ACCEPT
:MAMORI -
-F FORWARD
-A FORWARD -m physdev --physdev-is-bridged -j MAMORI
-A MAMORI -m pkttype --pkt-type broadcast -j ACCEPT
-A MAMORI -m pkttype --pkt-type multicast -j ACCEPT
-A MAMORI -p ipv6-icmp -m icmp6 --icmpv6-type 133 -j ACCEPT
-A MAMORI -p ipv6-icmp -m icmp6 --icmpv6-type 134 -j ACCEPT
-A MAMORI -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT
-A MAMORI -p ipv6-icmp -m icmp6 --icmpv6-type 136 -j ACCEPT
-A MAMORI -p ipv6-icmp -m icmp6 --icmpv6-type 137 -j ACCEPT
-A MAMORI -m connmark --mark 0x4d000000/0xff000000 -j ACCEPT
-A MAMORI -p tcp -m tcp --syn ! --tcp-option 34 -m length --length 0:84 -j ACCEPT
-A MAMORI -m connmark --mark 0x10000/0x10000 -j MARK --set-xmark 0x10000/0x10000
-A MAMORI -j NFQUEUE --queue-balance 0:1 --queue-bypass
COMMIT
"""

NOTHING = """\
*filter
:FORWARD ACCEPT
:MAMORI -
-F FORWARD
COMMIT
*mangle
:POSTROUTING ACCEPT
-F POSTROUTING
COMMIT
"""

KNOWN_BAD = """\
table inet mamori_known_bad {
  set bad4 { type ipv4_addr; flags interval; }
  set bad6 { type ipv6_addr; flags interval; }
  set allowed4 { type ipv4_addr; flags interval; }
  set allowed6 { type ipv6_addr; flags interval; }
  set noted4 { type ipv4_addr; flags interval; }
  set noted6 { type ipv6_addr; flags interval; }
  counter from_bad { }
  counter to_bad { }
  counter from_noted { }
  counter to_noted { }
  chain prerouting { type filter hook prerouting priority raw - 10; policy accept; }
}
flush chain inet mamori_known_bad prerouting
add rule inet mamori_known_bad prerouting ip saddr @allowed4 accept
add rule inet mamori_known_bad prerouting ip daddr @allowed4 accept
add rule inet mamori_known_bad prerouting ip6 saddr @allowed6 accept
add rule inet mamori_known_bad prerouting ip6 daddr @allowed6 accept
add rule inet mamori_known_bad prerouting ip saddr @bad4 counter name from_bad drop
add rule inet mamori_known_bad prerouting ip daddr @bad4 counter name to_bad drop
add rule inet mamori_known_bad prerouting ip6 saddr @bad6 counter name from_bad drop
add rule inet mamori_known_bad prerouting ip6 daddr @bad6 counter name to_bad drop
add rule inet mamori_known_bad prerouting ip saddr @noted4 counter name from_noted
add rule inet mamori_known_bad prerouting ip daddr @noted4 counter name to_noted
add rule inet mamori_known_bad prerouting ip6 saddr @noted6 counter name from_noted
add rule inet mamori_known_bad prerouting ip6 daddr @noted6 counter name to_noted
flush set inet mamori_known_bad bad4
add element inet mamori_known_bad bad4 {
  192.0.2.0/24,
}
flush set inet mamori_known_bad bad6
add element inet mamori_known_bad bad6 {
  2001:db8::/32,
}
flush set inet mamori_known_bad allowed4
add element inet mamori_known_bad allowed4 {
  192.0.2.9/32,
}
flush set inet mamori_known_bad allowed6
flush set inet mamori_known_bad noted4
flush set inet mamori_known_bad noted6
add element inet mamori_known_bad noted6 {
  2001:db8:1::/48,
}
"""


def queue_rule(rules: QueueRules) -> str:
    return next(line for line in render_queue_rules(rules, Family.IPV4).splitlines() if "NFQUEUE" in line)


def test_the_rules_of_ipv6_are_these() -> None:
    assert render_queue_rules(QueueRules(workers=2, fail_open=True), Family.IPV6) == IPV6


def test_the_rules_of_ipv4_are_the_same_without_neighbour_discovery_and_with_a_shorter_header() -> None:
    without = "".join(line.replace("0:84", "0:64") for line in IPV6.splitlines(keepends=True) if "icmp" not in line)
    assert render_queue_rules(QueueRules(workers=2, fail_open=True), Family.IPV4) == without


@pytest.mark.parametrize(
    ("rules", "ending"),
    [
        (QueueRules(workers=1, fail_open=True), "--queue-num 0 --queue-bypass"),
        (QueueRules(workers=1, fail_open=False, first_queue=7), "--queue-num 7"),
        (QueueRules(workers=4, fail_open=False, first_queue=7), "--queue-balance 7:10"),
    ],
    ids=["one worker", "one worker, closed", "four workers, closed"],
)
def test_workers_share_the_queues_and_only_fail_open_bypasses_them(rules: QueueRules, ending: str) -> None:
    assert queue_rule(rules) == f"-A MAMORI -j NFQUEUE {ending}"


@pytest.mark.parametrize(("workers", "first"), [(0, 0), (1, -1), (2, 65535)], ids=["no worker", "below", "beyond"])
def test_queues_that_do_not_exist_are_refused(workers: int, first: int) -> None:
    with pytest.raises(ValueError, match="do not exist"):
        QueueRules(workers=workers, fail_open=True, first_queue=first)


def test_without_inspection_there_is_no_queue_and_everything_passes() -> None:
    assert render_no_rules() == NOTHING


def test_known_bad_and_noted_networks_are_sets_and_an_allowed_address_is_asked_for_first() -> None:
    bad: list[IPv4Network | IPv6Network] = [IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/32")]
    assert render_known_bad(bad, [IPv4Network("192.0.2.9")], [IPv6Network("2001:db8:1::/48")]) == KNOWN_BAD


def test_networks_that_lie_in_others_or_repeat_are_left_out_and_neighbours_stay() -> None:
    ipv4 = map(IPv4Network, ["10.0.0.7", "10.0.0.0/25", "10.0.0.128/25", "10.0.0.7", "10.0.0.0/32", "10.0.0.255/32"])
    networks: list[IPv4Network | IPv6Network] = [*ipv4, IPv6Network("fd00::/65"), IPv6Network("fd00:0:0:0:8000::/65")]
    lines = render_known_bad(networks).splitlines()
    assert [line.strip() for line in lines if line.endswith(",")] == [
        "10.0.0.0/25, 10.0.0.128/25,",
        "fd00::/65, fd00::8000:0:0:0/65,",
    ]


def test_a_long_list_is_broken_into_lines() -> None:
    text = render_known_bad(IPv4Network((address, 32)) for address in range(0, 400, 2))
    lines = [line for line in text.splitlines() if line.endswith(",")]
    assert [line.count(",") for line in lines] == [64, 64, 64, 8]

"""What the kernel says of the bridge, and what that means. Pure: `mamori.sysfs` reads, this module judges."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FORWARDING = 3
"""A bridge port's `state` in sysfs is one of BR_STATE_* (linux/if_bridge.h): 0 disabled, 1 listening, 2 learning,
3 forwarding, 4 blocking. The kernel disables a port without carrier, so the carrier is judged first."""


@dataclass(frozen=True)
class Interface:
    """One network interface. None is what the kernel would not tell: a `carrier` while the interface is down, the
    bridge port's `state` while it is no port of the bridge. Counters are bytes since the interface appeared."""

    name: str
    mac: str
    carrier: bool | None
    state: int | None
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True)
class Sample:
    """The bridge at one moment: itself if it exists, and those of the wanted ports that exist, in their order."""

    bridge: Interface | None
    ports: tuple[Interface, ...]


class PortCondition(enum.Enum):
    FORWARDING = "forwarding"
    NO_CARRIER = "no carrier"
    BLOCKED = "blocked"
    DOWN = "down"
    OUTSIDE = "not in the bridge"
    MISSING = "missing"


class BridgeCondition(enum.Enum):
    """`waiting` is a cable or a switch that is off, and nobody's fault; `broken` is a bridge that ought to forward and does not."""

    FORWARDING = "forwarding"
    WAITING = "waiting"
    BROKEN = "broken"


@dataclass(frozen=True)
class Judgement:
    """What a sample means: the whole, each wanted port, and one line for people."""

    condition: BridgeCondition
    ports: Mapping[str, PortCondition]
    text: str


def judge(sample: Sample, bridge: str, wanted: Sequence[str]) -> Judgement:
    """The sample against the bridge's name and the ports that it should join."""
    found = {port.name: port for port in sample.ports}
    ports = {name: _judge_port(found.get(name)) for name in wanted}
    if sample.bridge is None:
        return Judgement(BridgeCondition.BROKEN, ports, f"{bridge} does not exist")
    troubles = [f"{name}: {condition.value}" for name, condition in ports.items() if condition is not PortCondition.FORWARDING]
    if not troubles:
        return Judgement(BridgeCondition.FORWARDING, ports, f"{bridge} forwards between {' and '.join(wanted)}")
    harmless = {PortCondition.FORWARDING, PortCondition.NO_CARRIER}
    condition = BridgeCondition.WAITING if harmless.issuperset(ports.values()) else BridgeCondition.BROKEN
    return Judgement(condition, ports, ", ".join(troubles))


def _judge_port(port: Interface | None) -> PortCondition:
    if port is None:
        return PortCondition.MISSING
    if port.state is None:
        return PortCondition.OUTSIDE
    if port.carrier is None:
        return PortCondition.DOWN
    if not port.carrier:
        return PortCondition.NO_CARRIER
    return PortCondition.FORWARDING if port.state == FORWARDING else PortCondition.BLOCKED

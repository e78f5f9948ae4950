"""docs/inspection.md agrees with the code: limits, places, processes, protocols, marks."""

from __future__ import annotations

import importlib
import re

import pytest

from mamori.inspect.crew import SILENT_S
from mamori.inspect.nfqueue.rules import DECIDED_MARK, SURICATA_DONE_MARK, SURICATA_QUEUE
from mamori.inspect.scan.files import CHECKPOINTS
from mamori.inspect.suricata.config import Paths
from mamori.inspect.suricata.health import STUCK_AFTER_S
from mamori.paths import Device
from tests.support.checkout import ROOT

TEXT = (ROOT / "docs/inspection.md").read_text()
PLAIN = " ".join(TEXT.split())
LIMITS = dict(re.findall(r"^\| `((?:inspect|events)\.[\w.]+)` \| ([^|]+) \|", TEXT, re.MULTILINE))
UNITS = ROOT / "overlay/common/usr/lib/systemd/system"


def shown(constant: str, value: float) -> str:
    """As a person writes it: 64 KiB, 50 ms, 65,536."""
    if constant.endswith("_BYTES"):
        return f"{value / (1 << 20):g} MiB" if value >= 1 << 20 else f"{value / 1024:g} KiB"
    if constant.endswith("_S"):
        return f"{value:,g} s" if value >= 1 else f"{value * 1000:g} ms"
    return f"{value:,}"


@pytest.mark.parametrize("constant", LIMITS)
def test_a_limit_of_the_document_is_that_of_the_code(constant: str) -> None:
    module, _, name = f"mamori.{constant}".rpartition(".")
    assert LIMITS[constant] == shown(name, getattr(importlib.import_module(module), name))


def test_the_document_has_the_limits() -> None:
    assert len(LIMITS) >= 20


def test_the_places_are_those_of_the_appliance() -> None:
    device = Device()
    told = set(re.findall(r"^\| `(/(?:data|run)/[^`]*)` \|", TEXT, re.MULTILINE))
    assert told == {
        *map(str, (device.policy, device.accepted_policy, device.lists, device.hash_list, device.events_database)),
        *map(str, (device.inspect_report, device.signatures_report, device.events_socket, device.clamd_socket)),
        f"{device.address_feeds}/*.txt",
        f"{device.rule_folders[1]}/*.rules",
        f"{Paths.below(device.root).rules.parent}/",
    }


@pytest.mark.parametrize("service", ["inspect", "signatures", "suricata", "clamd", "events"])
def test_a_service_of_the_inspection_is_named_with_its_user(service: str) -> None:
    (user,) = re.findall(r"^User=(\S+)$", (UNITS / f"mamori-{service}.service").read_text(), re.MULTILINE)
    assert f"`{user}`" in TEXT.split("## Processes")[1].split("## A worker")[0]


@pytest.mark.parametrize(
    "sentence",
    [
        f"marks its packet (`{DECIDED_MARK:#X}`)".replace("0X", "0x"),
        f"A second mark (`{SURICATA_DONE_MARK:#010x}`)",
        f"Suricata, queue {SURICATA_QUEUE}",
        f"workers after {SILENT_S:g} s without a word, Suricata after {STUCK_AFTER_S:g} s without a move",
        f"end at {CHECKPOINTS[0] >> 10} KiB, {CHECKPOINTS[1] >> 20} MiB and {CHECKPOINTS[2] >> 20} MiB",
    ],
)
def test_a_number_of_the_document_is_that_of_the_code(sentence: str) -> None:
    assert sentence in PLAIN

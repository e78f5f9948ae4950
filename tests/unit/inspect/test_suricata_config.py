"""suricata.yaml as text. That Suricata takes it, and behaves as it says, is shown in tests/net."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from mamori.inspect.nfqueue.rules import DECIDED_MARK, MARK_MASK, SURICATA_DONE_MARK, SURICATA_QUEUE
from mamori.inspect.suricata.config import (
    LOCAL_NETWORKS,
    MEMORY,
    Facts,
    Paths,
    check_command,
    command,
    home_networks,
    memory_for,
    render_config,
)


def config(facts: Facts) -> dict[str, object]:
    loaded = yaml.safe_load(render_config(facts))
    assert isinstance(loaded, dict)
    return loaded


def test_whatever_goes_wrong_in_suricata_lets_traffic_pass() -> None:
    loaded = config(Facts(2048))
    assert loaded["exception-policy"] == "ignore"
    assert loaded["nfq"]["fail-open"] is True  # type: ignore[index]
    policies = {key: value for key, value in leaves(loaded) if key.endswith("-policy")}
    assert len(policies) >= 6
    assert set(policies.values()) == {"ignore"}


def leaves(tree: dict[str, object], path: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in tree.items():
        found += leaves(value, f"{path}{key}.") if isinstance(value, dict) else [(f"{path}{key}", value)]
    return found


def test_the_office_is_what_is_local_and_what_the_bridge_has_addresses_in() -> None:
    own = [ip_network("2001:db8::/64"), ip_network("192.168.1.0/24"), ip_network("203.0.113.0/29")]
    networks = home_networks(own)
    assert set(networks) == {*LOCAL_NETWORKS, own[0], own[2]}
    groups = config(Facts(2048, home=networks))["vars"]["address-groups"]  # type: ignore[index]
    assert groups["HOME_NET"] == f"[{','.join(map(str, networks))}]"
    assert groups["EXTERNAL_NET"] == "!$HOME_NET"


def test_memory_grows_with_the_box_and_stays_a_small_part_of_it() -> None:
    sizes = [sum(vars(memory_for(mib)).values()) for mib in (1024, 2048, 3 * 1024, 4096, 7 * 1024, 16 * 1024)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(MEMORY)
    assert all(sum(vars(memory_for(mib)).values()) <= mib / 12 for mib in (2048, 4096, 8192))
    assert config(Facts(4096))["flow"]["memcap"] == f"{memory_for(4096).flow_mib}mb"  # type: ignore[index]


def test_paths_are_quoted_whatever_is_in_them() -> None:
    paths = Paths(rules=Path('/a: "b"/#c.rules'), eve=Path("/e, f"), control=Path("/c\\d"), log_folder=Path("/l"))
    loaded = config(Facts(2048, paths=paths))
    assert (loaded["default-rule-path"], loaded["rule-files"]) == ('/a: "b"', ["#c.rules"])
    assert loaded["outputs"][0]["eve-log"]["filename"] == "/e, f"  # type: ignore[index]
    assert loaded["unix-command"]["filename"] == "/c\\d"  # type: ignore[index]


def test_suricatas_mark_is_none_of_ours() -> None:
    assert SURICATA_DONE_MARK & MARK_MASK == 0 == DECIDED_MARK & SURICATA_DONE_MARK
    nfq = config(Facts(2048))["nfq"]
    assert nfq == {"mode": "accept", "bypass-mark": SURICATA_DONE_MARK, "bypass-mask": SURICATA_DONE_MARK, "fail-open": True}


CHECK = check_command(Path("/c.yaml"), Path("/r"), Path("/l"))


@pytest.mark.parametrize("argv", [command(Path("/c.yaml")), CHECK], ids=["run", "check"])
def test_a_command_names_its_configuration(argv: list[str]) -> None:
    assert argv[0] == "suricata"
    assert argv[argv.index("-c") + 1] == "/c.yaml"
    assert (str(SURICATA_QUEUE) in argv) == ("-T" not in argv)

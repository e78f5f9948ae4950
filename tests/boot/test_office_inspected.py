"""The inspection in the booted image: what the office gets, and what the box tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.machine import Box
from tests.support.office import WEB_NAME, Office
from tests.support.wait import check_until

POLICY = "/data/policy/policy.toml"
PAGE = "the page"


@pytest.fixture(scope="module")
def leased(box: Box, office: Office) -> str:
    (office.web / "inspected").write_text(PAGE)
    check_until("the workers inspect", lambda: len(workers(box)) == 2, within_s=120)
    return office.address("-4") or office.lease()


@pytest.fixture(autouse=True)
def no_policy_left(box: Box) -> Iterator[None]:
    yield
    box.host.run(f"rm -f {POLICY}")


def workers(box: Box) -> list[dict[str, Any]]:
    return box.packets().get("workers", [])


def fetch(office: Office) -> str:
    return office.fetch("inspected")


def test_packets_of_the_office_come_through_the_queue(box: Box, office: Office, leased: str) -> None:
    before = sum(worker["queue"]["received"] for worker in workers(box))
    assert fetch(office).endswith(PAGE)
    check_until(
        "the queue has had packets", lambda: sum(worker["queue"]["received"] for worker in workers(box)) > before, within_s=20
    )


def test_a_site_works_is_blocked_with_a_page_and_works_again(box: Box, office: Office, leased: str) -> None:
    assert fetch(office).endswith(PAGE)
    name = WEB_NAME.partition(".")[2]
    box.host.check_output(f"printf '[block]\\nnames = [\"{name}\"]\\n' > {POLICY}")
    check_until("the site is blocked", lambda: "403 Forbidden" in fetch(office), within_s=60)
    assert "このページは遮断されました" in fetch(office)
    box.host.check_output(f"rm {POLICY}")
    check_until("the site works again", lambda: fetch(office).endswith(PAGE), within_s=60)
    assert {event["action"] for event in box.events("--function", "dangerous-site")} == {"blocked"}


def test_a_policy_that_is_none_is_refused_and_nothing_changes(box: Box, office: Office, leased: str) -> None:
    box.host.check_output(f"echo 'block = 1' > {POLICY}")
    check_until(
        "the report says what is wrong",
        lambda: "block" in box.packets()["policy_problem"],
        within_s=30,
    )
    assert fetch(office).endswith(PAGE)


def test_a_worker_that_is_killed_is_replaced_and_the_office_stays_online(box: Box, office: Office, leased: str) -> None:
    killed = [worker["pid"] for worker in workers(box)]
    box.host.check_output(f"kill -9 {' '.join(map(str, killed))}")
    assert fetch(office).endswith(PAGE)

    def others() -> bool:
        pids = {worker["pid"] for worker in workers(box)}
        return len(pids) == 2 and pids.isdisjoint(killed)

    check_until("others have taken over", others, within_s=120)
    assert fetch(office).endswith(PAGE)


def test_the_inspection_has_one_right_and_its_own_user(box: Box) -> None:
    status = box.host.check_output(f"cat /proc/{box.main_pid('mamori-inspect')}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    cap_net_admin = 1 << 12  # linux/capability.h
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == cap_net_admin
    assert fields["Uid"].split()[0] == "901"


def test_a_box_with_less_memory_says_that_it_has_no_scanner_and_no_signatures(box: Box, office: Office, leased: str) -> None:
    assert box.status()["inspect"]["packets"]["scanner"] == "absent"
    text = box.host.check_output("mamori status")
    assert "only known hashes: the scanner is absent" in text
    assert "no signature engine on this box" in text
    categories = {event["category"] for event in box.events("--function", "system")}
    assert "scanner-absent" in categories
    assert "scanner-down" not in categories
    units = "mamori-clamd.service mamori-signatures.service mamori-suricata.path mamori-suricata.service"
    assert set(box.host.check_output(f"systemctl show {units} --property=ActiveState --value").split()) == {"inactive"}
    assert fetch(office).endswith(PAGE)


def test_the_policy_in_force_is_kept_for_a_start_with_one_that_is_none(box: Box, leased: str) -> None:
    box.host.check_output(f"printf '[virus]\\nhold_ms = 4000\\n' > {POLICY}")
    kept = box.host.file("/data/inspect/policy.toml")
    check_until("the service has kept a copy", lambda: kept.exists and "4000" in kept.content_string, within_s=60)
    assert kept.user == "mamori-inspect"


def test_the_connection_table_has_the_size_of_our_settings(box: Box) -> None:
    assert box.host.check_output("sysctl -n net.netfilter.nf_conntrack_max") == "131072"
    assert "Couldn't write" not in box.host.check_output("journalctl --boot --unit=systemd-sysctl --output=cat")

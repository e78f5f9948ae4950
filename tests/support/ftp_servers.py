"""A real vsftpd with a private configuration, on all addresses of a network namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from firmware.process import run, start
from tests.support.need import need
from tests.support.wait import check_until

CONTROL_PORT = 21
_CONFIG = """
listen=NO
listen_ipv6=YES
background=NO
anonymous_enable=YES
local_enable=NO
no_anon_password=YES
anon_root={folder}/root
secure_chroot_dir={folder}/empty
write_enable=YES
anon_upload_enable=YES
anon_other_write_enable=YES
anon_umask=022
ascii_upload_enable=YES
ascii_download_enable=YES
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
xferlog_enable=NO
port_enable=YES
connect_from_port_20=NO
{more}
"""


@dataclass(frozen=True)
class FtpServer:
    """`pub` is what it gives, `incoming` what it took."""

    pub: Path
    incoming: Path


@contextmanager
def start_ftp_server(folder: Path, namespace: str, more: str = "") -> Iterator[FtpServer]:
    """vsftpd listens when the block is entered; `more` are lines of vsftpd.conf(5)."""
    need("vsftpd", "is the FTP server")
    server = FtpServer(folder / "root/pub", folder / "root/in")
    for path in (folder / "empty", server.pub, server.incoming):
        path.mkdir(parents=True)
    server.incoming.chmod(0o777)
    config = folder / "vsftpd.conf"
    config.write_text(_CONFIG.format(folder=folder, more=more))
    inside = ["ip", "netns", "exec", namespace]
    with start([*inside, "vsftpd", config], explain="serve files", log=folder / "vsftpd.log") as running:
        listening = f":{CONTROL_PORT} "
        check_until(
            "vsftpd listens",
            lambda: running.check() or listening in run([*inside, "ss", "-ltn"], explain="look for vsftpd").stdout,
            within_s=10,
        )
        yield server

"""nginx as tests start it: in the foreground, as root, with everything that it writes in one folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from firmware.process import Argument, Running, start
from tests.support.need import need
from tests.support.wait import check_until

_CONFIGURATION = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp;
    scgi_temp_path {folder}/temp;
    sendfile on;
    {http}
}}
"""


@contextlib.contextmanager
def start_nginx(namespace: str, folder: Path, http: str) -> Iterator[Running]:
    """Listening in the namespace when the block is entered. `http` is what its http block says besides, `server` and
    `access_log` among it; `folder` gets nginx.conf, nginx.log, nginx.pid, and what `http` names."""
    need("nginx", "a real web server")
    configuration, log, pid = (folder / f"nginx.{end}" for end in ("conf", "log", "pid"))
    configuration.write_text(_CONFIGURATION.format(folder=folder, http=http))
    argv: list[Argument] = ["ip", "netns", "exec", namespace, "nginx", "-c", configuration, "-e", log]
    with start(argv, explain="run the web server", log=folder / "nginx.out") as running:
        check_until("the web server listens", lambda: running.check() or pid.exists(), within_s=10)
        yield running

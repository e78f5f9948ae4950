"""The whole application between a real web server and curl: works, blocked, works again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from firmware.process import run, start
from tests.support.guarded import Guarded, start_guarded
from tests.support.need import need
from tests.support.wait import check_until, patience_s

_NGINX = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp;
    scgi_temp_path {folder}/temp;
    sendfile on;
    gzip on; gzip_min_length 1; gzip_types *;
    server {{ listen 80; listen 8081; listen [::]:80; root {folder}/web; }}
}}
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    for tool in ("nginx", "curl"):
        need(tool, "a web server and its client")
    folder = tmp_path_factory.mktemp("web")
    (folder / "web").mkdir()
    (folder / "web/hello").write_text("hello")
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder))
    with start_guarded(folder, name="web") as box:
        argv = ["ip", "netns", "exec", box.lab.server, "nginx", "-c", folder / "nginx.conf", "-e", folder / "error.log"]
        with start(argv, explain="run the web server", log=folder / "nginx.out") as server:
            check_until("nginx listens", lambda: server.check() or (folder / "nginx.pid").exists(), within_s=10)
            yield box


def curl(box: Guarded, *arguments: str) -> tuple[int, str]:
    """curl's exit code and what it printed."""
    argv = ["ip", "netns", "exec", box.lab.client, "curl", "--silent", "--max-time", f"{patience_s(20):g}", *arguments]
    done = run(argv, explain="fetch", accept=range(100), timeout_s=patience_s(30))
    return done.code, done.stdout


def test_a_site_works_is_blocked_with_a_page_and_works_again(box: Guarded) -> None:
    resolve = ["--resolve", "www.bad.example:80:10.79.0.2"]
    url = "http://www.bad.example/hello"
    assert curl(box, *resolve, url) == (0, "hello")
    box.set_policy('[block]\nnames = ["bad.example"]\n')
    code, page = curl(box, *resolve, "--include", url)
    assert code == 0
    assert "403 Forbidden" in page
    assert "このページは遮断されました" in page
    box.set_policy("")
    assert curl(box, *resolve, url) == (0, "hello")

"""The laboratory's web server, asked as clients of the field ask."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.repository.serve import serving

CONTENT = bytes(range(256)) * 4
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("served") / "repository"
    (folder / "targets").mkdir(parents=True)
    (folder / "targets" / "a+b c").write_bytes(CONTENT)
    (folder / "empty").touch()
    (folder.parent / "secret").write_bytes(b"not for the public")
    with serving(folder) as port:
        yield port


def ask(
    port: int, path: str = "/targets/a+b%20c", asked: str | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Range": asked} if asked is not None else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        pytest.param("bytes=0-99", 0, 100, id="the beginning"),
        pytest.param("bytes=100-", 100, SIZE, id="from somewhere on"),
        pytest.param("bytes=-8", SIZE - 8, SIZE, id="the last bytes, as RAUC asks for the length of the signature"),
        pytest.param("bytes=-99999", 0, SIZE, id="more last bytes than there are"),
        pytest.param("bytes=1000-99999", 1000, SIZE, id="over the end"),
        pytest.param(f"bytes={SIZE - 1}-{SIZE - 1}", SIZE - 1, SIZE, id="the last byte"),
        pytest.param("Bytes=5-6", 5, 7, id="the unit in other letters"),
    ],
)
def test_a_range_is_given(port: int, asked: str, start: int, end: int) -> None:
    status, headers, body = ask(port, asked=asked)
    assert (status, body) == (206, CONTENT[start:end])
    assert headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "asked", [None, "bytes=9-3", "bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=a-b", "bytes=" + "9" * 40 + "-"]
)
def test_what_is_no_single_range_gets_the_whole_file(port: int, asked: str | None) -> None:
    status, headers, body = ask(port, asked=asked)
    assert (status, body) == (200, CONTENT)
    assert headers["accept-ranges"] == "bytes"
    assert "content-range" not in headers


@pytest.mark.parametrize(
    ("path", "asked"), [("/targets/a+b%20c", f"bytes={SIZE}-"), ("/empty", "bytes=0-"), ("/targets/a+b%20c", "bytes=-0")]
)
def test_a_range_outside_is_refused(port: int, path: str, asked: str) -> None:
    status, headers, body = ask(port, path, asked)
    assert (status, body) == (416, b"")
    assert headers["content-range"] == f"bytes */{0 if path == '/empty' else SIZE}"


def test_head_is_get_without_a_body(port: int) -> None:
    status, headers, body = ask(port, method="HEAD")
    assert (status, headers["content-length"], body) == (200, str(SIZE), b"")


@pytest.mark.parametrize("path", ["/", "/targets/", "/targets", "/nothing", "/../secret", "/%2e%2e/secret", "//secret", "/a%00b"])
def test_nothing_else_is_given(port: int, path: str) -> None:
    status, _, body = ask(port, path)
    assert status == 404
    assert b"public" not in body


def test_one_that_says_nothing_does_not_keep_others_waiting(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        assert ask(port)[0] == 200


def test_requests_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "file").write_bytes(b"x")
    with serving(tmp_path, on_request=told.append) as port:
        ask(port, "/file")
    assert told == ['127.0.0.1 "GET /file HTTP/1.1" 200 -']

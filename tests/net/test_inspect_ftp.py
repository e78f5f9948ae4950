"""The test virus over FTP through the whole box: vsftpd, curl and ftplib, in all modes, fetched and stored, both ways."""

from __future__ import annotations

import contextlib
import ftplib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware.netns import call_in_namespace
from firmware.process import run
from tests.support.archives import zipped
from tests.support.eicar import EICAR, MARKER
from tests.support.ftp_servers import FtpServer, start_ftp_server
from tests.support.need import need
from tests.support.packets import seeded
from tests.support.scanned import CLIENT, SERVER, Scanned, start_scanned
from tests.support.wait import check_until, patience_s

NOISE = seeded(17).randbytes(20_000_000)
MODES = {
    "EPSV": (),
    "PASV": ("--disable-epsv",),
    "EPRT": ("--ftp-port", "-"),
    "PORT": ("--ftp-port", "-", "--disable-eprt"),
}


def is_same(got: bytes, sent: bytes) -> bool:
    """Without the minutes that a report on how they differ takes."""
    return got == sent


@dataclass(frozen=True)
class Office:
    """A client on each side, and a server on each side."""

    scanned: Scanned
    servers: dict[str, FtpServer]
    folder: Path

    def host(self, way: str) -> tuple[str, str]:
        """Where the client is, and whom it asks."""
        lab = self.scanned.box.lab
        return (lab.client, SERVER) if way == "outwards" else (lab.server, CLIENT)

    def curl(self, way: str, *arguments: str | Path) -> int:
        """Its exit code."""
        argv = ["ip", "netns", "exec", self.host(way)[0], "curl", "-sS", "--max-time", f"{patience_s(20):g}", *arguments]
        return run(argv, explain="ask an FTP server", timeout_s=patience_s(25), accept=range(100)).code

    def fetch(self, name: str, *options: str | Path, way: str = "outwards") -> bytes:
        got = self.folder / "got"
        if "-C" not in options:
            got.unlink(missing_ok=True)
        assert self.curl(way, *options, "-o", got, f"ftp://{self.host(way)[1]}/pub/{name}") == 0
        return got.read_bytes()

    def store(self, name: str, content: bytes, *options: str | Path, way: str = "outwards") -> bytes:
        """What the server has of it in the end."""
        sent, stored = self.folder / "sent", self.servers[way].incoming / name
        sent.write_bytes(content)
        assert self.curl(way, *options, "-T", sent, f"ftp://{self.host(way)[1]}/in/{name}") == 0
        return stored.read_bytes()


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    need("curl", "is a client")
    folder = tmp_path_factory.mktemp("f")
    with start_scanned(folder / "box", name="ftp") as scanned, contextlib.ExitStack() as stack:
        lab = scanned.box.lab
        servers = {
            "outwards": stack.enter_context(start_ftp_server(folder / "outside", lab.server)),
            "inwards": stack.enter_context(start_ftp_server(folder / "inside", lab.client)),
        }
        yield Office(scanned, servers, folder)


@pytest.mark.parametrize("way", ["outwards", "inwards"])
@pytest.mark.parametrize("mode", MODES)
def test_a_virus_is_harmless_when_it_is_fetched_and_when_it_is_stored(office: Office, mode: str, way: str) -> None:
    options, pub = MODES[mode], office.servers[way].pub
    (pub / "eicar.com").write_bytes(EICAR)
    (pub / "clean.bin").write_bytes(NOISE[:200_000])
    assert is_same(office.fetch("clean.bin", *options, way=way), NOISE[:200_000])
    assert office.fetch("eicar.com", *options, way=way) == b"X" * len(EICAR)
    assert is_same(office.store(f"{mode}.bin", NOISE[:200_000], *options, way=way), NOISE[:200_000])
    assert office.store(f"{mode}.com", EICAR, *options, way=way) == b"X" * len(EICAR)
    assert is_same(office.fetch("clean.bin", *options, way=way), NOISE[:200_000])


def test_it_is_told_by_its_address(office: Office) -> None:
    (office.servers["outwards"].pub / "told.zip").write_bytes(zipped(NOISE[:1000], EICAR))
    assert office.fetch("told.zip") == b"X" * len(zipped(NOISE[:1000], EICAR))
    event = office.scanned.await_virus("told.zip", "blocked")
    assert (event["subject"], event["protocol"], event["category"]) == (
        f"ftp://{SERVER}/pub/told.zip",
        "ftp-data",
        "Mamori.Test.Eicar",
    )


def test_the_rest_of_a_file_that_was_infected_is_written_over(office: Office) -> None:
    (office.servers["outwards"].pub / "rest.bin").write_bytes(MARKER + NOISE[:1000])
    assert office.fetch("rest.bin") == b"X" * (len(MARKER) + 1000)
    got = office.folder / "got"
    got.write_bytes(MARKER[:10])
    assert office.fetch("rest.bin", "-C", "10") == MARKER[:10] + b"X" * (len(MARKER) - 10 + 1000)


def test_lines_are_text_and_stay_lines(office: Office) -> None:
    namespace, host = office.host("outwards")
    server = office.servers["outwards"]
    (server.pub / "lines.txt").write_bytes(b"one\n" + MARKER + b"\nthree\n")
    lines: list[str] = []

    def talk() -> None:
        with ftplib.FTP(host, timeout=patience_s(20)) as client:  # noqa: S321 - that is what is tested
            client.login()
            client.retrlines("RETR pub/lines.txt", lines.append)
            client.storlines("STOR in/lines.txt", io.BytesIO(b"one\n" + MARKER + b"\n"))

    call_in_namespace(namespace, talk)
    assert lines == ["XXX", "X" * len(MARKER), "XXXXX"]
    assert (server.incoming / "lines.txt").read_bytes() == b"XXX\n" + b"X" * len(MARKER) + b"\n"


@pytest.mark.parametrize("size", [0, 1, 1460, 65_536, 1_000_000, 20_000_000])
def test_clean_files_arrive_as_they_are(office: Office, size: int) -> None:
    (office.servers["outwards"].pub / "large.bin").write_bytes(NOISE[:size])
    assert is_same(office.fetch("large.bin"), NOISE[:size])
    assert is_same(office.store("large.bin", NOISE[:size]), NOISE[:size])
    assert not office.scanned.viruses("large.bin")


@pytest.mark.parametrize("size", [60_000, 2_000_000])
def test_of_a_large_file_the_end_is_written_over(office: Office, size: int) -> None:
    content = NOISE[: size - len(MARKER)] + MARKER
    (office.servers["outwards"].pub / f"end{size}.bin").write_bytes(content)
    for got in (office.fetch(f"end{size}.bin"), office.store(f"end{size}.bin", content)):
        assert len(got) == size
        assert got[-len(MARKER) :] == b"X" * len(MARKER)


def test_a_missing_file_and_a_listing_are_as_without_the_box(office: Office) -> None:
    (office.servers["outwards"].pub / "listed.bin").write_bytes(b"x")
    assert office.curl("outwards", "-o", "/dev/null", f"ftp://{SERVER}/pub/missing") == 78
    listing = office.folder / "list"
    assert office.curl("outwards", "-o", listing, f"ftp://{SERVER}/pub/") == 0
    check_until("the listing has the file", lambda: b"listed.bin" in listing.read_bytes(), within_s=1)

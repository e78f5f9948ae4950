"""clamd's configuration, unit and choice of signatures agree with the code and with each other."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from mamori.inspect.scan import health
from mamori.inspect.scan.clamd import DATABASE_PROBE, MAX_FRAME_BYTES
from mamori.inspect.scan.scanner import MAX_SCAN_BYTES, MAX_SESSIONS, STREAMED_BYTES
from tests.support.checkout import ROOT
from tests.support.eicar import EICAR, EICAR_NAME

SHIPPED = ROOT / "overlay/common/usr/lib/mamori"
UNIT = (ROOT / "overlay/common/usr/lib/systemd/system/mamori-clamd.service").read_text()
LINES = [line.split() for line in (SHIPPED / "clamd.conf").read_text().splitlines() if line and not line.startswith("#")]
CONFIGURATION = dict(LINES)
WORKERS = 2
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def number(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text)


def limit(key: str) -> int:
    return number(CONFIGURATION[key])


def of_unit(key: str) -> str:
    (value,) = re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)
    return value


def test_every_option_is_said_once() -> None:
    assert len(LINES) == len(CONFIGURATION)


def test_clamd_takes_what_the_scanner_sends() -> None:
    assert limit("StreamMaxLength") >= MAX_SCAN_BYTES
    assert limit("MaxFileSize") >= MAX_SCAN_BYTES
    assert limit("MaxScanSize") >= 2 * MAX_SCAN_BYTES
    assert limit("StreamMaxLength") >= MAX_FRAME_BYTES


def test_a_long_scan_is_over_before_the_probe_calls_it_stuck() -> None:
    assert limit("MaxScanTime") / 1000 < health.STREAM_TIMEOUT_S


def test_sessions_fit_in_clamds_queue_and_open_files() -> None:
    assert limit("MaxQueue") >= WORKERS * MAX_SESSIONS
    assert limit("MaxConnectionQueueLength") >= WORKERS * MAX_SESSIONS
    files = limit("MaxThreads") * limit("MaxRecursion") + limit("MaxQueue") - limit("MaxThreads") + 6  # clamd.conf(5), MaxQueue
    assert files + 2 * WORKERS * MAX_SESSIONS < int(of_unit("LimitNOFILE"))


def test_temporary_files_fit_in_their_file_system_and_that_in_memory() -> None:
    folder, size = re.findall(r"^TemporaryFileSystem=(\S+):size=(\w+),", UNIT, re.MULTILINE)[0]
    assert number(size) >= limit("MaxThreads") * limit("MaxScanSize") + WORKERS * STREAMED_BYTES
    assert number(of_unit("MemoryMax")) >= number(size) + 1_400_000_000
    assert CONFIGURATION["TemporaryDirectory"] == folder


def test_clamd_listens_on_its_socket_only_and_runs_with_this_configuration() -> None:
    assert not {"TCPSocket", "TCPAddr", "User"} & CONFIGURATION.keys()
    folder = f"/run/{of_unit('RuntimeDirectory')}"
    assert CONFIGURATION["LocalSocket"] == f"{folder}/socket"
    assert CONFIGURATION["DatabaseDirectory"] == f"{folder}/database"
    assert "--config-file=/usr/lib/mamori/clamd.conf" in of_unit("ExecStart")


def test_the_fallback_finds_the_test_virus_and_says_that_it_is_the_fallback() -> None:
    lines = (SHIPPED / "clamd-fallback/mamori.ndb").read_text().splitlines()
    assert lines == [f"{EICAR_NAME}:0:0:{EICAR.hex()}", f"Mamori.Database.Fallback:0:0:{DATABASE_PROBE.hex()}"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("data/feeds", "run/mamori/clamd", "usr/lib/mamori"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def run_script(root: Path, verb: str, **environment: str) -> Path:
    """Run it; what clamd would load."""
    env = {"PATH": os.environ["PATH"], "MAMORI_ROOT": str(root), **environment}
    subprocess.run([SHIPPED / "clamd-database", verb], env=env, check=True, timeout=60)
    return (root / "run/mamori/clamd/database").readlink()


def bring_feed(root: Path, name: str, file: str = "daily.cvd") -> Path:
    folder = root / "data/feeds" / name
    folder.mkdir()
    (folder / file).write_text("x")
    link = root / "data/feeds/clamav"
    (root / "data/feeds/new").symlink_to(name)
    (root / "data/feeds/new").replace(link)
    return link


def test_without_a_feed_the_fallback_is_taken(root: Path) -> None:
    fallback = root / "usr/lib/mamori/clamd-fallback"
    assert run_script(root, "choose") == fallback
    (root / "data/feeds/clamav").symlink_to("nowhere")
    assert run_script(root, "choose") == fallback
    (root / "data/feeds/clamav").unlink()
    bring_feed(root, "1", file="readme.txt")
    assert run_script(root, "choose") == fallback, "a folder without signatures"


@pytest.mark.parametrize("file", ["main.cvd", "daily.cld", "a.ndb", "a.ldb", "a.hsb", "a.hdb"])
def test_a_feed_is_taken_by_its_link(root: Path, file: str) -> None:
    link = bring_feed(root, "1", file)
    assert run_script(root, "choose") == link


def test_a_feed_that_clamd_fails_with_is_left_alone_until_the_next(root: Path) -> None:
    link = bring_feed(root, "1")
    run_script(root, "choose")
    run_script(root, "failed", SERVICE_RESULT="exit-code")
    fallback = root / "usr/lib/mamori/clamd-fallback"
    assert run_script(root, "choose") == fallback
    run_script(root, "failed", SERVICE_RESULT="exit-code")
    assert run_script(root, "choose") == fallback, "a failure with the fallback says nothing about the feed"
    bring_feed(root, "2")
    assert run_script(root, "choose") == link


def test_a_stop_or_a_crash_of_a_clamd_that_was_up_is_not_the_feeds_fault(root: Path) -> None:
    link = bring_feed(root, "1")
    run_script(root, "choose")
    run_script(root, "failed", SERVICE_RESULT="success")
    assert run_script(root, "choose") == link
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "run/mamori/clamd/socket"))
        run_script(root, "failed", SERVICE_RESULT="signal")
    assert run_script(root, "choose") == link


def test_the_script_takes_no_other_verb(root: Path) -> None:
    done = subprocess.run([SHIPPED / "clamd-database", "x"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "usage: clamd-database choose | failed\n")

"""What an appliance believes of a repository: real repositories over a real server, honest and attacked."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from firmware.repository.repository import LIFE_DAYS, Repository
from mamori.formats.offer import Channel
from mamori.formats.problems import MamoriError
from mamori.update.client import CheckError, Found, Source, Trouble, find_offer
from mamori.update.fetcher import Fetcher
from tests.support.repository import Keys, open_repository, served
from tests.support.update_world import COMPATIBLE, make_offer

NOW = int(time.time())
DAY_S = 86_400
NEXT = make_offer("2026.12.0")


@dataclass
class Lab:
    """A repository with a release, an appliance that has seen it, and what may be done to either."""

    repository: Repository
    keys: Keys
    folder: Path
    bundle: Path

    @property
    def files(self) -> Path:
        return self.repository.store.folder

    @property
    def trusted(self) -> Path:
        return self.folder / "trusted"

    def find(self, url: str, channel: Channel = Channel.STABLE, **limits: float) -> Found | None:
        fetcher = Fetcher(**limits)
        anchor = self.folder / "anchor.json"
        return find_offer(Source(url), COMPATIBLE, channel, trusted=self.trusted, anchor=anchor, fetcher=fetcher)

    def believed(self) -> dict[str, bytes]:
        """The trusted files, byte for byte."""
        return {str(path.relative_to(self.trusted)): path.read_bytes() for path in self.trusted.rglob("*.json")}

    def metadata(self, role: str) -> Path:
        """The newest file of a role."""
        if role == "timestamp":
            return self.files / "metadata/timestamp.json"
        return max((self.files / "metadata").glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))

    def release(self, version: str) -> None:
        self.bundle.write_bytes(version.encode() * 100)
        self.repository.add_release(self.bundle, make_offer(version), NOW)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    keys = Keys()
    repository = open_repository(tmp_path / "repository", keys)
    repository.init(NOW)
    (tmp_path / "anchor.json").write_bytes(repository.store.root())
    lab = Lab(repository, keys, tmp_path, tmp_path / "bundle")
    lab.release("2026.12.0")
    return lab


def test_an_offer_is_found_with_where_its_bundle_is(lab: Lab) -> None:
    with served(lab.files) as url:
        found = lab.find(url)
        assert found is not None
        assert (found.offer, found.length) == (NEXT, 900)
        assert Fetcher().fetch(found.url).__next__() == b"2026.12.0" * 100
        assert lab.find(url, Channel.BETA) is None
        lab.release("2026.12.1")
        later = lab.find(url)
        assert later is not None
        assert later.offer.version == "2026.12.1"


def test_a_stick_is_a_repository_like_any_other(lab: Lab) -> None:
    found = lab.find(f"file://{lab.files}")
    assert found is not None
    assert found.offer == NEXT
    assert Path(found.url.removeprefix("file://")).read_bytes() == lab.bundle.read_bytes()


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    table = json.loads(path.read_bytes())
    change(table)
    path.write_text(json.dumps(table))


def wrong_signature(lab: Lab) -> None:
    edit(lab.metadata("timestamp"), lambda table: table["signatures"][0].update(sig="00" * 64))


def below_threshold(lab: Lab) -> None:
    edit(lab.metadata("firmware"), lambda table: table["signatures"].pop())


def changed_words(lab: Lab) -> None:
    def change(table: dict[str, Any]) -> None:
        next(iter(table["signed"]["targets"].values()))["custom"]["version"] = "2099.1.0"

    edit(lab.metadata("firmware"), change)


def other_keys(lab: Lab) -> None:
    """A repository of somebody else's."""
    shutil.rmtree(lab.files)
    open_repository(lab.files, Keys()).init(NOW)


def freeze(lab: Lab) -> None:
    """News held back until they are too old."""
    lab.repository.refresh(NOW - (LIFE_DAYS["timestamp"] + 1) * DAY_S)


def rolled_back(role: str) -> Callable[[Lab], None]:
    def attack(lab: Lab) -> None:
        """A correctly signed file that is older than what was seen."""
        store = lab.repository.store
        metadata = store.read(role)
        metadata.signed.version -= 2  # one less is what was seen last, and no news
        metadata.signatures.clear()
        for signer in lab.keys.signers[role]:
            metadata.sign(signer, append=True)
        name = "timestamp.json" if role == "timestamp" else lab.metadata(role).name
        (lab.files / "metadata" / name).write_bytes(metadata.to_bytes())

    return attack


def mix_and_match(lab: Lab) -> None:
    """The firmware metadata of before beside the snapshot of now."""
    newest = lab.metadata("firmware")
    older = newest.with_name(f"{int(newest.name.split('.')[0]) - 1}.firmware.json")
    shutil.copy(older, newest)


def snapshot_without_firmware(lab: Lab) -> None:
    store = lab.repository.store
    snapshot = store.read("snapshot")
    del snapshot.signed.meta["firmware.json"]
    snapshot.signatures.clear()
    for signer in lab.keys.signers["snapshot"]:
        snapshot.sign(signer, append=True)
    lab.metadata("snapshot").write_bytes(snapshot.to_bytes())


def endless(lab: Lab) -> None:
    with lab.metadata("timestamp").open("ab") as file:
        file.write(b" " * 50_000_000)


def truncated(lab: Lab) -> None:
    path = lab.metadata("timestamp")
    path.write_bytes(path.read_bytes()[:-100])


def garbage(lab: Lab) -> None:
    lab.metadata("snapshot").write_bytes(b"\0" * 1000)


def deep(lab: Lab) -> None:
    lab.metadata("timestamp").write_bytes(b"[" * 10_000)


def a_folder(lab: Lab) -> None:
    lab.metadata("timestamp").unlink()
    lab.metadata("timestamp").mkdir()


def signed_offer(change: Callable[[dict[str, Any]], None]) -> Callable[[Lab], None]:
    def attack(lab: Lab) -> None:
        """Ours by all signatures, and nonsense."""
        store = lab.repository.store
        metadata = store.read("firmware")
        change(next(iter(metadata.signed.targets.values())).unrecognized_fields["custom"])
        lab.repository._finish({"firmware": next_version(metadata)}, NOW)

    return attack


def next_version(metadata: Any) -> Any:
    metadata.signed.version += 1
    metadata.signatures.clear()
    return metadata


ATTACKS: dict[str, tuple[Callable[[Lab], None], str]] = {
    "a wrong signature": (wrong_signature, "signatures do not suffice"),
    "a key too few": (below_threshold, "signatures do not suffice"),
    "changed words": (changed_words, "signatures do not suffice"),
    "somebody else's keys": (other_keys, "signatures do not suffice"),
    "a freeze": (freeze, "too old"),
    "an older timestamp": (rolled_back("timestamp"), "older things than before"),
    "an older snapshot": (rolled_back("snapshot"), "older things than before|makes no sense|not to be believed"),
    "an older firmware role": (rolled_back("firmware"), "older things than before|not to be believed"),
    "mix and match": (mix_and_match, "older things than before|not to be believed"),
    "a snapshot that forgets": (snapshot_without_firmware, "not to be believed|older things"),
    "endless data": (endless, "other bytes than it announced"),
    "a truncated file": (truncated, "not to be believed"),
    "garbage": (garbage, "not to be believed"),
    "nested JSON": (deep, "not to be believed"),
    "a folder in place of a file": (a_folder, "cannot be reached|not to be believed"),
    "an offer for another box": (signed_offer(lambda custom: custom.update(compatible="another")), "it is for another"),
    "an offer of another channel": (signed_offer(lambda custom: custom.update(channel="beta")), "it is for"),
    "an offer without a version": (signed_offer(lambda custom: custom.pop("version")), "version"),
    "an offer of a later format": (signed_offer(lambda custom: custom.update(format=2)), "a newer Mamori"),
    "an offer with nonsense": (signed_offer(lambda custom: custom.update(waves="all")), "waves"),
}


@pytest.mark.parametrize(("attack", "says"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_with_its_reason_and_believed_by_nobody(lab: Lab, attack: Callable[[Lab], None], says: str) -> None:
    with served(lab.files) as url:
        assert lab.find(url) is not None
        lab.release("2026.12.1")
        assert lab.find(url) is not None
        before = lab.believed()
        lab.release("2026.12.2")  # what has been believed is not fetched again: the attack is on what is new
        attack(lab)
        with pytest.raises(MamoriError, match=says) as caught:
            lab.find(url)
        if isinstance(caught.value, CheckError) and "reached" not in str(caught.value):
            assert caught.value.trouble is Trouble.REFUSED
        after = lab.believed()
    assert after["root.json"] == before["root.json"]
    for name in ("timestamp", "snapshot", "targets", "firmware"):
        old, new = (json.loads(files[f"{name}.json"])["signed"]["version"] for files in (before, after))
        assert new >= old, f"{name} went back"


def test_a_fast_forward_is_mended_by_new_keys(lab: Lab) -> None:
    """A thief of the timestamp's key wrote a version that can never be reached; the root gives the role another key."""
    with served(lab.files) as url:
        stolen = lab.repository.store.read("timestamp")
        stolen.signed.version = 2_000_000_000
        stolen.signatures.clear()
        stolen.sign(lab.keys.signers["timestamp"][0])
        honest = lab.metadata("timestamp").read_bytes()
        lab.metadata("timestamp").write_bytes(stolen.to_bytes())
        assert lab.find(url) is not None, "nobody can tell yet"
        lab.metadata("timestamp").write_bytes(honest)
        with pytest.raises(CheckError, match="older things"):
            lab.find(url)
        renewed = lab.keys.renewed("timestamp")
        open_repository(lab.files, lab.keys, renewed.signers).rotate("timestamp", renewed.public, NOW)
        assert lab.find(url) is not None


def test_a_chain_of_many_roots_is_walked(lab: Lab) -> None:
    with served(lab.files) as url:
        keys = lab.keys
        for _ in range(12):
            renewed = keys.renewed("root")
            both = {**renewed.signers, "root": [*keys.signers["root"], *renewed.signers["root"]]}
            open_repository(lab.files, keys, both).rotate("root", renewed.public, NOW)
            keys = renewed
        found = lab.find(url)
        assert found is not None
        assert json.loads(lab.believed()["root.json"])["signed"]["version"] == 13


class _Nasty(http.server.BaseHTTPRequestHandler):
    """Answers everything in one way, which the server's `way` names."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        way = self.server.way  # type: ignore[attr-defined]
        try:
            way(self)
        except OSError:
            self.close_connection = True


def drip(handler: _Nasty) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def flood(handler: _Nasty) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


def redirect(handler: _Nasty) -> None:
    handler.send_response(302)
    handler.send_header("Location", "http://127.0.0.1:1/elsewhere")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def silence(handler: _Nasty) -> None:
    time.sleep(2)


def nonsense(handler: _Nasty) -> None:
    handler.wfile.write(b"\xff\x00 not HTTP\r\n\r\n")
    handler.close_connection = True


def broken(handler: _Nasty) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.close_connection = True


def unavailable(handler: _Nasty) -> None:
    handler.send_error(503)


@contextmanager
def nasty(way: Callable[[_Nasty], None]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Nasty)
    server.daemon_threads = True
    server.way = way  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("way", [drip, flood, redirect, silence, nonsense, broken, unavailable], ids=lambda way: way.__name__)
def test_a_server_that_misbehaves_is_left_within_its_time(lab: Lab, way: Callable[[_Nasty], None]) -> None:
    with served(lab.files) as url:
        assert lab.find(url) is not None
    before = lab.believed()
    with nasty(way) as url:
        started = time.monotonic()
        with pytest.raises(CheckError) as caught:
            lab.find(url, stall_s=0.5, file_within_s=1.0)
        assert time.monotonic() - started < 10
    assert str(caught.value)
    assert lab.believed() == before


def test_a_server_that_is_not_there_and_a_name_that_is_none_are_told(lab: Lab) -> None:
    for url in ("http://127.0.0.1:1", "http://no.such.name.invalid", "http://[bad", "ftp://example.com", "file:///nowhere"):
        with pytest.raises(CheckError) as caught:
            lab.find(url, stall_s=1)
        assert caught.value.trouble in Trouble


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 100, b"[" * 10_000])
def test_trusted_metadata_that_a_power_cut_has_spoiled_is_had_anew(lab: Lab, content: bytes) -> None:
    with served(lab.files) as url:
        lab.find(url)
        for name in ("root", "timestamp", "snapshot", "targets", "firmware"):
            (lab.trusted / f"{name}.json").write_bytes(content)
            found = lab.find(url)
            assert found is not None, name
            assert found.offer == NEXT


@pytest.mark.parametrize(("year", "says"), [(1970, None), (2050, "too old")])
def test_a_clock_that_is_wrong(lab: Lab, monkeypatch: pytest.MonkeyPatch, year: int, says: str | None) -> None:
    """In 1970 nothing has expired yet, which is why the system's clock has a floor; in 2050 everything has."""
    from tuf.ngclient._internal import trusted_metadata_set as internal

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:  # noqa: ARG003
            return datetime(year, 6, 1, tzinfo=UTC)

    monkeypatch.setattr(internal.datetime, "datetime", Clock) if hasattr(internal.datetime, "datetime") else monkeypatch.setattr(
        internal, "datetime", Clock
    )
    with served(lab.files) as url:
        if says is None:
            assert lab.find(url) is not None
        else:
            with pytest.raises(CheckError, match=says):
                lab.find(url)

"""`./inv repo …`, `release` and `serve` as people type them, with real development keys in files."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from firmware.process import start
from firmware.recipe import ROOT
from firmware.repository import status, verbs
from firmware.repository.anchor import ROOT_FILE, keep_anchor, prepare_anchor, read_anchor
from firmware.repository.keysets import open_repository
from firmware.repository.repository import PublishError, Repository
from firmware.repository.store import RepositoryFilesError, read_root
from firmware.repository.verbs import Options
from mamori.formats.offer import Channel
from mamori.formats.problems import BadInputError, MamoriError
from signing.development import init_development
from signing.keyset import Keyset, read_keyset
from signing.tuf import read_role_keys
from tests.support.repository import client_of
from tests.support.update_world import COMPATIBLE, make_offer
from tests.support.wait import check_until, patience_s

NOW = int(time.time())
DAY_S = 86_400


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_development(tmp_path_factory.mktemp("made") / "keys", datetime.now(UTC)).parent


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another keyset, which no test changes."""
    return init_development(tmp_path_factory.mktemp("foreign") / "keys", datetime.now(UTC))


@pytest.fixture
def keys(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "keys")) / "keyset.toml"


@pytest.fixture
def options(keys: Path, tmp_path: Path) -> Options:
    return Options(str(tmp_path / "repository"), str(keys), json=True)


def read(keys: Path) -> Keyset:
    return read_keyset(keys, builds=False)


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def add(options: Options, version: str, channel: Channel = Channel.STABLE) -> None:
    bundle = options.path.parent / "bundle"
    bundle.write_bytes(version.encode())
    options.open().add_release(bundle, replace(make_offer(version), channel=channel), NOW)


def forget(keys: Path, *names: str) -> None:
    """What one person's keyset is: these private keys are not there."""
    text = keys.read_text()
    for name in names:
        line = f'key = "file:{name}.key"\n'
        assert line in text
        text = text.replace(line, "")
        (keys.parent / f"{name}.key").unlink()
    keys.write_text(text)


def test_a_repository_is_made_and_looked_at(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.repo_init(options)
    assert answer(capsys)["published"] == dict.fromkeys(["root", "targets", "firmware", "feeds", "snapshot", "timestamp"], 1)
    verbs.repo_status(options)
    found = answer(capsys)
    assert {role["role"]: round(role["days"]) for role in found["roles"]} == {
        **dict.fromkeys(["root", "targets", "firmware"], 365),
        "feeds": 30,
        "snapshot": 14,
        "timestamp": 7,
    }
    assert (found["releases"], found["waiting"], found["pending"]) == ([], [], [])
    with pytest.raises(PublishError, match="already"):
        verbs.repo_init(options)


def test_a_release_is_withdrawn_everywhere_or_in_one_channel(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.repo_init(options)
    for channel in Channel:
        for version in ("2026.12.0", "2026.12.1"):
            add(options, version, channel)
    with pytest.raises(PublishError, match=r"2026.12.0 is no present release here\n.*present are: 2026.12.1 \(firmware/"):
        verbs.repo_withdraw(options, "2026.12.0", "", "")
    capsys.readouterr()
    verbs.repo_withdraw(options, "2026.12.1", "beta", "")
    assert answer(capsys)["withdrawn"] == [f"firmware/{COMPATIBLE}/beta.raucb"]
    assert {path.split("/")[-1]: one.offer.version for path, one in options.open().releases().items()} == {
        "beta.raucb": "2026.12.0",
        "stable.raucb": "2026.12.1",
    }
    add(options, "2026.12.2", Channel.BETA)
    add(options, "2026.12.2", Channel.STABLE)
    verbs.repo_withdraw(options, "2026.12.2", "", "")
    assert {one.offer.version for one in options.open().releases().values()} == {"2026.12.0", "2026.12.1"}


def test_two_people_with_a_keyset_each(options: Options, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.repo_init(options)
    second = Path(shutil.copytree(keys.parent, tmp_path / "second")) / "keyset.toml"
    machine = Path(shutil.copytree(keys.parent, tmp_path / "machine")) / "keyset.toml"
    forget(keys, "tuf/root-1", "tuf/root-2", "tuf/root-3", "tuf/firmware-2", "tuf/snapshot-1", "tuf/timestamp-1", "secure-boot/db")
    forget(second, "tuf/root-1", "tuf/root-2", "tuf/root-3", "tuf/firmware-1", "tuf/snapshot-1", "tuf/timestamp-1")
    forget(machine, "tuf/root-1", "tuf/root-2", "tuf/root-3", "tuf/firmware-1", "tuf/firmware-2", "bundle/ca1-signer")
    add(options, "2026.12.0")
    with client_of(options.open(), tmp_path / "client") as client:
        verbs.repo_status(replace(options, json=False))
        shown = capsys.readouterr().out
        assert "2026.12.0" in shown
        assert "firmware waits: 1 of 2 signatures\nthe next person runs `./inv repo sign` with another key" in shown
        verbs.repo_sign(replace(options, keyset=str(second), json=False))
        assert "`./inv repo sign` where the keys of snapshot and timestamp are publishes it" in capsys.readouterr().out
        assert client.target() is None
        verbs.repo_sign(replace(options, keyset=str(machine)))
        assert answer(capsys) == {"published": {"firmware": 2, "snapshot": 2, "timestamp": 2}, "pending": []}
        assert client.download() == b"2026.12.0"
    verbs.repo_refresh(replace(options, keyset=str(machine)))
    assert answer(capsys)["published"] == {"snapshot": 3, "timestamp": 3}


def test_what_waits_is_given_up(options: Options, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.repo_init(options)
    forget(keys, "tuf/firmware-2")
    add(options, "2026.12.0")
    capsys.readouterr()
    verbs.repo_drop(options)
    assert answer(capsys) == {"dropped": ["firmware"]}
    verbs.repo_drop(replace(options, json=False))
    assert "nothing waited" in capsys.readouterr().out


@pytest.mark.parametrize("role", ["root", "timestamp"])
def test_the_root_that_images_start_from_follows_a_rotation(
    options: Options, keys: Path, foreign: Path, tmp_path: Path, role: str
) -> None:
    verbs.repo_init(options)
    add(options, "2026.12.0")
    mixed = Path(shutil.copytree(keys.parent, tmp_path / "mixed")) / "keyset.toml"
    for file in (foreign.parent / "tuf").glob(f"{role}-*"):
        shutil.copy(file, mixed.parent / "tuf" / file.name)
    with client_of(options.open(), tmp_path / "client") as client:
        assert client.download() == b"2026.12.0"
        verbs.repo_rotate(replace(options, keyset=str(mixed)), role, str(keys))
        assert client.download() == b"2026.12.0"
    versions = [read_root(read_anchor(read(one)) or b"", "root").signed.version for one in (keys, mixed)]
    assert versions == [1, 2]
    with pytest.raises(PublishError, match=f"other keys for {role}"):
        options.open().rotate("snapshot", read_role_keys(read(keys)), NOW)


def test_only_roles_with_keys_are_rotated(options: Options) -> None:
    verbs.repo_init(options)
    with pytest.raises(BadInputError, match="one of root, firmware, feeds, snapshot, timestamp, got 'targets'"):
        verbs.repo_rotate(options, "targets", "")


@pytest.mark.parametrize(
    ("days", "told"),
    [
        pytest.param(0.5, "timestamp  1        in 6 days", id="as it should be"),
        pytest.param(4, "timestamp  1        in 3 days: refresh it", id="nobody refreshes"),
        pytest.param(6.9, "timestamp  1        in 2 hours: refresh it", id="the last hours"),
        pytest.param(9, "timestamp  1        2 days ago: appliances refuse it", id="too late"),
        pytest.param(310, "root       1        in 55 days: refresh it", id="people should come together"),
    ],
)
def test_the_status_says_what_expires_when(options: Options, days: float, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    options.open().init(NOW - int(days * DAY_S) - 60)
    verbs.repo_status(replace(options, json=False))
    assert told in capsys.readouterr().out
    assert json.dumps(status.to_json(status.read_status(Repository(options.path, {}, {}), NOW)))


def test_a_folder_without_a_repository_is_told(options: Options) -> None:
    for verb in (verbs.repo_status, verbs.repo_refresh, verbs.repo_sign, verbs.repo_drop):
        with pytest.raises(RepositoryFilesError, match=r"`\./inv repo init` makes"):
            verb(options)
    assert not options.path.exists(), "a mistyped path is not made"
    with pytest.raises(MamoriError, match="no repository"):
        verbs.serve(options)


def test_a_release_for_the_field_is_not_signed_with_development_keys(options: Options, tmp_path: Path) -> None:
    """Told before anything is built or verified: there is no Buildroot tree here."""
    verbs.repo_init(options)
    (tmp_path / "notes.toml").write_text('ja = "直した"\nen = "Mended"\n')
    asked = {"notice": "2026-12-01", "activate_after": "2026-12-03", "activate_before": "2099-01-15", "waves": ""}
    with pytest.raises(BadInputError) as caught:
        verbs.release(options, "appliance", channel="stable", notes=str(tmp_path / "notes.toml"), **asked)
    told = {problem.key: problem.got for problem in caught.value.problems}
    assert told["tuf.firmware[0].public"] == "a development key"
    assert told["tuf.firmware[0].key"] == "an unencrypted file"


def test_serve_gives_the_repository_until_it_is_interrupted(options: Options, tmp_path: Path) -> None:
    verbs.repo_init(options)
    log = tmp_path / "log"
    argv = [ROOT / "inv", "serve", "--folder", str(options.path), "--port", "0"]
    with start(argv, explain="serve the repository", log=log) as running:
        check_until("the server listens", lambda: "Ctrl-C ends it" in log.read_text(), 60)
        port = re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text())
        assert port is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=10)
        connection.request("GET", "/metadata/timestamp.json")
        assert json.loads(connection.getresponse().read())["signed"]["version"] == 1
        connection.close()
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(patience_s(20)) == 0
    assert "Traceback" not in log.read_text()
    assert '"GET /metadata/timestamp.json HTTP/1.1" 200' in log.read_text()


def test_an_image_has_its_root_before_there_is_a_repository(options: Options, keys: Path, tmp_path: Path) -> None:
    keyset = read(keys)
    assert read_anchor(keyset) is None
    anchor = prepare_anchor(keyset, NOW)
    assert prepare_anchor(keyset, NOW + DAY_S) == anchor
    verbs.repo_init(options)
    assert options.open().store.root() == anchor
    root = read_root(anchor, "root")
    assert not keep_anchor(keyset, root), "an older root, or the same, is not taken"
    (keys.parent / ROOT_FILE).write_text("{}")
    with pytest.raises(RepositoryFilesError, match="no TUF"):
        prepare_anchor(keyset, NOW)


def test_one_root_key_alone_makes_no_root_for_images(keys: Path) -> None:
    forget(keys, "tuf/root-2", "tuf/root-3")
    with pytest.raises(MamoriError, match="1 of 2 root keys are at hand"):
        prepare_anchor(read(keys), NOW)
    assert not (keys.parent / ROOT_FILE).exists()


def test_a_key_stands_in_one_role_once(keys: Path) -> None:
    shutil.copy(keys.parent / "tuf/root-1.pub", keys.parent / "tuf/root-2.pub")
    shutil.copy(keys.parent / "tuf/firmware-1.pub", keys.parent / "tuf/timestamp-1.pub")
    with pytest.raises(BadInputError) as caught:
        read_role_keys(read(keys))
    assert [problem.key for problem in caught.value.problems] == ["tuf.root[1].public", "tuf.timestamp[0].public"]


def test_the_repository_says_which_keyset_it_means(options: Options, foreign: Path) -> None:
    verbs.repo_init(options)
    with pytest.raises(PublishError, match="the keyset has other keys for"):
        open_repository(options.path, read(foreign)).refresh(NOW)

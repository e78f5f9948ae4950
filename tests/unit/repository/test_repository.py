"""The repository as python-tuf's own client sees it: releases, withdrawals, two sittings, other keys, power cuts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tuf.api.exceptions import ExpiredMetadataError

from firmware.repository import store as store_module
from firmware.repository.repository import LIFE_DAYS, Pending, PublishError, Repository
from mamori.formats.offer import Channel, decode_offer
from tests.support.repository import Client, Keys, client_of, open_repository
from tests.support.update_world import COMPATIBLE, make_offer

NOW = int(time.time())
DAY_S = 86_400


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def repository(tmp_path: Path, keys: Keys) -> Repository:
    repository = open_repository(tmp_path / "repository", keys)
    repository.init(NOW)
    return repository


@pytest.fixture
def client(repository: Repository, tmp_path: Path) -> Iterator[Client]:
    with client_of(repository, tmp_path / "client") as client:
        yield client


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.raucb"
    path.write_bytes(b"a bundle")
    return path


def version_of(client: Client, channel: Channel = Channel.STABLE) -> str | None:
    target = client.target(channel)
    return decode_offer(target.unrecognized_fields["custom"], "target").version if target is not None else None


def test_a_new_repository_has_no_release_and_one_that_is_added_is_found_and_fetched(
    repository: Repository, client: Client, bundle: Path
) -> None:
    assert client.target() is None
    offer = make_offer("2026.12.0")
    done = repository.add_release(bundle, offer, NOW)
    assert done.published == {"firmware": 2, "snapshot": 2, "timestamp": 2}
    target = client.target()
    assert target is not None
    assert decode_offer(target.unrecognized_fields["custom"], "target") == offer
    assert client.download() == b"a bundle"
    assert client.target(Channel.BETA) is None
    present = repository.present(COMPATIBLE, Channel.STABLE)
    assert present is not None
    assert (present.offer, present.length) == (offer, 8)


def test_a_release_is_above_all_that_its_channel_has_had(repository: Repository, client: Client, bundle: Path) -> None:
    repository.add_release(bundle, make_offer("2026.12.1"), NOW)
    for version in ("2026.12.1", "2026.12.1+g1234", "2026.12.0", "2026.12.1-rc.1"):
        with pytest.raises(PublishError, match="is not above"):
            repository.add_release(bundle, make_offer(version), NOW)
    repository.add_release(bundle, replace(make_offer("2026.12.0"), channel=Channel.BETA), NOW)
    repository.withdraw(COMPATIBLE, Channel.STABLE, "2026.12.1", NOW)
    with pytest.raises(PublishError, match="is not above"):
        repository.add_release(bundle, make_offer("2026.12.1"), NOW)
    assert (version_of(client), version_of(client, Channel.BETA)) == (None, "2026.12.0")


def test_what_is_withdrawn_leaves_its_place_to_the_one_before(repository: Repository, client: Client, bundle: Path) -> None:
    for version in ("2026.12.0", "2026.12.1"):
        repository.add_release(bundle, make_offer(version), NOW)
    with pytest.raises(PublishError, match="not the present release"):
        repository.withdraw(COMPATIBLE, Channel.STABLE, "2026.12.0", NOW)
    repository.withdraw(COMPATIBLE, Channel.STABLE, "2026.12.1", NOW)
    assert version_of(client) == "2026.12.0"


def test_what_was_withdrawn_does_not_come_back(repository: Repository, client: Client, bundle: Path) -> None:
    repository.add_release(bundle, make_offer("2026.12.0"), NOW)
    for version in ("2026.12.1", "2026.12.2"):
        repository.add_release(bundle, make_offer(version), NOW)
        repository.refresh(NOW + 310 * DAY_S)  # a new version of the role with nothing new in it
        repository.withdraw(COMPATIBLE, Channel.STABLE, version, NOW)
        assert version_of(client) == "2026.12.0"
    repository.withdraw(COMPATIBLE, Channel.STABLE, "2026.12.0", NOW)
    assert client.target() is None


def test_a_bundle_that_is_replaced_while_its_release_waits_is_released_as_it_was(
    repository: Repository, keys: Keys, client: Client, bundle: Path
) -> None:
    folder = repository.store.folder
    open_repository(folder, keys, keys.only(firmware=[0])).add_release(bundle, make_offer("2026.12.0"), NOW)
    bundle.write_bytes(b"another bundle")
    open_repository(folder, keys, keys.only(firmware=[1])).sign(NOW)
    assert client.download() == b"a bundle"


def test_a_release_that_waited_until_its_window_was_over_is_not_signed_any_more(
    repository: Repository, keys: Keys, client: Client, bundle: Path
) -> None:
    folder = repository.store.folder
    first, second = (open_repository(folder, keys, keys.only(firmware=[number])) for number in (0, 1))
    old = make_offer("2026.12.0")
    repository.add_release(bundle, old, NOW)
    late = replace(old, version="2026.12.1", notice_at=0, activate_after=NOW, activate_before=NOW + DAY_S)
    first.add_release(bundle, late, NOW)
    with pytest.raises(PublishError, match=r"2026.12.1: the window to activate it is over"):
        second.sign(NOW + DAY_S)
    assert version_of(client) == "2026.12.0"
    second.sign(NOW + DAY_S - 1)
    assert version_of(client) == "2026.12.1"
    late_and_bad = NOW + 400 * DAY_S
    assert old.activate_before < late_and_bad
    first.withdraw(COMPATIBLE, Channel.STABLE, "2026.12.1", late_and_bad)
    assert "firmware" in second.sign(late_and_bad).published, "what is brought back may be as old as it is"


def test_a_release_whose_bundle_is_gone_is_not_brought_back(repository: Repository, client: Client, bundle: Path) -> None:
    repository.add_release(bundle, make_offer("2026.12.0"), NOW)
    bundle.write_bytes(b"another bundle")
    repository.add_release(bundle, make_offer("2026.12.1"), NOW)
    (before,) = (path for path in (repository.store.folder / "targets").rglob("*.raucb") if path.read_bytes() == b"a bundle")
    before.unlink()
    with pytest.raises(PublishError, match="is not there"):
        repository.withdraw(COMPATIBLE, Channel.STABLE, "2026.12.1", NOW)
    assert client.download() == b"another bundle"


def test_what_waits_can_be_given_up(repository: Repository, keys: Keys, client: Client, bundle: Path) -> None:
    open_repository(repository.store.folder, keys, keys.only(firmware=[0])).add_release(bundle, make_offer("2026.12.0"), NOW)
    assert [one.offer.version for one in repository.waiting_releases().values()] == ["2026.12.0"]
    assert repository.drop() == ("firmware",)
    assert repository.waiting_releases() == {}
    repository.add_release(bundle, make_offer("2026.12.0"), NOW)
    assert version_of(client) == "2026.12.0"


def test_a_web_server_may_read_what_a_careful_person_publishes(tmp_path: Path, keys: Keys, bundle: Path) -> None:
    before = os.umask(0o077)
    try:
        repository = open_repository(tmp_path / "careful", keys)
        repository.init(NOW)
        repository.add_release(bundle, make_offer("2026.12.0"), NOW)
    finally:
        os.umask(before)
    published = [path for part in ("metadata", "targets") for path in (tmp_path / "careful" / part).rglob("*")]
    assert len(published) >= 9
    assert {path.stat().st_mode & 0o777 for path in published} == {0o644, 0o755}


def test_two_at_once_do_one_after_the_other(repository: Repository, keys: Keys, client: Client, tmp_path: Path) -> None:
    versions = [f"2026.12.{number}" for number in range(6)]
    refused = []

    def release(version: str) -> None:
        (tmp_path / version).write_bytes(version.encode())
        try:
            open_repository(repository.store.folder, keys).add_release(tmp_path / version, make_offer(version), NOW)
        except PublishError:
            refused.append(version)  # a later one was faster

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(release, versions))
    released = [metadata.signed for metadata in repository.store.past("firmware")]
    assert [one.version for one in released] == list(range(len(versions) - len(refused) + 1, 0, -1))
    assert version_of(client) == versions[-1]
    assert client.download() == versions[-1].encode()


def test_who_holds_the_lock_for_ever_is_told_of(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_WITHIN_S", 0.2)
    with repository.store.locked(), pytest.raises(store_module.RepositoryFilesError, match="has been at work on it"):
        repository.refresh(NOW)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(lambda folder: (folder / "1.targets.json").unlink(), "No such file", id="a file is missing"),
        pytest.param(lambda folder: (folder / "1.firmware.json").write_text("{}"), "no TUF metadata", id="a file is empty"),
        pytest.param(lambda folder: (folder / "timestamp.json").write_bytes(b"\xff" * 99), "no TUF metadata", id="a file is noise"),
        pytest.param(
            lambda folder: shutil.copy(folder / "1.feeds.json", folder / "1.snapshot.json"),
            "expected snapshot",
            id="a file is another",
        ),
    ],
)
def test_a_damaged_repository_is_told_in_one_line(repository: Repository, damage: Callable[[Path], object], told: str) -> None:
    damage(repository.store.folder / "metadata")
    with pytest.raises(store_module.RepositoryFilesError, match=told):
        repository.refresh(NOW)


def test_two_people_release_in_two_sittings(repository: Repository, keys: Keys, client: Client, bundle: Path) -> None:
    folder = repository.store.folder
    first = open_repository(folder, keys, keys.only(firmware=[0], snapshot=[], timestamp=[]))
    second = open_repository(folder, keys, keys.only(firmware=[1]))
    done = first.add_release(bundle, make_offer("2026.12.0"), NOW)
    assert (done.published, done.pending) == ({}, (Pending("firmware", 1, 2),))
    assert version_of(client) is None
    with pytest.raises(PublishError, match="waits for signatures"):
        second.add_release(bundle, make_offer("2026.12.1"), NOW)
    assert first.sign(NOW).pending == (Pending("firmware", 1, 2),), "the same key again is no second signature"
    assert "firmware" in second.sign(NOW).published
    assert version_of(client) == "2026.12.0"
    assert second.pending() == ()


def test_metadata_expires_and_is_made_anew(repository: Repository, client: Client) -> None:
    later = NOW - LIFE_DAYS["timestamp"] * DAY_S - 60
    repository.refresh(later)
    with pytest.raises(ExpiredMetadataError):
        client.target()
    assert set(repository.refresh(NOW).published) == {"snapshot", "timestamp"}
    assert client.target() is None
    soon = NOW + (LIFE_DAYS["firmware"] - 1) * DAY_S
    assert {"firmware", "root", "targets", "feeds"} <= set(repository.refresh(soon).published)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "firmware", "feeds", "root"])
def test_a_role_gets_other_keys_and_old_clients_follow(
    repository: Repository, keys: Keys, client: Client, bundle: Path, role: str
) -> None:
    repository.add_release(bundle, make_offer("2026.12.0"), NOW)
    assert version_of(client) == "2026.12.0"
    renewed = keys.renewed(role)
    both = {one: [*keys.signers[one], *renewed.signers[one]] for one in keys.signers} if role == "root" else renewed.signers
    done = open_repository(repository.store.folder, keys, both).rotate(role, renewed.public, NOW)
    assert done.pending == ()
    assert version_of(client) == "2026.12.0"
    after = open_repository(repository.store.folder, renewed)
    after.add_release(bundle, make_offer("2026.12.1"), NOW)
    assert version_of(client) == "2026.12.1"


def test_other_root_keys_wait_for_the_old_ones(repository: Repository, keys: Keys, client: Client) -> None:
    renewed = keys.renewed("root")
    done = open_repository(repository.store.folder, keys, renewed.signers).rotate("root", renewed.public, NOW)
    assert any(one.role == "root" and one.has < one.needs for one in done.pending)
    old = {**keys.only(root=[0, 1]), "snapshot": keys.signers["snapshot"], "timestamp": keys.signers["timestamp"]}
    assert "root" in open_repository(repository.store.folder, renewed, old).sign(NOW).published
    assert client.target() is None


def test_a_repository_is_not_made_twice_nor_without_its_keys(repository: Repository, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="already"):
        repository.init(NOW)
    alone = open_repository(tmp_path / "other", keys, keys.only(root=[0]))
    assert {one.role for one in alone.init(NOW).pending} == {"root", "targets"}
    assert not alone.store.exists()


@pytest.mark.parametrize("survived", range(6))
def test_a_power_cut_after_any_file_leaves_the_old_release_or_the_new_one(
    repository: Repository, client: Client, bundle: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    repository.add_release(bundle, make_offer("2026.12.0"), NOW)
    bundle.write_bytes(b"another bundle")
    done = []
    real = store_module._put

    class PowerCutError(Exception):
        pass

    def put(fresh: Path, path: Path) -> None:
        if len(done) == survived:
            raise PowerCutError
        real(fresh, path)
        done.append(path.name)

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "_put", put)
        if survived < 4:  # the bundle, firmware, snapshot, timestamp
            with pytest.raises(PowerCutError):
                repository.add_release(bundle, make_offer("2026.12.1"), NOW)
        else:
            repository.add_release(bundle, make_offer("2026.12.1"), NOW)
    assert version_of(client) == ("2026.12.1" if survived >= 4 else "2026.12.0")
    assert client.download() == (b"another bundle" if survived >= 4 else b"a bundle")
    if survived < 4:
        repository.add_release(bundle, make_offer("2026.12.1"), NOW)
        assert version_of(client) == "2026.12.1"

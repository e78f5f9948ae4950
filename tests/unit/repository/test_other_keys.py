"""Keys change hands, get lost, or are the wrong ones: what clients are given is always something that they accept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError

from firmware.repository import store as store_module
from firmware.repository.repository import Pending, PublishError, Repository
from mamori.formats.offer import decode_offer
from tests.support.repository import Client, Keys, client_of, open_repository
from tests.support.update_world import make_offer

NOW = int(time.time())
FILES = 8  # more than any operation writes


class PowerCutError(Exception):
    """The power fails."""


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def repository(tmp_path: Path, keys: Keys) -> Repository:
    repository = open_repository(tmp_path / "repository", keys)
    repository.init(NOW)
    (tmp_path / "bundle").write_bytes(b"a bundle")
    repository.add_release(tmp_path / "bundle", make_offer("2026.12.0"), NOW)
    return repository


def version_of(client: Client) -> str:
    target = client.target()
    assert target is not None
    return decode_offer(target.unrecognized_fields["custom"], "target").version


def cut_after(files: int, patch: pytest.MonkeyPatch, operation: Callable[[], object]) -> bool:
    """Whether the power failed before the operation was done, which writes so many files and no more."""
    left, real = [files], store_module._put

    def put(fresh: Path, path: Path) -> None:
        if not left[0]:
            raise PowerCutError
        left[0] -= 1
        real(fresh, path)

    with patch.context() as patched:
        patched.setattr(store_module, "_put", put)
        try:
            operation()
        except PowerCutError:
            return True
    return False


@pytest.mark.parametrize("role", ["root", "firmware", "feeds", "snapshot", "timestamp"])
def test_a_power_cut_after_any_file_of_a_rotation_leaves_what_new_and_old_clients_accept(
    repository: Repository, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    renewed = keys.renewed(role)
    both = {one: [*keys.signers[one], *(renewed.signers[one] if one == role else [])] for one in keys.signers}
    cuts = 0
    with client_of(repository, tmp_path / "old") as old:
        assert version_of(old) == "2026.12.0"
        for files in range(FILES):
            # Each cut is made in the state that the cut before has left.
            rotating = open_repository(repository.store.folder, keys, both)
            was_cut = cut_after(files, monkeypatch, lambda rotating=rotating: rotating.rotate(role, renewed.public, NOW))  # type: ignore[misc]
            with client_of(repository, tmp_path / f"new-{files}") as new:
                assert (version_of(old), version_of(new)) == ("2026.12.0", "2026.12.0"), f"after {files} files"
            if not was_cut:
                break
            cuts += 1
    assert 3 <= cuts < FILES - 1, "it was cut off often, and in the end it was not"
    after = open_repository(repository.store.folder, renewed)
    after.refresh(NOW)
    with client_of(repository, tmp_path / "after") as client:
        assert version_of(client) == "2026.12.0"


def test_a_lost_key_of_the_timestamp_is_replaced_without_it(repository: Repository, keys: Keys, tmp_path: Path) -> None:
    renewed = keys.renewed("timestamp")
    with client_of(repository, tmp_path / "client") as client:
        assert version_of(client) == "2026.12.0"
        done = open_repository(repository.store.folder, keys, renewed.signers).rotate("timestamp", renewed.public, NOW)
        assert list(done.published) == ["root", "snapshot", "timestamp"]
        assert version_of(client) == "2026.12.0"


def test_a_lost_key_and_a_power_cut_are_mended_by_the_next_refresh(
    repository: Repository, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is snapshot, root, timestamp. Without the old key there is a moment between the last two, and no way around it."""
    renewed = keys.renewed("timestamp")
    rotating = open_repository(repository.store.folder, renewed)
    assert cut_after(1, monkeypatch, lambda: rotating.rotate("timestamp", renewed.public, NOW))
    with client_of(repository, tmp_path / "client") as client:
        assert version_of(client) == "2026.12.0", "nothing has happened yet"
        assert cut_after(2, monkeypatch, lambda: rotating.rotate("timestamp", renewed.public, NOW))
        with pytest.raises(RepositoryError):
            client.target()
        rotating.refresh(NOW)
        assert version_of(client) == "2026.12.0"


@pytest.mark.parametrize("role", ["root", "firmware", "snapshot", "timestamp"])
def test_a_keyset_with_other_keys_than_the_repository_publishes_nothing(
    repository: Repository, keys: Keys, tmp_path: Path, role: str
) -> None:
    other = open_repository(repository.store.folder, keys.renewed(role))
    before = {path: path.read_bytes() for path in repository.store.folder.rglob("*.json")}
    operations: list[Callable[[], object]] = [lambda: other.refresh(NOW + 330 * 86_400)]
    if role != "root":
        operations.append(lambda: other.add_release(tmp_path / "bundle", make_offer("2026.12.1"), NOW))
    for operation in operations:
        with pytest.raises(PublishError, match=f"other keys for {role}"):
            operation()
    assert {path: path.read_bytes() for path in repository.store.folder.rglob("*.json")} == before


def test_two_of_three_root_keys_make_a_repository_in_two_sittings(keys: Keys, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    first = open_repository(folder, keys, keys.only(root=[0]))
    assert first.init(NOW).pending == (Pending("root", 1, 2), Pending("targets", 1, 2))
    with pytest.raises(PublishError, match="root waits for signatures"):
        first.init(NOW)
    third = open_repository(folder, keys, {**keys.only(root=[2]), "firmware": []})
    assert set(third.sign(NOW).published) == {"root", "targets", "firmware", "feeds", "snapshot", "timestamp"}
    with client_of(third, tmp_path / "client") as client:
        assert client.target() is None


def test_root_keys_are_handed_over_old_to_new_by_people_who_never_meet(repository: Repository, keys: Keys, tmp_path: Path) -> None:
    folder, renewed = repository.store.folder, keys.renewed("root")
    online = {"snapshot": keys.signers["snapshot"], "timestamp": keys.signers["timestamp"]}
    with client_of(repository, tmp_path / "client") as client:
        assert version_of(client) == "2026.12.0"
        done = open_repository(folder, renewed, {"root": renewed.signers["root"][:1]}).rotate("root", renewed.public, NOW)
        for holder in (keys.signers["root"][0], renewed.signers["root"][2], keys.signers["root"][1]):
            assert {one.role for one in done.pending} >= {"root"}
            assert version_of(client) == "2026.12.0"
            done = open_repository(folder, renewed, {"root": [holder]}).sign(NOW)
        assert [one.role for one in done.pending] == ["snapshot", "timestamp"], "all people have signed, but not the machine"
        assert all(one.is_complete for one in repository.pending())
        done = open_repository(folder, renewed, online).sign(NOW)
        assert set(done.published) == {"root", "targets", "snapshot", "timestamp"}
        assert version_of(client) == "2026.12.0"
        assert repository.store.read("root").signed.version == 2


def test_what_waits_for_people_does_not_hold_up_the_daily_refresh(repository: Repository, keys: Keys, tmp_path: Path) -> None:
    soon = NOW + 320 * 86_400
    machine = open_repository(repository.store.folder, keys, keys.only(root=[], firmware=[]))
    done = machine.refresh(soon)
    assert {one.role for one in done.pending} == {"root", "targets", "firmware"}
    assert set(done.published) == {"feeds", "snapshot", "timestamp"}
    again = machine.refresh(soon + 86_400)
    assert (set(again.published), again.pending) == ({"snapshot", "timestamp"}, ()), "what waits is not made twice"
    assert {"root", "targets", "firmware"} <= set(open_repository(repository.store.folder, keys).sign(soon + 86_400).published)
    with pytest.raises(PublishError, match="signatures are missing: timestamp"):
        open_repository(repository.store.folder, keys, keys.only(timestamp=[])).refresh(soon)


def test_what_waits_and_is_not_whole_is_not_published(repository: Repository, keys: Keys, tmp_path: Path) -> None:
    """The power failed between two files of `staged`: new keys for the firmware role, and nothing that they signed."""
    renewed = keys.renewed("firmware")
    waiting = open_repository(repository.store.folder, renewed, {"root": keys.signers["root"][:1]})
    assert {one.role for one in waiting.rotate("firmware", renewed.public, NOW).pending} >= {"targets"}
    repository.store.unstage("firmware")
    everyone = open_repository(repository.store.folder, renewed)
    with pytest.raises(PublishError, match=r"appliances would refuse this: firmware \(0 of 2"):
        everyone.sign(NOW)
    with client_of(repository, tmp_path / "client") as client:
        assert version_of(client) == "2026.12.0"
    assert everyone.drop() == ("targets",)
    assert everyone.drop() == ()
    assert {"targets", "firmware"} <= set(everyone.rotate("firmware", renewed.public, NOW).published)


def test_what_was_published_does_not_wait_although_its_file_was_left(repository: Repository, keys: Keys, tmp_path: Path) -> None:
    firmware = repository.store.read("firmware")
    repository.store.stage("firmware", firmware)
    assert repository.pending() == ()
    with pytest.raises(PublishError, match="nothing waits"):
        repository.sign(NOW)
    assert "firmware" in repository.add_release(tmp_path / "bundle", make_offer("2026.12.1"), NOW).published


def test_a_repository_begins_with_the_root_that_images_have_already(keys: Keys, tmp_path: Path) -> None:
    first = open_repository(tmp_path / "first", keys)
    first.init(NOW)
    root = first.store.read("root")
    second = open_repository(tmp_path / "second", keys)
    second.init(NOW + 1, root)
    assert second.store.root() == first.store.root()
    foreign = open_repository(tmp_path / "third", keys.renewed("root"))
    with pytest.raises(PublishError, match="other keys for root"):
        foreign.init(NOW, root)
    assert not foreign.store.exists()

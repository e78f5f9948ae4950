"""Files on a stick are read only if they are files, and each plugging in is looked at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadError

from mamori.update.fetcher import Fetcher
from mamori.update.upstream import FileUpstream, UpstreamError
from mamori.update.usb import MAX_WAITING, MOUNTED, REPOSITORY, Plug, Sticks, has_repository, list_plugs, open_plain

CONTENT = b"a plain file on a stick"


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick" / REPOSITORY
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(CONTENT)
    (tmp_path / "secret").write_bytes(CONTENT)
    return folder


def make_nothing(_path: Path) -> None: ...


def make_link(path: Path) -> None:
    path.symlink_to(path.parents[2] / "secret")


def make_relative_link(path: Path) -> None:
    path.symlink_to("../../secret")


def make_link_within(path: Path) -> None:
    path.symlink_to("file")


NO_FILES: dict[str, Callable[[Path], None]] = {
    "nothing": make_nothing,
    "a folder": Path.mkdir,
    "a pipe that nobody writes into": os.mkfifo,
    "a link out of the stick": make_link,
    "a link out of the stick by dots": make_relative_link,
    "a link within it": make_link_within,
    "a device that never ends": lambda path: os.mknod(path, 0o20666, os.makedev(1, 5)),
}


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_plain_file_is_not_read(stick: Path, make: Callable[[Path], None]) -> None:
    path = stick / "thing"
    try:
        make(path)
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(OSError, match=r"No such file|not a file|symbolic links"):
        open_plain(path)
    with pytest.raises(DownloadError):
        list(Fetcher().fetch(path.as_uri()))
    with pytest.raises(UpstreamError) as caught:
        list(FileUpstream(path.as_uri(), len(CONTENT)).read(0, len(CONTENT)))
    assert not caught.value.is_final, "a bad stick says nothing of the release"


def test_a_plain_file_is_read_whole_and_in_ranges(stick: Path) -> None:
    with open_plain(stick / "file") as file:
        assert file.read() == CONTENT
    assert b"".join(Fetcher().fetch((stick / "file").as_uri())) == CONTENT
    assert b"".join(FileUpstream((stick / "file").as_uri(), len(CONTENT)).read(2, 7)) == CONTENT[2:7]


def test_a_folder_that_is_a_link_leads_nowhere(stick: Path) -> None:
    (stick / "metadata").symlink_to(stick.parent.parent)
    with pytest.raises(OSError, match="ot a directory"):
        open_plain(stick / "metadata" / "secret")
    with pytest.raises(OSError, match="a way back"):
        open_plain(stick / ".." / ".." / "secret")
    (stick.parent / "elsewhere").symlink_to(stick)
    assert has_repository(stick)
    assert not has_repository(stick.parent / "elsewhere")
    assert not has_repository(stick / "file")
    assert not has_repository(stick / "nothing")


def test_a_file_name_with_garbage_is_an_error_like_others() -> None:
    with pytest.raises(DownloadError):
        list(Fetcher().fetch("file:///a%00b"))
    with pytest.raises(UpstreamError):
        list(FileUpstream("file:///a%00b", 1).read(0, 1))


def test_a_copy_of_another_length_is_no_final_word(stick: Path) -> None:
    with pytest.raises(UpstreamError, match="has 23 bytes, not 24") as caught:
        list(FileUpstream((stick / "file").as_uri(), len(CONTENT) + 1).read(0, 5))
    assert not caught.value.is_final


def test_who_is_told_to_stop_reads_no_more(stick: Path) -> None:
    source = FileUpstream((stick / "file").as_uri(), len(CONTENT))
    source.stop()
    with pytest.raises(UpstreamError, match="stopped"):
        list(source.read(0, len(CONTENT)))


def plug_in(folder: Path, name: str, at_ns: int = 1) -> Plug:
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f"{name}{MOUNTED}"
    marker.touch()
    os.utime(marker, ns=(at_ns, at_ns))
    return Plug(name, at_ns)


def test_each_plugging_in_is_told_once(tmp_path: Path) -> None:
    sticks = Sticks(tmp_path / "usb")
    sticks.look()
    assert sticks.next() is None, "no stick has ever been here"
    first = plug_in(tmp_path / "usb", "sdb1")
    sticks.look()
    sticks.look()
    assert (sticks.next(), sticks.next(), sticks.has(first)) == (first, None, True)
    again = plug_in(tmp_path / "usb", "sdb1", 2)  # out and in between two looks
    sticks.look()
    assert (sticks.has(first), sticks.next()) == (False, again)
    assert sticks.repository(again) == tmp_path / "usb/sdb1/mamori-update"


def test_a_folder_is_no_stick_before_the_mount_is_complete(tmp_path: Path) -> None:
    (tmp_path / "sdb1").mkdir()
    assert list_plugs(tmp_path) == ()
    plug = plug_in(tmp_path, "sdb1")
    assert list_plugs(tmp_path) == (plug,)


def test_one_that_is_gone_before_its_turn_is_passed_over(tmp_path: Path) -> None:
    sticks = Sticks(tmp_path)
    plug_in(tmp_path, "sdb1")
    second = plug_in(tmp_path, "sdc1")
    sticks.look()
    (tmp_path / f"sdb1{MOUNTED}").unlink()
    sticks.look()
    assert (sticks.next(), sticks.next()) == (second, None)


def test_a_stick_of_a_thousand_partitions_does_not_fill_the_memory(tmp_path: Path) -> None:
    sticks = Sticks(tmp_path)
    for number in range(50):
        plug_in(tmp_path, f"sdb{number}")
    sticks.look()
    told = []
    while (plug := sticks.next()) is not None:
        told.append(plug)
    assert len(told) == MAX_WAITING


def test_a_pipe_does_not_hold_the_reader_up(stick: Path) -> None:
    os.mkfifo(stick / "pipe")
    done = threading.Event()

    def read() -> None:
        with pytest.raises(OSError, match="not a file"):
            open_plain(stick / "pipe")
        done.set()

    threading.Thread(target=read, daemon=True).start()
    assert done.wait(5)

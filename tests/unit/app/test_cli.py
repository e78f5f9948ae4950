"""The command as people and scripts meet it: exit codes, streams, messages."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mamori
from mamori import cli
from mamori.formats.bootstate import BootState, Slot, encode
from mamori.paths import Device

SOURCE = Path(mamori.__file__).parents[1]

OLD, ARMED = encode(BootState(Slot.A)), encode(BootState(Slot.A, Slot.B, 3, 2))


def run(*arguments: object, interpreter: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *interpreter, "-m", "mamori.cli", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "1", tmp_path / "2"
    for path, block in zip(paths, (OLD, ARMED), strict=True):
        path.write_bytes(block)
    return paths


def test_status_as_json_is_one_object(device: Device) -> None:
    done = run("--root", device.root, "status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["slot"] == "b"


def test_status_for_people_has_no_colour_in_a_pipe(device: Device) -> None:
    done = run("--root", device.root, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "slot        b\n" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_boot_state_of_two_files_is_shown(copies) -> None:
    done = run("boot-state", "show", *copies)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "bootstate-1  confirmed=a trial=none tries=0 sequence=1",
        "bootstate-2  confirmed=a trial=b tries=3 sequence=2",
        "counts       confirmed=a trial=b tries=3 sequence=2",
        "starts       b, then a",
    ]


def test_the_boot_state_as_json_tells_what_is_wrong_with_a_copy(copies) -> None:
    copies[1].write_bytes(b"?")
    done = run("boot-state", "show", "--json", *copies)
    state = {"confirmed": "a", "trial": None, "tries": 0, "sequence": 1}
    assert json.loads(done.stdout) == {
        "copies": [
            {"name": "bootstate-1", "state": state, "error": None},
            {"name": "bootstate-2", "state": None, "error": "boot state: 1 bytes, not 1024 (§2.1)"},
        ],
        "state": state,
        "candidates": ["a", "b"],
    }


def test_two_bad_copies_are_shown_and_a_slot_starts_nevertheless(copies) -> None:
    for path in copies:
        path.write_bytes(b"\0" * 1024)
    done = run("boot-state", "show", *copies)
    assert done.returncode == 0
    assert done.stdout.splitlines()[2:] == ["counts       no copy is valid", "starts       a, then b"]


def test_the_boot_state_is_found_in_the_partition(device: Device) -> None:
    device.bootstate.parent.mkdir(parents=True)
    device.bootstate.write_bytes(bytes(4096) + OLD + bytes(1024) + ARMED + bytes(4096))
    done = run("--root", device.root, "boot-state", "show", "--json")
    assert json.loads(done.stdout)["candidates"] == ["b", "a"]


def test_a_partition_without_two_blocks_is_an_error(device: Device) -> None:
    device.bootstate.parent.mkdir(parents=True)
    device.bootstate.write_bytes(bytes(4096) + OLD)
    done = run("--root", device.root, "boot-state", "show")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"mamori: {device.bootstate}: 1 boot state blocks, not 2 (docs/boot-state.md §6.2)\n"


def test_one_file_is_not_two_copies(copies) -> None:
    done = run("boot-state", "show", copies[0])
    assert done.returncode == 2
    assert "name both copies, or none" in done.stderr


def test_a_file_that_is_not_there_is_an_error_without_traceback(copies, tmp_path: Path) -> None:
    done = run("boot-state", "show", copies[0], tmp_path / "none")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"mamori: {tmp_path}/none: No such file or directory\n")


def test_a_file_that_is_larger_than_a_copy_can_be_is_not_read_to_its_end(copies) -> None:
    copies[1].write_bytes(ARMED + b"#")
    done = run("boot-state", "show", *copies)
    assert (done.returncode, done.stderr) == (2, f"mamori: {copies[1]}: more than 1024 bytes\n")


def test_the_version_is_that_of_the_application() -> None:
    assert run("--version").stdout == f"mamori {mamori.__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("boot-state",), ("stat",), ("status", "--js")], ids=repr)
def test_a_command_that_does_not_exist_is_refused_with_the_usage(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: mamori")


def test_a_bug_keeps_its_traceback() -> None:
    """A root that cannot be a path is no fault of the input's: only a caller within the code can give it."""
    with pytest.raises(ValueError, match="null byte"):
        cli.main(["--root", "a\0b", "status"])


def test_a_reader_that_has_seen_enough_is_no_error_on_the_screen(device: Device) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "mamori.cli", "--root", str(device.root), "status"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (141, "")


HEAVY = {"asyncio", "difflib", "tomllib", "subprocess", "urllib", "http", "email", "logging", "typing_extensions", "unittest"}
"""Modules that no command needs; each costs start-up time, most of all under emulation."""


@pytest.mark.parametrize("arguments", [("--version",), ("status",), ("boot-state", "show")], ids=repr)
def test_no_command_imports_what_it_does_not_need(device: Device, arguments: tuple[str, ...]) -> None:
    command = ["--root", str(device.root), *arguments]
    script = f"import sys; from mamori import cli\ntry: cli.main({command})\nexcept SystemExit: pass\n"
    script += "sys.stdout = sys.stderr; sys.stderr.write('\\n@' + ' '.join(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stderr.split("@")[-1].split())
    assert "mamori.cli" in loaded
    assert loaded & HEAVY <= ({"urllib"} if sys.version_info < (3, 13) else set()), "pathlib needs urllib before Python 3.13"


def test_lists_are_compiled_and_looked_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lists.toml").write_text(
        '[lists.phish]\nkind = "dangerous"\ncategory = "phishing"\nlabel_ja = "詐欺"\nlabel_en = "Phishing"\nfiles = ["a.txt"]\n'
    )
    (tmp_path / "a.txt").write_text("bad.example\n")
    out = str(tmp_path / "out.mlf")
    assert cli.main(["lists", "compile", out, "--source", str(tmp_path)]) == 0
    capsys.readouterr()
    assert cli.main(["lists", "lookup", out, "www.bad.example", "good.example"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("www.bad.example: phish (Phishing)")
    assert second == "good.example: on no list"


def test_hashes_of_files_are_compiled_and_files_looked_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, good, source, out = (tmp_path / name for name in ("bad", "good", "list.hsb", "list.mhf"))
    bad.write_bytes(b"harmful")
    good.write_bytes(b"harmless")
    source.write_bytes(f"{hashlib.sha256(b'harmful').hexdigest()}:7:Test.".encode() + b"\xff\n")
    assert cli.main(["hashes", "compile", str(out), "--source", str(source)]) == 0
    assert capsys.readouterr().out == f"1 entries, {out.stat().st_size} bytes\n"
    assert cli.main(["hashes", "check", str(out), str(bad), str(good)]) == 0
    assert capsys.readouterr().out == f"{out}: 1 entries\n{bad}: Test.\ufffd\n{good}: not on the list\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("compile", "out", "--source", "bad"), "bad: line 1: expected SHA-256:length or *:name"),
        (("compile", "out", "--source", "none"), "none: No such file"),
        (("compile", "none/out", "--source", "good"), "none: No such file"),
        (("check", "good"), "good: content: expected a compiled list of hashes"),
        (("check", "none"), "none: No such file"),
    ],
    ids=["a line that is none", "no source", "no folder", "a list that is none", "no list"],
)
def test_what_is_wrong_with_hashes_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad").write_text("not a hash\n")
    Path("good").write_text(f"{'0' * 64}:*:Name\n")
    assert cli.main(["hashes", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_policy_is_checked_before_it_counts(device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new.toml"
    path.write_text('[virus]\nmode = "blok"\nhold = 1\n')
    assert cli.main(["policy", "check", str(path)]) == 2
    said = capsys.readouterr().err
    assert "virus.mode: expected one of block, log, off, got 'blok'" in said
    assert "virus.hold" in said, "all errors at once"
    path.write_text('[virus]\nmode = "log"\n')
    assert cli.main(["policy", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: sound\n"
    path.unlink()
    assert cli.main(["policy", "check", str(path)]) == 2
    assert "No such file" in capsys.readouterr().err
    device.policy.parent.mkdir(parents=True)
    device.policy.write_text("")
    assert cli.main(["--root", str(device.root), "policy", "check"]) == 0

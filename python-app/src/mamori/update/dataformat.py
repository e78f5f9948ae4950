"""The data partition's format: raised step by step after a release is confirmed, never while it is on trial (docs/update.md §8).

    /data/format                 the number of the format that the data is in
    /data/update/kept/N          copies of what step N changed, as it was before: what the old slot can read

A trial leaves the number as it is, and what it writes is what the old slot can read. After confirmation each step makes its changes
beside, puts them in place, and only then is the number raised; a step may begin again at any point. The copies go when the
next release has been confirmed: until then its own way back leads to a slot that reads the format before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mamori.durable import replacing, write_durably
from mamori.formats.problems import MamoriError

FIRST_FORMAT = 1
"""That of boxes whose data has no number yet."""


class DataFormatError(MamoriError):
    """The data is in a format that this image does not know: it comes from a newer one."""


@dataclass(frozen=True)
class Step:
    """From one format to the next. `changes` are files and folders below the data partition that `run` may change: they are
    copied before. `run` gets the partition's folder, and must do its work as often as it is called."""

    changes: tuple[str, ...]
    run: Callable[[Path], None]


STEPS: Mapping[int, Step] = {}
"""By the format that a step leads to: 2, 3 and so on. There was no need for one yet."""


def newest_format(steps: Mapping[int, Step] = STEPS) -> int:
    """What this image writes once it is confirmed."""
    return max(steps, default=FIRST_FORMAT)


def read_format(data: Path) -> int:
    """The format that the data is in. DataFormatError for a number that is none."""
    path = data / "format"
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        return FIRST_FORMAT
    except (OSError, UnicodeDecodeError):
        text = ""
    if not (text.isdigit() and FIRST_FORMAT <= int(text) < 10_000):
        raise DataFormatError(f"{path}: expected a number from {FIRST_FORMAT} on, got {text[:20]!r}")
    return int(text)


def migrate(data: Path, steps: Mapping[int, Step] = STEPS) -> list[int]:
    """Bring confirmed data forward to this image's format; the formats that it went through. OSError when the disk does not take
    it: what was done so far stands, and the next start goes on."""
    present, newest = read_format(data), newest_format(steps)
    if present > newest:
        raise DataFormatError(f"{data / 'format'}: the data is in format {present}, this image knows {newest}")
    done = []
    for number in range(present + 1, newest + 1):
        _keep(data, number, steps[number])
        steps[number].run(data)
        write_durably(data / "format", f"{number}\n".encode())
        done.append(number)
    return done


def restore(data: Path, wanted: int) -> list[int]:
    """Back to the format `wanted`, with what was kept: for an old slot that runs again after a confirmed one was found bad. Steps
    whose copies are gone cannot be undone: DataFormatError."""
    undone = []
    for number in range(read_format(data), wanted, -1):
        kept = data / "update/kept" / str(number)
        if not (kept / "complete").is_file():
            raise DataFormatError(f"{kept}: what format {number} changed was not kept")
        for name in (kept / "names").read_text().splitlines():
            _replace(kept / "files" / name, data / name)
        write_durably(data / "format", f"{number - 1}\n".encode())
        undone.append(number)
    return undone


def forget_kept(data: Path) -> None:
    """The next release has been confirmed: nobody goes back so far."""
    shutil.rmtree(data / "update/kept", ignore_errors=True)


def _keep(data: Path, number: int, step: Step) -> None:
    """Copy what the step may change, unless that was done: after half a step the files are no longer what they were."""
    kept = data / "update/kept" / str(number)
    if (kept / "complete").is_file():
        return
    shutil.rmtree(kept, ignore_errors=True)
    (kept / "files").mkdir(parents=True)
    for name in step.changes:
        _replace(data / name, kept / "files" / name)
    write_durably(kept / "names", "".join(f"{name}\n" for name in step.changes).encode())
    write_durably(kept / "complete", b"")


def _replace(source: Path, target: Path) -> None:
    """`target` becomes a copy of `source`: a file, a folder, or nothing."""
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, source.stat().st_mode & 0o777) as file:
            file.write(source.read_bytes())
    else:
        target.unlink(missing_ok=True)

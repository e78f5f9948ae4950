"""The built root file system, unpacked to be looked at: modes are as in the image, owners are not."""

from __future__ import annotations

from pathlib import Path

from firmware.build import Built


def unpack_root(built: Built, into: Path) -> Path:
    """All files of the root below `into`/root; fsck.erofs checks every block on the way."""
    argv: list[str | Path] = [
        "fsck.erofs",
        f"--extract={into / 'root'}",
        "--preserve-perms",
        "--no-preserve-owner",
        built.root.image,
    ]
    built.tools.run(argv, reads=[built.root.image], writes=[into], explain="unpack the root file system")
    return into / "root"

"""What every check needs: the tools, what the image should be, and whom to believe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from firmware.process import Result, ToolError
from firmware.recipe import Image
from firmware.workspace import Tools
from mamori.formats.problems import MamoriError
from signing.anchors import Anchors


@dataclass(frozen=True)
class Case:
    """`image` as this checkout knows it, the keyset's `anchors`, its Secure Boot certificate `db` as a file, and the bundle
    CAs as the file `keyring`. `scratch` is a folder for unpacked things."""

    tools: Tools
    image: Image
    anchors: Anchors
    db: Path
    keyring: Path
    scratch: Path

    def ask(self, argv: Sequence[str | Path], *reads: Path) -> Result:
        """What a tool says of the files `reads`. It may write into the scratch folder."""
        return self.tools.run(argv, reads=reads, writes=[self.scratch], explain=f"{argv[0]} looks at {reads[0].name}")


@contextmanager
def blamed_on(what: str, hint: str = "") -> Iterator[None]:
    """A tool that fails in this block becomes `what` and the tool's last words, without its command line."""
    try:
        yield
    except ToolError as error:
        words = next((line.strip() for line in reversed(error.tail) if line.strip()), error.ending)
        raise MamoriError(f"{what} ({words})", hint) from error

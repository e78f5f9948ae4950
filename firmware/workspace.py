"""The checkout at work: where things lie, and the sandbox in which every tool runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from firmware.cache import Artifact, Cache
from firmware.console import Console
from firmware.process import Result, run
from firmware.recipe import ROOT

_ENVIRONMENT = MappingProxyType({"PATH": "/usr/sbin:/usr/bin", "LANG": "C.UTF-8", "TZ": "UTC", "HOME": "/tmp"})  # noqa: S108


@dataclass(frozen=True)
class Tools:
    """The tools tree, unpacked at `tree`: a folder of Debian 13 that tools run in, whatever the host is.

    A tool sees the tree read-only, a /tmp of its own, and nothing of the host but what is named: `reads` read-only and
    `writes` writable, each at its own path. It has no network, and dies with us.
    """

    tree: Path
    artifact: Artifact

    @property
    def digest(self) -> str:
        return self.artifact.digest

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        explain: str,
        reads: Sequence[Path] = (),
        writes: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        return run([*self.sandbox(reads, writes, env or {}), *argv], explain=explain, on_line=on_line, timeout_s=timeout_s)

    def sandbox(self, reads: Sequence[Path], writes: Sequence[Path], env: Mapping[str, str]) -> list[str | Path]:
        """The argument list that puts what follows into the sandbox."""
        argv: list[str | Path] = ["bwrap", "--unshare-all", "--die-with-parent", "--uid", "0", "--gid", "0", "--clearenv"]
        for name, value in sorted({**_ENVIRONMENT, **env}.items()):
            argv += ["--setenv", name, value]
        for folder in ("usr", "etc", "var"):
            argv += ["--ro-bind", self.tree / folder, f"/{folder}"]
        for link in ("bin", "sbin", "lib", "lib64"):
            argv += ["--symlink", f"usr/{link}", f"/{link}"]
        argv += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run"]  # noqa: S108
        for path in reads:
            argv += ["--ro-bind", path.resolve(), path.absolute()]
        for path in writes:
            argv += ["--bind", path.resolve(), path.absolute()]
        return [*argv, "--"]


@dataclass(frozen=True)
class Workspace:
    """One checkout, its output folder and whoever watches."""

    console: Console
    root: Path = ROOT
    out: Path = field(default=ROOT / "out")

    @property
    def cache(self) -> Cache:
        return Cache(self.out / "cache")

"""The production base: a pinned Buildroot that is asked for what was rendered, and held to it.

The checkout is this project's BR2_EXTERNAL tree. Configuring is done before anything is built, and a line that did not
survive stops the build: Kconfig drops what it cannot satisfy without a word.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from firmware.bases import BaseTree, Package, PythonTarget
from firmware.cache import Artifact, file_sha256, tree_sha256
from firmware.console import Step
from firmware.host_tools import which
from firmware.process import Result, download_environment, run
from firmware.recipe import ROOT, Image
from firmware.workspace import Workspace
from mamori.formats.problems import MamoriError
from mamori.formats.strict import Matches, parse, read_toml

LOCK = "buildroot.lock"
TREE_VARIABLE = "MAMORI_BUILDROOT"

DOWNLOADS_VARIABLE = "BR2_DL_DIR"
"""Buildroot's own name for a folder of sources that several trees share."""

HOST_TOOLS = ("bc", "bzip2", "cpio", "file", "g++", "make", "patch", "perl", "rsync", "unzip", "wget")
"""Mandatory packages of the Buildroot manual that a Debian without build tools lacks; commands of the same names."""

_EXTERNAL_FILES = ("external.desc", "external.mk", "Config.in", "board/common/post-build.sh")
_RENDERED = "rendered"
_REQUEST = re.compile(r"\w+(?P<value>=.*)|# (?P<unset>\w+) is not set")


@dataclass(frozen=True)
class Lock:
    """Which Buildroot: `commit` decides, `release` is its tag, `url` is where to get it."""

    release: Annotated[str, Matches(r"20\d\d\.\d\d(\.\d+)?", "a Buildroot release, like 2026.05.1")]
    commit: Annotated[str, Matches(r"[0-9a-f]{40}", "a git commit of 40 hex digits")]
    url: str


def read_lock(root: Path = ROOT) -> Lock:
    return parse(Lock, read_toml(root / LOCK, LOCK), LOCK)


def given_tree(option: str = "") -> Path | None:
    """The Buildroot tree that `--buildroot` or the environment names."""
    named = option or os.environ.get(TREE_VARIABLE, "")
    return Path(named).resolve() if named else None


def check_survival(requested: str, final: str) -> list[str]:
    """Lines of `requested` that the configuration `final` does not have, in order; both are Kconfig files.

    A symbol that was asked to be unset may also be absent, because nothing offers it. A symbol that is asked for twice
    with different values loses one of them, and says so.
    """
    lines = set(final.splitlines())
    values = {line.partition("=")[0] for line in lines if not line.startswith("#")}
    requests = [match for match in map(_REQUEST.fullmatch, requested.splitlines()) if match]
    return [match[0] for match in requests if match[0] not in lines and (match["value"] or match["unset"] in values)]


def parse_packages(entries: Mapping[str, Any], sha256: Mapping[str, str]) -> tuple[Package, ...]:
    """What `make show-info` lists for the target and has a version; `sha256` is by archive name (hex).

    Our own package has none: it is listed where its files are put into the image. Buildroot knows a few archives by
    SHA-512 alone; their `sha256` is empty.
    """
    return tuple(
        Package(
            name=name,
            version=entry["version"],
            sha256=next((sha256[file["source"]] for file in entry["downloads"] if file["source"] in sha256), ""),
            licences=tuple(part for part in entry.get("licenses", "").split(", ") if part),
        )
        for name, entry in sorted(entries.items())
        if entry["type"] == "target" and not entry["virtual"] and entry["version"]
    )


def parse_hashes(text: str) -> Mapping[str, str]:
    """The SHA-256 lines of a Buildroot `.hash` file: file name to hex digest (manual, "The .hash file")."""
    lines = (line.split() for line in text.splitlines())
    return {words[2]: words[1] for words in lines if len(words) == 3 and words[0] == "sha256"}


@dataclass(frozen=True)
class BuildrootBase:
    """Implements `firmware.bases.Base` with the Buildroot checkout `tree`.

    It works in out/buildroot/LABEL, where a build that stopped goes on; sources are in out/buildroot/dl.
    """

    workspace: Workspace
    tree: Path | None

    def missing(self, image: Image) -> Sequence[str]:
        lock = read_lock(self.workspace.root)
        paragraphs = []
        if wrong := self._wrong_tree(lock):
            paragraphs.append(
                f"Recipe `{image.name}` is built from Buildroot {lock.release}, and {wrong}. Get it with\n"
                f"    git clone --depth 1 --branch {lock.release} {lock.url} ../buildroot-{lock.release}\n"
                f"and name it with --buildroot PATH or {TREE_VARIABLE}=PATH. Recipe `lab` needs none."
            )
        if absent := [tool for tool in HOST_TOOLS if which(tool) is None]:
            paragraphs.append(f"Buildroot needs tools that are not on this machine: apt-get install {' '.join(absent)}")
        return paragraphs

    def configure(self, image: Image, rendered: Path, step: Step | None = None) -> Path:
        """The output folder with a complete configuration; MamoriError names every requested line that was lost."""
        folder = self.workspace.out / "buildroot" / image.label
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / _RENDERED, ignore_errors=True)
        shutil.copytree(rendered / "buildroot", folder / _RENDERED)
        defconfig = folder / _RENDERED / "defconfig"
        self._make(folder, f"BR2_DEFCONFIG={defconfig}", "defconfig", explain="configure Buildroot", step=step)
        _insist("Buildroot", defconfig, folder / ".config")
        return folder

    def build(self, image: Image, rendered: Path) -> BaseTree:
        """The tree of `image`, from `rendered/buildroot/`. The first build takes hours; one that stopped goes on."""
        if problems := self.missing(image):
            raise MamoriError("\n\n".join(problems))
        root = self.workspace.root
        inputs = {name: file_sha256(root / name) for name in _EXTERNAL_FILES}
        inputs |= {"package": tree_sha256(root / "package"), "rendered": tree_sha256(rendered / "buildroot")}
        inputs["commit"] = read_lock(root).commit
        with self.workspace.console.step("buildroot base") as step:

            def make(fresh: Path) -> None:
                self._build(image, rendered, fresh, step)

            artifact = self.workspace.cache.step("buildroot-base", inputs, make, code=(__file__,), on_hit=step.cached)
        return _base_tree(artifact)

    def _build(self, image: Image, rendered: Path, fresh: Path, step: Step) -> None:
        folder = self.configure(image, rendered, step)
        packages = json.loads(self._make(folder, "--silent", "show-info", explain="list what Buildroot builds").stdout)
        # The kernel is configured before the rest is built: a lost line is told after the toolchain, not after everything.
        self._make(folder, "linux-configure", explain="configure the kernel", step=step)
        kernel = folder / packages["linux"]["build_dir"]
        _insist("the kernel", folder / _RENDERED / "linux.fragment", kernel / ".config")
        self._make(folder, explain="build with Buildroot", step=step)
        self._make(folder, "legal-info", explain="collect licence texts", step=step)
        for source, target in (
            (folder / "images/rootfs.tar", BaseTree.ROOTFS),
            (folder / "images/bzImage", BaseTree.KERNEL),
            (kernel / ".config", BaseTree.KERNEL_CONFIG),
        ):
            shutil.copyfile(source, fresh / target)
        _write_licences(folder / "legal-info/licenses", fresh / BaseTree.LICENCES)
        found = parse_packages(packages, self._hashes(packages))
        (fresh / BaseTree.PACKAGES).write_text(json.dumps([asdict(package) for package in found], indent=1))
        release = (kernel / "include/config/kernel.release").read_text().strip()
        python = packages["python3"]["version"].rpartition(".")[0]
        (fresh / BaseTree.FACTS).write_text(json.dumps({"release": release, "python": python}))

    def _make(self, folder: Path, *arguments: str, explain: str, step: Step | None = None) -> Result:
        assert self.tree is not None  # noqa: S101 - missing() has been asked
        downloads = os.environ.get(DOWNLOADS_VARIABLE) or self.workspace.out / "buildroot/dl"
        variables = [
            f"O={folder}",
            f"{DOWNLOADS_VARIABLE}={downloads}",
            f"BR2_EXTERNAL={self.workspace.root}",
            f"MAMORI_RENDERED={folder / _RENDERED}",
        ]
        return run(
            ["make", "-C", self.tree, *variables, *arguments],
            explain=explain,
            env=download_environment(),
            log=folder / "build.log" if step else None,
            on_line=step.line if step else None,
        )

    def _wrong_tree(self, lock: Lock) -> str:
        """What is wrong with the given tree, as the middle of a sentence; empty when nothing is."""
        if self.tree is None:
            return "there is no Buildroot tree here"
        if not (self.tree / ".git").exists() or not (self.tree / "support/kconfig").is_dir():
            return f"{self.tree} is no git checkout of Buildroot"
        commit = _git(self.tree, "rev-parse", "HEAD").strip()
        if commit != lock.commit:
            return f"{self.tree} is at commit {commit}, while {LOCK} asks for {lock.commit}"
        changed = _git(self.tree, "status", "--porcelain").splitlines()
        if changed:
            return f"{self.tree} has local changes ({', '.join(line[3:] for line in changed[:5])}{' …' if changed[5:] else ''})"
        return ""

    def _hashes(self, packages: Mapping[str, Any]) -> Mapping[str, str]:
        assert self.tree is not None  # noqa: S101 - missing() has been asked
        files = {self.tree / name for entry in packages.values() for name in entry.get("hashes", ())}
        return {name: digest for file in sorted(files) for name, digest in parse_hashes(file.read_text()).items()}


def _insist(whose: str, requested: Path, final: Path) -> None:
    lost = check_survival(requested.read_text(), final.read_text())
    if lost:
        listed = "".join(f"\n    {line}" for line in lost)
        raise MamoriError(
            f"{len(lost)} requested line(s) did not survive in the configuration of {whose}:{listed}",
            "a symbol is misspelt, has moved, or depends on another that is not set",
        )


def _git(tree: Path, *arguments: str) -> str:
    return run(["git", "-C", tree, *arguments], explain="check the Buildroot tree").stdout


def _write_licences(folder: Path, target: Path) -> None:
    """NAME-VERSION/FILE for every package, with the same bytes for the same texts."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as file:
                    tar.addfile(entry, file)


def _base_tree(artifact: Artifact) -> BaseTree:
    facts = json.loads((artifact / BaseTree.FACTS).read_text())
    entries = json.loads((artifact / BaseTree.PACKAGES).read_text())
    packages = tuple(Package(**{**entry, "licences": tuple(entry["licences"])}) for entry in entries)
    python = PythonTarget(facts["python"], f"usr/lib/python{facts['python']}/site-packages")
    return BaseTree(artifact, facts["release"], python, packages)

"""Debian trees: packages of one suite, from the mirrors that the host's own apt uses, with apt checking every signature.

Both the tools tree and the debian base are made here. No mirror's address is written anywhere: it is asked of the
host's apt, or of MAMORI_DEBIAN_MIRROR, and does not enter a tree.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware.bases import Package
from firmware.bases.debian_packages import parse_packages
from firmware.process import ToolError, download_environment, run
from mamori.formats.problems import MamoriError

SUITE = "trixie"
"""Debian 13: the release whose tools and packages are measured and pinned."""

OnLine = Callable[[str], None]

MIRROR_VARIABLE = "MAMORI_DEBIAN_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

TIMEOUT_S = 1800.0
"""A tree takes a minute or two; a mirror that has sent nothing of it in half an hour is not going to."""

# What a machine without people does not read. Copyright files stay: the licence manifest is made from them.
PATH_FILTERS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/bash-completion/*",
    "path-exclude=/usr/share/zsh/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
)


@dataclass(frozen=True)
class Mirrors:
    """Where packages come from: the archive, and the security archive if there is one."""

    archive: str
    security: str | None

    def sources(self) -> list[str]:
        """One-line apt sources for the suite."""
        signed = f"[signed-by={KEYRING}]"
        lines = [f"deb {signed} {self.archive} {suite} main" for suite in (SUITE, f"{SUITE}-updates")]
        return lines + ([f"deb {signed} {self.security} {SUITE}-security main"] if self.security else [])


def find_mirrors() -> Mirrors:
    """The mirrors of MAMORI_DEBIAN_MIRROR ("ARCHIVE [SECURITY]"), else those of the host's own apt."""
    given = os.environ.get(MIRROR_VARIABLE, "").split()
    if given:
        return Mirrors(given[0], given[1] if len(given) > 1 else None)
    by_label = _apt_archives()
    if "Debian" not in by_label and os.geteuid() == 0:
        run(["apt-get", "update"], env=download_environment(), explain="fetch apt's package lists")
        by_label = _apt_archives()
    if "Debian" not in by_label:
        raise MamoriError(
            "no Debian mirror: this host's apt has no package lists of the Debian archive",
            f"run `apt-get update`, or set {MIRROR_VARIABLE} to the address of a Debian archive",
        )
    return Mirrors(by_label["Debian"], by_label.get("Debian-Security"))


def _apt_archives() -> dict[str, str]:
    """Archive label to address, of the archives that call themselves Debian's. apt knows labels once it has their lists."""
    listing = run(
        ["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages", "Origin: Debian"],
        explain="ask apt for its mirrors",
    ).stdout
    return dict(line.split("|", 1) for line in sorted(set(listing.splitlines())))


@dataclass(frozen=True)
class Tree:
    """What to put into a tree. `scripts` run on the finished tree, with its path as argument; `outputs` are folders
    of the tree that are handed out before the last script runs."""

    packages: Sequence[str]
    pins: str = ""
    prepare: Path | None = None
    outputs: Sequence[tuple[str, Path]] = ()
    finish: Path | None = None


def make_tree(tree: Tree, tar: Path, *, epoch: int, work: Path, on_line: OnLine) -> tuple[Package, ...]:
    """Write `tar` and return what is in it. `work` is an empty folder for whatever has to lie on disk meanwhile.

    Runs without root where user namespaces work. Raises MamoriError when there is no mirror, or it cannot be used.
    """
    mirrors = find_mirrors()
    (work / "preferences").write_text(tree.pins or "# nothing is pinned\n")
    (work / "facts").mkdir(mode=0o777)
    hooks = [f"--setup-hook=upload {shlex.quote(str(work / 'preferences'))} /etc/apt/preferences.d/mamori-lock"]
    hooks += [f'--customize-hook=sh {shlex.quote(str(script))} "$1"' for script in [tree.prepare] if script]
    hooks += [f"--customize-hook={_FACTS}", f"--customize-hook=sync-out /mamori-facts {shlex.quote(str(work / 'facts'))}"]
    for inside, outside in tree.outputs:
        hooks.append(f"--customize-hook=sync-out {inside} {shlex.quote(str(outside))}")
    hooks.append('--customize-hook=rm -rf "$1/mamori-facts" "$1/etc/apt/preferences.d/mamori-lock"')
    hooks += [f'--customize-hook=sh {shlex.quote(str(script))} "$1"' for script in [tree.finish] if script]
    argv = [
        "mmdebstrap",
        "--variant=essential",
        f"--include={','.join(sorted(tree.packages))}",
        *(f"--dpkgopt={filter_}" for filter_ in PATH_FILTERS),
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Retries "3"',
        "--skip=output/dev",  # /dev is the kernel's, or the sandbox's
        # A tree with a last script of its own is cleaned by that, more thoroughly than mmdebstrap would.
        *(["--skip=cleanup"] if tree.finish else []),
        *hooks,
        SUITE,
        str(tar),
        *mirrors.sources(),
    ]
    try:
        with _own_tmp() as tmp:
            environment = {**download_environment(), "SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(tmp)}
            run(argv, env=environment, on_line=on_line, log=work / "log", timeout_s=TIMEOUT_S, explain="make a Debian tree")
    except ToolError as error:
        raise _explained(error) from None
    return parse_packages((work / "facts/status").read_text(), (work / "facts/index").read_text())


@contextlib.contextmanager
def _own_tmp() -> Iterator[Path]:
    """A temporary folder for one mmdebstrap, which forgets its key ring when it is interrupted early.

    Nothing else in it is removed from here: it is mmdebstrap's, and might have the host's /sys mounted.
    """
    folder = Path(tempfile.mkdtemp(prefix="mamori-"))
    folder.chmod(0o755)  # in a user namespace it is passed through by another user
    try:
        yield folder
    finally:
        for left in folder.glob("mmdebstrap.gpghome.*"):
            shutil.rmtree(left, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


# `apt-cache show` prints the stanza of the signed index for exactly the version that was installed.
_FACTS = (
    'mkdir -m 0777 "$1/mamori-facts" && cp "$1/var/lib/dpkg/status" "$1/mamori-facts/status" && '
    "dpkg-query --admindir=\"$1/var/lib/dpkg\" -W -f '${Package}:${Architecture}=${Version}\\n' "
    '| APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" xargs apt-cache show >> "$1/mamori-facts/index" '
    '&& chmod -R a+rX "$1/mamori-facts"'
)


def _explained(error: ToolError) -> MamoriError:
    """apt's own words first: they name the host that did not answer, the signature that failed, the full disk."""
    words = [line.strip() for line in error.tail if line.lstrip().startswith(("E: ", "Err:", "W: Failed"))]
    text = " ".join(error.tail)
    hint = f"is the mirror reachable from here? {MIRROR_VARIABLE} names another one"
    if "No space left" in text or "not have enough free space" in text:
        hint = "free some room, or put out/ and TMPDIR on a larger disk"
    elif "NO_PUBKEY" in text or "not signed" in text:
        hint = f"the archive's signature did not check against {KEYRING}: is debian-archive-keyring up to date?"
    told = " ".join(dict.fromkeys(words[:3])) or error.ending
    return MamoriError(f"the Debian packages could not be fetched and unpacked: {told}\n    hint: {hint}\n{error}")

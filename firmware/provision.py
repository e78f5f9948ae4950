"""Makes the host ready: names missing Debian packages, and installs them where we are root.

Only the standard library and `firmware.process` are used, because `./inv` calls this before there is a virtual environment.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable

from firmware.host_tools import Purpose, missing
from firmware.process import ToolError, download_environment, run
from mamori.formats.problems import MamoriError

_APT = ("apt-get", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=2")
"""Another apt may be at work (unattended-upgrades): two minutes of patience instead of an error."""


def provide_tools(purposes: Iterable[Purpose], say: Callable[[str], None]) -> None:
    """See that the tools for these purposes are there; MamoriError names each missing one and what it is needed for."""
    tools = missing(purposes)
    for tool in tools:
        say(f"missing: {tool.package} ({tool.needed_for})")
    provide({tool.package for tool in tools}, say)


def provide(packages: Collection[str], say: Callable[[str], None]) -> None:
    """Install Debian packages as root, or raise MamoriError with the one command that does."""
    if not packages:
        return
    names = sorted(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MamoriError(f"these packages are missing: {', '.join(names)}", f"sudo apt-get install {' '.join(names)}")
    environment = download_environment() | {"DEBIAN_FRONTEND": "noninteractive"}
    install = [*_APT, "install", "--yes", "--no-install-recommends", *names]
    say(f"running: apt-get install {' '.join(names)}")
    if not all(_is_listed(name) for name in names):
        run([*_APT, "update"], explain="renew apt's package lists", env=environment)
    try:
        run(install, explain="install system packages", env=environment)
    except ToolError:  # old lists name versions that the mirror no longer has
        run([*_APT, "update"], explain="renew apt's package lists", env=environment)
        run(install, explain="install system packages", env=environment)


def _is_listed(package: str) -> bool:
    policy = run(["apt-cache", "policy", package], explain="look into apt's package lists").stdout
    return "Candidate:" in policy and "Candidate: (none)" not in policy

"""The test runner behind `./inv test`: levels in the order in which a failure is cheapest to understand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from firmware.console import Console
from firmware.host_tools import Purpose, missing
from firmware.provision import provide_tools
from mamori.formats.problems import MamoriError

ROOT = Path(__file__).resolve().parent.parent


class Need(Enum):
    """What a level wants of the machine beside tools; the value is how `doctor` names it."""

    SANDBOX = "sandbox"
    NETWORK = "network namespaces"
    TAP = "tap devices"
    DISK = "disk space"


@dataclass(frozen=True)
class Level:
    """A folder under tests/, and what its tests stand on."""

    name: str
    purposes: frozenset[Purpose] = frozenset()
    needs: tuple[Need, ...] = ()
    needs_image: bool = False
    is_default: bool = True


_BUILD = (Need.SANDBOX, Need.DISK)

LEVELS = (
    Level("repo", frozenset({Purpose.LINT})),
    Level("unit"),
    Level("fuzz"),
    Level("net", frozenset({Purpose.TEST}), (Need.NETWORK,)),
    Level("image", frozenset({Purpose.BUILD}), _BUILD, needs_image=True),
    Level("boot", frozenset({Purpose.BUILD, Purpose.BOOT, Purpose.TEST}), (*_BUILD, Need.NETWORK, Need.TAP), needs_image=True),
    Level("long", frozenset(Purpose), (*_BUILD, Need.NETWORK, Need.TAP), needs_image=True, is_default=False),
)


def test(level: str = "", k: str = "") -> int:
    """Run the levels (comma separated; empty for all but the soaks) and return pytest's exit code.

    A tool that is missing is installed as root. Elsewhere the tests that need it are skipped with the reason, or fail
    where CI is set: see tests/support/need.py.
    """
    import pytest  # slow to import, and of no use to any other verb

    console = Console()
    levels = parse_levels(level)
    _provide(levels, console)
    if any(chosen.needs_image for chosen in levels):
        from firmware import verbs

        verbs.build(recipe="lab")
    folders = [str(ROOT / "tests" / chosen.name) for chosen in levels if (ROOT / "tests" / chosen.name).is_dir()]
    return int(pytest.main([f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}", "-rfEs", "-k", k, *folders]))


def parse_levels(text: str) -> tuple[Level, ...]:
    """The levels that `text` names, cheapest first whatever its order; MamoriError for a name that is none."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    unknown = names - {level.name for level in LEVELS}
    if unknown:
        raise MamoriError(
            f"no such test level: {', '.join(sorted(unknown))}", f"levels are {', '.join(level.name for level in LEVELS)}"
        )
    return tuple(level for level in LEVELS if (level.name in names if names else level.is_default))


def _provide(levels: tuple[Level, ...], console: Console) -> None:
    purposes = frozenset[Purpose]().union(*(level.purposes for level in levels))
    if os.geteuid() == 0:
        provide_tools(purposes, console.tell)
    for tool in missing(purposes):
        console.warn(f"{tool.package} is missing ({tool.needed_for}): what needs it is not tested")

"""Power cuts at random moments of an update, each followed by a real start: the plug is pulled, put in again, and pulled again.

Before each start the disk is looked at, which says what the loader will do; then the real loader has to do it. A box that has come
through to the end, confirmed or back on the old release, is replaced by one from the factory.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware.build import Built, build_image
from firmware.powercut.cycle import READY, STARTING, Lab, begin_update, start_box, start_lab
from firmware.powercut.view import Start, View
from firmware.qemu import Machine, Media
from firmware.variant import build_variant, raise_version
from firmware.workspace import Workspace
from mamori.formats.bootstate import BootState
from mamori.formats.problems import MamoriError

COUNT, QUICK_COUNT = 20, 3

NEWER = "2099.1.0"

KERNEL_RUNS = "EFI stub: "
"""The kernel's first words. A loader that found nothing to start goes on trying, and nobody says this."""

STARTED_WITHIN_S = 180.0
BEFORE_READY_S, AFTER_READY_S = 60.0, 120.0
"""When the plug is pulled: as often before the box is usually ready as after, when it stages, arms or confirms."""

_POLL_S = 0.05


@dataclass
class Tally:
    """What happened; `wrong` are the bricks, in words."""

    seed: int
    kills: int = 0
    boxes: int = 1
    starts: Counter[str] = field(default_factory=Counter)
    killed_in: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        return {
            "kills": self.kills,
            "boxes": self.boxes,
            "bricks": len(self.wrong),
            "wrong": self.wrong,
            "started": dict(self.starts),
            "killed_in": dict(self.killed_in),
            "ended": dict(self.ends),
            "seed": self.seed,
        }


def bench_power_cut(workspace: Workspace, count: int = 0, quick: bool = False) -> dict[str, Any]:
    """Kill a box `count` times; the figures say how many cuts there were, and how many bricks. What happens when depends on
    the machine too, so a seed does not give the same cuts again."""
    count = count or (QUICK_COUNT if quick else COUNT)
    with tempfile.TemporaryDirectory(prefix="mamori-cuts-") as name:
        old = build_image(workspace, "lab")
        newer = build_variant(Path(name) / "newer", lambda root: raise_version(root, NEWER))
        return cut_at_random(workspace, old, newer, Path(name), count, random.SystemRandom().getrandbits(32)).figures()


def cut_at_random(workspace: Workspace, old: Built, newer: Built, folder: Path, count: int, seed: int) -> Tally:
    """Kill a box that is updated from `old` to `newer` again and again; each kill is followed by a start that has to succeed."""
    tally, dice = Tally(seed), random.Random(seed)  # noqa: S311 (no secret)
    (folder / "lab").mkdir()
    with start_lab(workspace, old, newer, folder / "lab") as lab:
        media = lab.prepare(folder / "box")
        while tally.kills < count:
            with workspace.console.step(f"power cut {tally.kills + 1} of {count}"):
                _start_and_kill(lab, media, tally, dice)
            if (end := end_of(View(media.disk, lab.layout, lab.releases).start(), old.image.version)) is not None:
                tally.ends[end] += 1
                _start(lab, media, tally)
                shutil.rmtree(folder / "box")
                media = lab.prepare(folder / "box")
                tally.boxes += 1
        _start(lab, media, tally)
    return tally


def _start_and_kill(lab: Lab, media: Media, tally: Tally, dice: random.Random) -> None:
    predicted = _look(lab, media, tally)
    kill_after_s = dice.uniform(0, BEFORE_READY_S) if dice.random() < 0.5 else None
    with start_box(lab, media) as machine:
        if kill_after_s is not None:
            _run_until(machine, time.monotonic() + kill_after_s)
        else:
            machine.wait_for(READY, STARTED_WITHIN_S * 3)
            if predicted.version == lab.old.image.version:
                begin_update(lab, machine)
            _run_until(machine, time.monotonic() + dice.uniform(0, AFTER_READY_S))
        machine.kill()
        console = machine.console
    tally.kills += 1
    tally.killed_in[moment_of(console)] += 1
    judge(console, predicted, tally, ran=KERNEL_RUNS in console)


def _start(lab: Lab, media: Media, tally: Tally) -> None:
    """A start that is given the time it needs; what does not come up is a brick."""
    predicted = _look(lab, media, tally)
    with start_box(lab, media) as machine:
        try:
            machine.wait_for(READY, STARTED_WITHIN_S * 3)
        except MamoriError as error:
            tally.wrong.append(f"after kill {tally.kills} the box is never ready: {error}")
        machine.kill()
        judge(machine.console, predicted, tally, ran=True)


def _look(lab: Lab, media: Media, tally: Tally) -> Start:
    """What the disk says will happen; what the laboratory would call a fault is one here too."""
    predicted = View(media.disk, lab.layout, lab.releases).start()
    tally.wrong += [f"after kill {tally.kills}: {fault.value}" for fault in predicted.faults]
    return predicted


def judge(console: str, predicted: Start, tally: Tally, *, ran: bool) -> None:
    """Add to the tally what a machine's console says of its start. `ran`: it had the time to start something."""
    started = [part[0] for part in console.split(STARTING)[1:]]
    if not started:
        if ran:
            tally.wrong.append(f"after kill {tally.kills} the loader started nothing")
        return
    tally.starts[started[0]] += 1
    if predicted.slot is None or started[0] != predicted.slot.value:
        tally.wrong.append(f"after kill {tally.kills} slot {started[0]} was started, and {predicted} was expected")


def end_of(start: Start, old_version: str) -> str | None:
    """How the update has ended, None while it has not."""
    state: BootState | None = start.state
    if state is None or state.trial is not None:
        return None
    if start.version != old_version:
        return "confirmed"
    return "rolled back" if state.sequence > 2 else None


def moment_of(console: str) -> str:
    """How far the machine was when the plug was pulled."""
    for words, moment in ((READY, "ready"), (KERNEL_RUNS, "system"), (STARTING, "kernel image")):
        if words in console:
            return moment
    return "firmware or loader"


def _run_until(machine: Machine, moment: float) -> None:
    while time.monotonic() < moment:
        machine.check()
        time.sleep(_POLL_S)

"""Whether KVM really works. A /dev/kvm that opens is not enough: on some nested machines a stock kernel hangs under it,
so one is started, and has to come to its end."""

from __future__ import annotations

import json
import os
from pathlib import Path

from firmware.cache import file_sha256
from firmware.process import ToolError, run
from firmware.recipe import ROOT
from mamori.formats.problems import MamoriError

DEVICE = Path("/dev/kvm")
DEADLINE_S = 10.0
"""Where KVM works, the kernel gives up about its missing root in one or two seconds."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_KERNELS = "cache/*/*/vmlinuz"
_LAST_WORDS = "Kernel panic"


def probe(out: Path = ROOT / "out") -> str:
    """Empty when KVM works, else the reason why not. The answer is kept below `out` until the machine or the kernel changes."""
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return f"{DEVICE} is not ours to open" if DEVICE.exists() else f"{DEVICE} does not exist"
    kernel = max(out.glob(_KERNELS), key=lambda path: path.stat().st_mtime, default=None)
    if kernel is None:
        return f"{DEVICE} is there, but was not tried: it takes the kernel of a build"
    question = f"{_BOOT_ID.read_text().strip()} {file_sha256(kernel)}"
    answers = out / "kvm.json"
    known = _read_answer(answers)
    if known.get("question") != question:
        known = {"question": question, "reason": _try(kernel)}
        answers.write_text(json.dumps(known))
    return str(known["reason"])


def _read_answer(path: Path) -> dict[str, str]:
    try:
        answer = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return answer if isinstance(answer, dict) and "reason" in answer else {}


def _try(kernel: Path) -> str:
    """Start the kernel without a root: it panics, reboots at once, and QEMU leaves instead."""
    argv: list[str | Path] = ["qemu-system-x86_64", "-machine", "q35", "-accel", "kvm", "-cpu", "max", "-m", "256", "-nodefaults"]
    argv += ["-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", kernel, "-append", "console=ttyS0 panic=-1"]
    try:
        output = run(argv, explain="try KVM", timeout_s=DEADLINE_S).stdout
    except ToolError as error:
        said = f" ({error.tail[-1]})" if error.tail else ", without a word"
        return f"a kernel under KVM: {error.ending}{said}"
    except MamoriError as error:
        return error.message
    return "" if _LAST_WORDS in output else "a kernel under KVM ended before it came to look for its root"

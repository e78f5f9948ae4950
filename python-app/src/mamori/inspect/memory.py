"""Which parts a box is large enough for. The units say the same in ConditionMemory=, which a test compares."""

from __future__ import annotations

import os

SCANNER_LEAST_MIB = 1800
"""For clamd, and for the signature engine. A box with 2 GiB has 1937 MiB by the kernel's count, which leaves itself out, and less
where graphics take a share; the next smaller box has 1 GiB."""


def read_memory_mib() -> int:
    """What the kernel shares out. By system call: the units hide /proc/meminfo."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20

"""What can be wrong with a release, chosen when it starts by the serial number on the machine's nameplate."""

from __future__ import annotations

from enum import Enum
from pathlib import Path


class Fault(Enum):
    """`NONE` leaves the image as good as any."""

    NONE = "none"
    INSPECTION_FAILS = "inspection-fails"
    PANIC = "panic"
    HANG = "hang"


_SYSTEM = Path("overlay/lab/usr/lib/systemd/system")

_SCRIPT = """\
#!/bin/sh
case $(cat /sys/class/dmi/id/product_serial) in
inspection-fails) exec 2>/dev/kmsg; mkdir -p /run/systemd/system/mamori-inspect.service.d
    printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' >/run/systemd/system/mamori-inspect.service.d/90-fault.conf
    systemctl daemon-reload ;;
panic) echo c >/proc/sysrq-trigger ;;
hang) busctl set-property org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \\
        RuntimeWatchdogUSec t 10000000
    echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze ;;
esac
exit 0
"""

_UNIT = """\
[Unit]
Description=The fault of a test
After=basic.target dbus.socket
Before=mamori-inspect.service

[Service]
Type=oneshot
ExecStart=/usr/lib/mamori-lab/fault
"""


def make_faulty(root: Path) -> None:
    """Give the checkout's lab image a unit with the faults."""
    script = root / "overlay/lab/usr/lib/mamori-lab/fault"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    (root / _SYSTEM / "lab-fault.service").write_text(_UNIT)
    link = root / _SYSTEM / "multi-user.target.wants/lab-fault.service"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("../lab-fault.service")

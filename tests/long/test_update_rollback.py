"""A release that is no good is left by itself, reported, and not tried again: each way takes minutes of a real box."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mamori.formats.bootstate import Slot
from tests.boot.test_update import ARMED, ArmedBox, starts, update_status
from tests.support.disk import read_states, write_state
from tests.support.faulty import Fault
from tests.support.machine import READY, Box, start_again, wait_until_ready
from tests.support.wait import check_until, patience_s

pytestmark = pytest.mark.timeout(1500)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.INSPECTION_FAILS, id="its inspection does not run"),
        pytest.param(Fault.PANIC, id="its kernel panics"),
        pytest.param(Fault.HANG, id="it hangs"),
    ],
)
def test_a_release_that_does_not_work_is_left_by_itself_and_not_tried_again(armed: ArmedBox, tmp_path: Path, fault: Fault) -> None:
    """A gate that fails ends all tries. Of a panic and a hang the box knows nothing afterwards: they spend one try each, and the
    last one is seen here."""
    media, layout = armed.copy(tmp_path), armed.old.image.layout
    if fault is not Fault.INSPECTION_FAILS:
        last_try = replace(ARMED, tries=1)
        write_state(media.disk, layout, last_try, last_try)
    with start_again(armed.old, media, office=armed.office, serial_number=fault.value) as machine:
        machine.wait_for(f"{READY}{armed.old.image.version}", patience_s(900))
        with wait_until_ready(armed.old, machine, media, armed.office) as box:
            status = wait_for_idle(box)
            assert [(outcome["version"], outcome["result"]) for outcome in status["history"]] == [
                (armed.newer.image.version, "rolled back")
            ]
            if fault is Fault.INSPECTION_FAILS:
                assert "inspect" in status["history"][0]["reason"]
            box.host.check_output("mamori update check")
            check_until("the repository was asked", lambda: update_status(box)["checked_at"], within_s=60)
            assert update_status(box)["phase"] == "idle", "it is offered still, and not taken"
            machine.kill()
        # On a host with too much to do the watchdog bites while a slot starts: that of the old slot starts the old slot again.
        first, *others = starts(machine)
        assert (first, set(others)) == ("b", {"a"})
    found = read_states(media.disk, layout)
    assert {(state.confirmed, state.trial) for state in found} == {(Slot.A, None)}


def wait_for_idle(box: Box) -> dict[str, Any]:
    check_until("the way back is written down", lambda: update_status(box).get("phase") == "idle", within_s=120)
    return update_status(box)

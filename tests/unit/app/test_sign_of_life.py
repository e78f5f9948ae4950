"""Whoever loads rules for long is still known to live."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mamori.formats.release import Bridge
from mamori.inspect import service
from mamori.paths import Device


def test_a_sign_of_life_goes_to_the_service_manager_and_not_more_often_than_is_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(service.time, "monotonic", lambda: now[0])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        world = service._World(Device(tmp_path), Bridge("br0", ("wan", "lan")), str(tmp_path / "notify"), lambda *_: None, None)
        alive = service._sign_of_life(world)
        for at in (100.0, 100.1, 104.9, 105.0, 109.0, 130.0):
            now[0] = at
            alive()
        said = []
        while True:
            try:
                said.append(manager.recv(100))
            except BlockingIOError:
                break
    assert said == [b"WATCHDOG=1"] * 3

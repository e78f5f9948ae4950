"""The one door to other programs on the device: an argument list, a clean environment, a deadline, an error that can be read."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

from mamori.formats.problems import MamoriError

TOOL_TIMEOUT_S = 20.0
"""A rule set of ten thousand addresses takes nft a second on slow hardware; a kernel lock held by another tool some more."""

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_SHOWN_LINES = 5


def run_tool(argv: Sequence[str], *, input: bytes = b"", explain: str, timeout_s: float = TOOL_TIMEOUT_S) -> bytes:
    """What a tool prints; MamoriError with its last words if it fails or takes too long."""
    try:
        done = subprocess.run(
            list(argv),
            input=input,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError:
        raise MamoriError(f"{explain}: {argv[0]} is not installed") from None
    except OSError as error:  # not to be executed, no memory for another process
        raise MamoriError(f"{explain}: {argv[0]} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise MamoriError(f"{explain}: {argv[0]} did not end within {timeout_s:g} s") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:]
        raise MamoriError(f"{explain}: {argv[0]} failed with exit code {done.returncode}: {' / '.join(words)}")
    return done.stdout


def try_tool(argv: Sequence[str], *, timeout_s: float, explain: str) -> tuple[int, str]:
    """A tool whose answer is its exit code and what it says, both streams as they came; MamoriError if it does not come to that."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        raise MamoriError(f"{explain}: {argv[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise MamoriError(f"{explain}: {argv[0]} did not end within {timeout_s:g} s") from None
    return done.returncode, done.stdout.decode(errors="replace")


class Child:
    """A process of ours that runs beside; it inherits our standard error and what `stdin` names, and nothing else."""

    def __init__(self, argv: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> None:
        self._process = subprocess.Popen(list(argv), stdin=stdin, env=dict(os.environ))

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; -N when signal N ended it."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.kill()

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within that time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

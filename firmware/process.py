"""The one door to the outside world: every program that the host side starts, starts here.

A tool gets an argument list and a clean environment, so that what it does depends on what is written in the project and
not on the shell of the day. It leads a session of its own: Ctrl-C reaches us alone, and we end the whole session in order,
so that an interrupted build leaves no process behind; should we be killed outright, the kernel ends the tool for us.
When a tool fails, its last words and a command line to paste are in the error.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from firmware import host_tools
from mamori.formats.problems import MamoriError

Argument = str | Path
File = int | IO[bytes] | None

PIPE = subprocess.PIPE
CAPTURE_LIMIT_BYTES = 64 * 1024 * 1024
"""Answers that we parse are a few MiB at most; what is longer belongs in a log."""
GRACE_S = 5.0
"""From SIGTERM to SIGKILL: mmdebstrap and QEMU clean up in under a second, on a busy machine in two or three."""
TAIL_LINES = 20

_LINE_LIMIT_BYTES = 64 * 1024  # a tool that never ends its line must not grow our memory
_KILL_WAIT_S = 5.0  # a process in uninterruptible sleep outlives SIGKILL for a while; we do not wait for ever
_POLL_S = 0.02
_SYSTEM_PATHS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")  # users lack the sbin half
_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])|[\x00-\x08\x0b-\x1f\x7f]")
_SECRET_NAME = re.compile(r"(^|_)PIN$|PASS|SECRET|TOKEN", re.IGNORECASE)
_DOWNLOAD_VARIABLES = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"),
)


class ToolError(MamoriError):
    """A program failed: what it was needed for, how it ended, its last lines, and the command to try by hand."""

    def __init__(self, explain: str, ending: str, tail: Sequence[str], command: str) -> None:
        self.explain, self.ending, self.tail, self.command = explain, ending, tuple(tail), command
        output = "".join(f"\n    | {line}" for line in tail)
        super().__init__(f"{explain}: {ending}{output}\n    command: {command}")


@dataclass(frozen=True)
class Result:
    """How a program ended and what it wrote, as bytes; `stdout` and `stderr` are the same as text."""

    code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    command: str

    @property
    def stdout(self) -> str:
        return self._text(self.stdout_bytes)

    @property
    def stderr(self) -> str:
        return self._text(self.stderr_bytes)

    def _text(self, captured: bytes) -> str:
        if len(captured) > CAPTURE_LIMIT_BYTES:
            raise MamoriError(f"more than the {CAPTURE_LIMIT_BYTES} bytes that an answer may have came from: {self.command}")
        return captured.decode(errors="replace")


class Running:
    """A program that `start` started and will end. `stdin` and `stdout` are files where `PIPE` was asked for."""

    def __init__(self, child: subprocess.Popen[bytes], explain: str, command: str, log: Path | None) -> None:
        self._child, self._explain, self._command, self._log = child, explain, command, log
        self.pid = child.pid
        self.stdin, self.stdout = child.stdin, child.stdout

    @property
    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._child.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code once it has ended; TimeoutError when it has not in `timeout_s` seconds."""
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self._explain}: still running after {timeout_s} s") from None

    def check(self) -> None:
        """ToolError if it has ended: for loops that wait for what it should bring about."""
        if self.code is not None:
            log = self._log.read_text(errors="replace") if self._log else ""
            lines = log.rpartition(f"$ {self._command}\n")[2].splitlines()
            raise ToolError(self._explain, _ending(self.code), [printable(line) for line in lines[-TAIL_LINES:]], self._command)


def run(
    argv: Sequence[Argument],
    *,
    explain: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout_s: float | None = None,
    accept: Collection[int] = (0,),
) -> Result:
    """Run a program to its end; ToolError when its exit code is not in `accept` or `timeout_s` seconds were not enough.

    `explain` says what is being done, for the error ("make the root file system"). `env` is added to the clean
    environment. Output is kept in memory, appended to `log`, and given line by line to `on_line`, where stdout and
    stderr are mixed as they come. Whatever happens, no process of its session is left when this returns.
    """
    command = shown_command(argv, cwd, env)
    with contextlib.ExitStack() as stack:
        stdin: File = subprocess.DEVNULL
        if input is not None:
            stdin = stack.enter_context(tempfile.TemporaryFile())  # unlike a pipe, it cannot deadlock
            stdin.write(input)
            stdin.seek(0)
        output = _Output(stack.enter_context(_open_log(log, command)) if log else None, on_line)
        child = stack.enter_context(_spawn(argv, explain, cwd, env, stdin, PIPE, PIPE))
        stack.callback(_end_session, child.pid)  # before the wait in Popen.__exit__: until then the session's number is ours
        if not _pump(child, output, timeout_s):
            raise ToolError(explain, f"not done after {timeout_s:g} s", output.tail, command)
    if child.returncode not in accept:
        raise ToolError(explain, _ending(child.returncode), output.tail, command)
    return Result(child.returncode, bytes(output.stdout.captured), bytes(output.stderr.captured), command)


@contextlib.contextmanager
def start(
    argv: Sequence[Argument],
    *,
    explain: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    stdin: File = subprocess.DEVNULL,
    stdout: File = None,
    pass_fds: Collection[int] = (),
    foreground: bool = False,
) -> Iterator[Running]:
    """A program that runs as long as the `with` block, and is ended with its whole session when the block is left.

    Its output is appended to `log`, where one is given; `stdout` takes it elsewhere, `PIPE` to `Running.stdout`. A program
    that wants the terminal (QEMU's serial console) is started in the `foreground`: it has our terminal and process group,
    so Ctrl-C reaches it too, and only it is ended. Start it from a thread that outlives it: the kernel ends it with that thread.
    """
    command = shown_command(argv, cwd, env)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(_open_log(log, command)) if log else subprocess.DEVNULL
        if foreground:
            child = stack.enter_context(_spawn(argv, explain, cwd, env, None, stdout, None, pass_fds, own_session=False))
            stack.callback(_end_child, child)
        else:
            child = stack.enter_context(_spawn(argv, explain, cwd, env, stdin, sink if stdout is None else stdout, sink, pass_fds))
            stack.callback(_end_session, child.pid)
        yield Running(child, explain, command, log)


def download_environment() -> dict[str, str]:
    """The host's own proxy and certificate settings, for the few tools that fetch something (apt, git)."""
    return {name: os.environ[name] for name in _DOWNLOAD_VARIABLES if name in os.environ}


def shown_command(argv: Sequence[Argument], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """The command line to paste into a shell. Secrets stand as references, what the shell has anyway is left out."""
    added = {name: value for name, value in (env or {}).items() if os.environ.get(name) != value}
    words = [f'{name}="${name}"' if _SECRET_NAME.search(name) else f"{name}={shlex.quote(value)}" for name, value in added.items()]
    line = " ".join([*words, shlex.join(map(str, argv))])
    return f"(cd {shlex.quote(str(cwd))} && {line})" if cwd else line


def printable(line: str) -> str:
    """The line without terminal control sequences."""
    return _CONTROL.sub("", line)


def search_path() -> str:
    """PATH with the system's folders at its end, so that `ip` and `nginx` are found for users too."""
    given = os.environ.get("PATH", "").split(":")
    return ":".join([*filter(None, given), *(path for path in _SYSTEM_PATHS if path not in given)])


class _Stream:
    """One pipe of a tool: what it wrote, and the line that has not ended yet."""

    def __init__(self) -> None:
        self.captured = bytearray()
        self._open_line = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes. A carriage return ends a line too: progress meters use it."""
        self.captured += data[: CAPTURE_LIMIT_BYTES + 1 - len(self.captured)]
        *lines, self._open_line = re.split(rb"[\r\n]+", self._open_line + data)
        if len(self._open_line) > _LINE_LIMIT_BYTES or (not data and self._open_line):
            lines.append(self._open_line)
            self._open_line = b""
        return [printable(line.decode(errors="replace")) for line in lines if line]


class _Output:
    """Both pipes of a tool, and where their lines go."""

    def __init__(self, log: IO[bytes] | None, on_line: Callable[[str], None] | None) -> None:
        self.stdout, self.stderr = _Stream(), _Stream()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._log, self._on_line = log, on_line

    def feed(self, stream: _Stream, data: bytes) -> None:
        for line in stream.feed(data):
            self.tail.append(line)
            if self._log:
                self._log.write(line.encode() + b"\n")
            if self._on_line:
                self._on_line(line)


def _pump(child: subprocess.Popen[bytes], output: _Output, timeout_s: float | None) -> bool:
    """Read both pipes until the program has ended; False when the time ran out first.

    The end of the *program* counts, not that of its pipes: a daemon that it left behind may hold them open for ever.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    ended, pidfd = False, os.pidfd_open(child.pid)
    with selectors.DefaultSelector() as selector, contextlib.closing(os.fdopen(pidfd, "rb", buffering=0)) as exit_event:
        selector.register(exit_event, selectors.EVENT_READ)
        for pipe, stream in ((child.stdout, output.stdout), (child.stderr, output.stderr)):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ, stream)
        while selector.get_map():
            remaining_s = None if deadline is None else deadline - time.monotonic()
            if remaining_s is not None and remaining_s <= 0:
                return ended
            ready = selector.select(0 if ended else remaining_s)
            if ended and not ready:
                break
            for key, _ in ready:
                if key.data is None:
                    ended, deadline = True, time.monotonic() + GRACE_S  # what is in the pipes now is all that we want
                    _end_session(child.pid)  # or a noisy child of its would keep them filled until the deadline
                    selector.unregister(exit_event)
                elif data := os.read(key.fd, 65536):
                    output.feed(key.data, data)
                else:
                    selector.unregister(key.fileobj)
    for stream in (output.stdout, output.stderr):
        output.feed(stream, b"")
    return True


def _spawn(
    argv: Sequence[Argument],
    explain: str,
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdin: File,
    stdout: File,
    stderr: File,
    pass_fds: Collection[int] = (),
    own_session: bool = True,
) -> subprocess.Popen[bytes]:
    words = [str(word) for word in argv]
    words[0] = _find(words[0], explain)
    # setpriv execs the tool after PR_SET_PDEATHSIG: what a preexec_fn would do, without running Python after a fork.
    setpriv = shutil.which("setpriv", path=search_path())
    tie = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
    try:
        return subprocess.Popen(
            [*tie, *words],
            cwd=cwd,
            env=_environment(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            start_new_session=own_session,
        )
    except OSError as error:
        raise MamoriError(f"{explain}: {error.strerror}: {error.filename}\n    command: {shown_command(argv, cwd, env)}") from None


def _find(program: str, explain: str) -> str:
    found = shutil.which(program, path=search_path())
    if found is None:
        raise MamoriError(f"{explain}: {program} is not on this machine", host_tools.install_hint(program))
    return found


def _environment(added: Mapping[str, str] | None) -> dict[str, str]:
    clean = {"PATH": search_path(), "LANG": "C.UTF-8", "TZ": "UTC", "HOME": str(Path.home())}
    if "TMPDIR" in os.environ:  # where there is room is a fact of the machine
        clean["TMPDIR"] = os.environ["TMPDIR"]
    return clean | dict(added or {})


def _open_log(log: Path, command: str) -> IO[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    file = log.open("ab", buffering=0)
    file.write(f"$ {command}\n".encode())
    return file


def _end_session(leader: int) -> None:
    """SIGTERM to whoever is left in the leader's session, SIGKILL after the grace period; returns when nobody is left."""
    for kind, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, _KILL_WAIT_S)):
        deadline = time.monotonic() + wait_s
        for pid in _members(leader):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, kind)
                os.kill(pid, signal.SIGCONT)  # a stopped process does not notice SIGTERM
        while _members(leader) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _members(session: int) -> list[int]:
    """Process ids in the session, zombies left out. proc(5): after the name stand state, parent, group, session."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, _group, of_session = stat.read_text(errors="replace").rpartition(") ")[2].split()[:4]
            if int(of_session) == session and state not in "ZX":
                members.append(int(stat.parent.name))
    return members


def _end_child(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_S)
        return
    child.kill()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}{' (out of memory?)' if code == -signal.SIGKILL else ''}"

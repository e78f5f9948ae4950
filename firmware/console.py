"""What people see: the only module of the host side that prints, and the only one that decides exit codes.

Progress goes to stderr, answers go to stdout, so that `--json` can be piped while a build reports its steps. On a terminal
the running step is one live line; anywhere else (CI, a file, a dumb terminal) there are plain lines without control
characters. NO_COLOR takes the colours away.
"""

from __future__ import annotations

import errno
import functools
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any, NoReturn, ParamSpec, TextIO

from rich.console import Console as Terminal
from rich.live import Live
from rich.text import Text

from firmware.process import printable
from mamori.formats.problems import MamoriError

P = ParamSpec("P")

EXIT_BUG, EXIT_PROBLEM, EXIT_INTERRUPTED = 1, 2, 130

_REFRESHES_PER_S = 8
_NAME_COLUMNS = 24


class Step:
    """One named piece of work: a live line while it runs, one line for the record when it is over."""

    def __init__(self, name: str, console: Console) -> None:
        self._name, self._console = name, console
        self._started, self._note, self._line, self._cached, self._announced = time.monotonic(), "", "", False, False

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def note(self, text: str) -> None:
        """A detail worth keeping beside the name, such as "412 packages"."""
        self._note = printable(text)

    def line(self, text: str) -> None:
        """The latest line of a tool: fits `on_line` of `firmware.process.run`."""
        self._line = printable(text).strip()
        if not self._announced:
            self._announced = True  # where lines are plain, only a step that really works for a while says that it began
            self._console._on_work(self._name)
        self._console._on_tool_line(self._line)

    def cached(self) -> None:
        """Nothing had to be done."""
        self._cached = True

    def _live(self) -> Text:
        clock = f" {self.elapsed_s:6.1f} s"
        text = Text.assemble((f"{self._name:<{_NAME_COLUMNS}}", "bold"), clock, no_wrap=True, overflow="ellipsis")
        if self._note:
            text.append(f"  {self._note}")
        return text.append(f"  {self._line}", "dim")

    def _record(self, succeeded: bool) -> Text:
        text = Text(f"{self._name:<{_NAME_COLUMNS}} ")
        if self._cached and succeeded:
            text.append("cached", "dim")
        else:
            text.append("✓" if succeeded else "✗", "green" if succeeded else "bold red").append(f" {self.elapsed_s:.1f} s")
        return text.append(f"  {self._note}") if self._note else text


class Console:
    """`verbose` shows every line of every tool. The streams are where answers and progress go."""

    def __init__(self, verbose: bool = False, stream: TextIO | None = None, progress: TextIO | None = None) -> None:
        self.verbose = verbose
        self._out = Terminal(file=stream or sys.stdout, highlight=False, soft_wrap=True)
        self._err = Terminal(file=progress or sys.stderr, highlight=False, soft_wrap=True)
        self._is_live = self._err.is_terminal and not self._err.is_dumb_terminal and not verbose
        self._steps: list[Step] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """A step that lasts as long as the `with` block; steps inside steps take over the live line while they run."""
        step = Step(name, self)
        outermost = not self._steps
        self._steps.append(step)
        succeeded = False
        try:
            with self._live() if outermost else nullcontext():
                yield step
            succeeded = True
        finally:
            self._steps.remove(step)
            self._err.print(step._record(succeeded))

    def say(self, text: str) -> None:
        """An answer, on stdout."""
        self._out.print(Text(text))

    def tell(self, text: str) -> None:
        """News that belongs to the progress, on stderr."""
        self._err.print(Text(text))

    def warn(self, text: str) -> None:
        self._err.print(Text.assemble(("warning: ", "bold yellow"), text))

    def error(self, text: str) -> None:
        self._err.print(Text.assemble(("error: ", "bold red"), text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Columns as wide as their widest cell, without frames, so that lines can be cut and grepped."""
        cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for number, row in enumerate(cells):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self._out.print(Text(line, "bold" if number == 0 else ""))

    def json(self, value: Mapping[str, Any] | Sequence[Any]) -> None:
        """One JSON document on stdout, and nothing else should go there."""
        self._out.print(Text(json.dumps(value, indent=2, ensure_ascii=False)))

    def _live(self) -> AbstractContextManager[object]:
        if not self._is_live:
            return nullcontext()
        render = lambda: self._steps[-1]._live() if self._steps else Text()  # noqa: E731
        return Live(get_renderable=render, console=self._err, transient=True, refresh_per_second=_REFRESHES_PER_S)

    def _on_work(self, name: str) -> None:
        if not self._is_live:
            self.tell(f"{name} …")

    def _on_tool_line(self, line: str) -> None:
        if self.verbose:
            self._err.print(Text(f"  {line}", "dim"))


def guarded(verb: Callable[P, int | None]) -> Callable[P, None]:
    """The exit code of a verb: its own, 2 and a text for what people can mend, 130 for Ctrl-C, 1 and a traceback for a bug."""

    @functools.wraps(verb)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        for kind in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(kind, _stop)
        try:
            code = verb(*args, **kwargs)
        except MamoriError as error:
            Console().error(str(error))
            code = EXIT_PROBLEM
        except KeyboardInterrupt:
            Console().tell("interrupted")
            code = EXIT_INTERRUPTED
        except Exception as error:  # the last line of defence shows the bug and says so
            code = EXIT_PROBLEM if _is_full_disk(error) else EXIT_BUG
            if code == EXIT_BUG:
                traceback.print_exc()
            else:
                hint = "free some room, or put out/ on a larger disk; what was there before is untouched"
                Console().error(f"{error}\n    hint: {hint}")
        if code:
            sys.exit(code)

    return wrapper


def _is_full_disk(error: Exception) -> bool:
    """Any write may meet it, so it is told here once."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """A polite kill leaves through the same `finally` blocks as everything else."""
    sys.exit(128 + number)

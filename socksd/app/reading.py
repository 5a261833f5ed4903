"""Access logs, line by line, with a bar on the terminal that shows how far it is."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TextIO

_LOOK = 4096  # lines between two looks at the clock
_REDRAW = 0.1  # seconds
_WIDTH = 30
_MIB = 1024 * 1024


def lines_of(paths: Sequence[str]) -> Iterator[str]:
    """
    Give the lines of files, one after the other; "-" is the standard input.

    Octets are taken for characters, for the log is ASCII; whatever else a line
    holds, it is read.

    Raises:
        SystemExit: One cannot be read, and why.
    """
    total = sum(map(_size, paths))
    progress = Progress(sys.stderr, total) if total >= _MIB and sys.stderr.isatty() else None
    for path in paths:
        try:
            file = 0 if path == "-" else path
            with open(file, encoding="latin-1", newline="\n", closefd=file != 0) as lines:
                yield from lines if progress is None else progress.through(lines)
        except OSError as error:
            raise SystemExit(f"socksd: cannot read {path}: {error.strerror}") from error
    if progress is not None:
        progress.clear()


def _size(path: str) -> int:
    """Give the octets of a regular file; 0 where that cannot be known."""
    try:
        status = os.stat(0 if path == "-" else path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


class Progress:
    """
    A bar that is drawn over itself, ten times a second at most.

    Args:
        terminal: Where to draw.
        total: How many octets there will be.
        clock: Gives seconds.
    """

    def __init__(
        self, terminal: TextIO, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._terminal = terminal
        self._total = total
        self._done = 0
        self._clock = clock
        self._redraw_from = clock() + _REDRAW

    def through(self, lines: Iterable[str]) -> Iterator[str]:
        """Give the lines on, and show how many octets they were."""
        for number, line in enumerate(lines, 1):
            self._done += len(line)
            if not number % _LOOK and self._clock() >= self._redraw_from:
                self._draw()
            yield line

    def clear(self) -> None:
        """Leave the line as it was."""
        self._terminal.write("\r\x1b[K")
        self._terminal.flush()

    def _draw(self) -> None:
        part = min(self._done / self._total, 1.0)  # a log may grow while it is read
        bar = "#" * int(part * _WIDTH)
        of = f"{self._done / _MIB:.0f} of {self._total / _MIB:.0f} MiB"
        self._terminal.write(f"\r[{bar:<{_WIDTH}}] {part:4.0%}  {of}\x1b[K")
        self._terminal.flush()
        self._redraw_from = self._clock() + _REDRAW

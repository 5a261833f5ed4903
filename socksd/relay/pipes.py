"""Pipes for splice(2): a bounded number, lent out only while octets are in flight."""

from __future__ import annotations

import fcntl
import os
import resource
from pathlib import Path
from typing import NamedTuple

SIZE = 1 << 20  # octets a pipe takes; /proc/sys/fs/pipe-max-size, unless somebody has lowered it

_MOST = 64
_IDLE = 8  # pipes kept for the next to come; a pipe that is not in use holds no page

# What all pipes of one user may hold together, in pages, unless privileged
# (pipe(7)). Pipes above it are made too small to be of use.
_PAGES = Path("/proc/sys/fs/pipe-user-pages-soft")


class Pipe(NamedTuple):
    """The descriptors of a pipe, both non-blocking."""

    out: int  # to read from
    into: int  # to write to


class Pipes:
    """
    The pipes of a process.

    Args:
        most: How many there are at the same time. They are what bulk may hold
            of the kernel's memory, 1 MiB each.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._made = 0
        self._idle: list[Pipe] = []

    def take(self) -> Pipe | None:
        """Lend an empty pipe; ``None`` where the bound, descriptors or memory forbid it."""
        if self._idle:
            return self._idle.pop()
        if self._made >= self._most:
            return None
        try:
            pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:  # EMFILE, ENFILE
            return None
        try:
            fcntl.fcntl(pipe.into, fcntl.F_SETPIPE_SZ, SIZE)
        except OSError:  # EPERM: more than the user's share; ENOMEM
            _close(pipe)
            return None
        self._made += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take an empty pipe back."""
        if len(self._idle) < _IDLE and self._made <= self._most:
            self._idle.append(pipe)
        else:
            self.discard(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Take a pipe back with what is in it."""
        self._made -= 1
        _close(pipe)

    def close(self) -> None:
        """Close those that are not lent out, and lend no more."""
        self._most = 0
        while self._idle:
            self.discard(self._idle.pop())


def affordable(pages: Path = _PAGES) -> int:
    """
    Tell how many pipes this process may well have.

    Three quarters of the user's share of pages, which is not ours alone, and
    a 32nd of the descriptors.
    """
    try:
        share = int(pages.read_text()) * resource.getpagesize()
    except (OSError, ValueError):
        share = 0
    by_pages = share * 3 // 4 // SIZE if share else _MOST  # 0: there is no bound
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(_MOST, by_pages, descriptors // 64)


def _close(pipe: Pipe) -> None:
    os.close(pipe.out)
    os.close(pipe.into)

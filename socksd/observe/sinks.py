"""The standard output, for writing without ever waiting for who reads it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Sequence
from select import PIPE_BUF
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from socksd.events import Event, SessionClosed
from socksd.observe.batch import Batch

_log = Logger("socksd")

BACKLOG: Final = 1 << 20  # octets that wait for a reader
AGAIN: Final = 0.05  # seconds until they are offered once more
STANDARD_OUTPUT: Final = 1


class Outflow:
    """
    A text file on a descriptor that is a pipe, a socket or a terminal, or anything.

    What the far side does not take at once is kept and offered again. When too
    much waits, or on any trouble, lines are counted and gone. That is said
    once; and once more when lines are written again.

    Nothing is done with the descriptor before the first line: twistd may still
    become a daemon, which shall hold nobody's terminal.

    Attributes:
        lost: How many lines could not be written.
    """

    encoding = "utf-8"

    def __init__(self, descriptor: int, clock: IReactorTime) -> None:
        self.lost = 0
        self._clock = clock
        self._waiting = bytearray()
        self._again: IDelayedCall | None = None
        self._troubled = False  # and it has been said
        self._descriptor = descriptor
        self._far: _Far | None = None

    def write(self, text: str) -> int:
        """Write whole lines, as far as they are taken."""
        octets = text.encode("utf-8", "backslashreplace")
        if len(self._waiting) + len(octets) > BACKLOG:
            self._lose(octets, "nobody reads it")
        else:
            self._waiting += octets
            if self._again is None:
                self._offer()
        return len(text)

    def flush(self) -> None:
        """Nothing waits here but for the reader."""

    def close(self) -> None:
        """Offer what waits once more, and leave no delayed call behind."""
        if self._again is not None:
            self._again.cancel()
            self._offer()
        if self._again is not None:
            self._again.cancel()
            self._lose(self._waiting, "nobody reads it")
        if self._far is not None:
            self._far.close()

    def _offer(self) -> None:
        self._again = None
        if self._far is None:
            self._far = _far(self._descriptor)
        try:
            while self._waiting:
                # A pipe takes so much whole or not at all, and others write there, too.
                some = self._waiting[:PIPE_BUF]
                some = some[: some.rfind(b"\n") + 1] or some
                del self._waiting[: self._far.send(some)]
        except BlockingIOError:
            self._again = self._clock.callLater(AGAIN, self._offer)
            return
        except OSError as error:
            waiting, self._waiting = self._waiting, bytearray()
            self._lose(waiting, error.strerror or str(error))
            return
        if self._troubled:
            self._troubled = False
            _log.info("standard output: written again; lines lost so far: {lost}", lost=self.lost)

    def _lose(self, octets: bytes | bytearray, reason: str) -> None:
        self.lost += octets.count(b"\n")
        if not self._troubled:
            self._troubled = True
            _log.error(
                "standard output: {reason}; lines are lost until it can be written again",
                reason=reason,
            )


class OutputLog:
    """
    Write a line to the standard output for every session that ends, within a tenth of a second.

    Args:
        line: Writes a session, in ASCII and without the newline.
    """

    hears = (SessionClosed,)

    def __init__(self, clock: IReactorTime, line: Callable[[SessionClosed], str]) -> None:
        self._clock = clock
        self._batch = Batch(clock, line, self._write)
        self._out: Outflow | None = None

    @property
    def lost(self) -> int:
        """How many lines could not be written."""
        return 0 if self._out is None else self._out.lost

    def open(self) -> None:
        """Begin."""
        # Not sys.stdout, which is twistd's log by now.
        self._out = Outflow(STANDARD_OUTPUT, self._clock)

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if self._out is not None and isinstance(event, SessionClosed) and event.logged:
            self._batch.add(event)

    def close(self) -> None:
        """Write no more than what waits."""
        self._batch.flush()
        if self._out is not None:
            self._out.close()

    def _write(self, lines: Sequence[str]) -> None:
        assert self._out is not None  # without it nothing is gathered
        self._out.write("\n".join((*lines, "")))


class _Far(Protocol):
    """What is behind a descriptor."""

    def send(self, octets: bytearray) -> int:
        """Write what can be now; raises BlockingIOError where that is nothing."""

    def close(self) -> None:
        """Let go of it."""


class _Shared:
    """What is written to by the descriptor itself, which is not ours to close."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, octets: bytearray) -> int:
        return os.write(self._descriptor, octets)

    def close(self) -> None: ...


class _Own(_Shared):
    """What was opened anew, for O_NONBLOCK to be ours alone."""

    def close(self) -> None:
        os.close(self._descriptor)


class _Socket:
    """A socket, to which a single write can be told not to wait."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self.close = self._socket.close

    def send(self, octets: bytearray) -> int:
        return self._socket.send(octets, socket.MSG_DONTWAIT)


def _far(descriptor: int) -> _Far:
    """
    Give what never waits for who is behind a descriptor.

    O_NONBLOCK would hold for everybody who shares the descriptor, as the shell
    does its terminal; so what there is behind it is opened anew. A file is
    never waited for, and its position is shared with who writes there as well.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            return _Socket(descriptor)
        if not stat.S_ISREG(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return _Own(os.open(f"/proc/self/fd/{descriptor}", flags))
    except OSError:  # it is closed, or somebody else's: then as it is
        pass
    return _Shared(descriptor)

"""Signals of the process, as calls in a turn of the reactor."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads


class Early:
    """
    The handler of a signal that nobody listens to yet: remembers that it came.

    Left to itself it would end a process that has not got so far.
    """

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Catch it."""
        self.came = True


class OnSignal:
    """
    Make a call for a signal, in a turn of the reactor.

    A signal comes between any two instructions; several that come before the
    call is made are one.

    Args:
        shared: Whether who has listened before still hears it, as twistd, which
            rotates its log by SIGUSR1.
    """

    def __init__(
        self,
        number: int,
        reactor: IReactorFromThreads,
        call: Callable[[], object],
        *,
        shared: bool = False,
    ) -> None:
        self._number = number
        self._reactor = reactor
        self._call = call
        self._shared = shared
        self._before: Any = None
        self._waits = False

    def start(self) -> None:
        """Listen, and hear what came too early."""
        self._before = signal.signal(self._number, self._caught)
        if isinstance(self._before, Early) and self._before.came:
            self._before.came = False
            self._wait()

    def stop(self) -> None:
        """Leave the signal to who had it before."""
        signal.signal(self._number, self._before or signal.SIG_DFL)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._shared and callable(self._before):
            self._before(number, frame)
        self._wait()

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._reactor.callFromThread(self._tell)

    def _tell(self) -> None:
        self._waits = False
        self._call()

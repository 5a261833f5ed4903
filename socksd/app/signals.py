"""Signals of the process, as calls in a turn of the reactor."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
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


class Insistence:
    """
    Make a call for every one of some signals but the first.

    The first is left to who had the signal before, for the end of the reactor by
    Twisted's own handler is also what the process ends with. That one cannot be
    called twice: it would stop what is stopped already, and log a traceback.
    """

    def __init__(
        self, numbers: Sequence[int], reactor: IReactorFromThreads, call: Callable[[], object]
    ) -> None:
        self._begun = False
        self._numbers = numbers
        self._reactor = reactor
        self._call = call
        self._before: dict[int, Any] = {}

    def start(self) -> None:
        """Listen."""
        for number in self._numbers:
            self._before[number] = signal.signal(number, self._caught)

    def begin(self) -> None:
        """Have the next one be not the first."""
        self._begun = True

    def stop(self) -> None:
        """Leave the signals to who had them before."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        before = self._before[number]
        if self._begun:
            self._reactor.callFromThread(self._call)
        elif callable(before):  # nobody is, where it is ignored, as SIGINT in the background
            self.begin()
            before(number, frame)

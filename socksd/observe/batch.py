"""Lines of sessions that have ended, made and written together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from socksd.events import SessionClosed
from socksd.observe.failures import Failures

DELAY: Final = 0.1  # seconds that a session waits for others, at most
LINES: Final = 100  # sessions that wait, at most: to write them takes half a millisecond


class Batch:
    """
    Gathers sessions that have ended, and writes their lines together.

    A write(2) for each took as long as half of the rest that a line costs; and
    what makes them one after the other, the processor has at hand.

    Args:
        line: Makes the line of a session, without a newline.
        write: Takes one line at least, in the order in which the sessions ended.
    """

    def __init__(
        self,
        clock: IReactorTime,
        line: Callable[[SessionClosed], str],
        write: Callable[[Sequence[str]], object],
    ) -> None:
        self._clock = clock
        self._line = line
        self._write = write
        self._waiting: list[SessionClosed] = []
        self._due: IDelayedCall | None = None
        self._failures = Failures()

    def add(self, event: SessionClosed) -> None:
        """Write of a session, within DELAY."""
        self._waiting.append(event)
        if self._due is None:
            self._due = self._clock.callLater(DELAY, self._is_due)
        elif len(self._waiting) >= LINES:
            self._write_all()

    def flush(self) -> None:
        """Write what waits, and leave no delayed call behind."""
        if self._due is not None:
            self._due.cancel()
            self._is_due()

    def _is_due(self) -> None:
        self._due = None
        self._write_all()

    def _write_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        lines = []
        for event in waiting:
            try:
                lines.append(self._line(event))
            except Exception as error:  # noqa: BLE001 -- one session's, which the others survive
                self._failures.tell(self._line, event, error)
        if lines:
            self._write(lines)

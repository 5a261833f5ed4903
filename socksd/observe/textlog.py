"""
A shorter way into the log file that twistd writes.

A line by way of twisted.logger is formatted, dated and written by itself,
50 us each, of which 5 are for what it says. Where that log is a text file and
nobody else listens, what is written there can be written at once for many
lines. Anywhere else (syslog, the journal, JSON) each goes the usual way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from twisted.logger import (
    FileLogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    formatEventAsClassicLogText,
    globalLogPublisher,
)

_log = Logger("socksd")


class TextLog:
    """
    Write lines at level info, as ``Logger("socksd").info`` does.

    Where they go is looked up each second anew, so they follow the log when it
    is changed.
    """

    def __init__(
        self,
        publisher: LogPublisher = globalLogPublisher,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._publisher = publisher
        self._now = now
        self._second = -1  # since the epoch, that the next two are of
        self._observer: FileLogObserver | None = None
        self._dated = ""  # what a line begins with
        self._lost = 0  # lines, since the last that could be written

    def info(self, lines: Sequence[str]) -> None:
        """Write lines of plain text, without their newlines."""
        now = self._now()
        if int(now) != self._second:
            self._look(now)
        if self._observer is None:
            for line in lines:
                _log.info("{line}", line=line)
            return
        try:
            _write(self._observer, "".join([f"{self._dated}{line}\n" for line in lines]))
        except OSError:  # a full disk stops no session, and cannot be told of there
            self._lost += len(lines)
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            _log.warn("{lost} lines of sessions could not be written here", lost=lost)

    def _look(self, now: float) -> None:
        """Find out where lines go, and how they begin in this second."""
        self._second = int(now)
        self._observer = None
        observers = self._publisher._observers
        if len(observers) != 1 or not isinstance(observers[0], FileLogObserver):
            return
        event: LogEvent = {
            "log_format": "-",
            "log_level": LogLevel.info,
            "log_namespace": _log.namespace,
            "log_time": now,
        }
        text = formatEventAsClassicLogText(event)
        if text is not None and observers[0].formatEvent(event) == text:
            self._observer, self._dated = observers[0], text.removesuffix("-\n")


def _write(observer: FileLogObserver, text: str) -> None:
    """Write as the observer itself does, which has no method for text that is formatted."""
    file, encoding = observer._outFile, observer._encoding
    file.write(text if encoding is None else text.encode(encoding))
    file.flush()

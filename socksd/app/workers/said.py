"""
What workers write to their logs, where the parent's log goes elsewhere than theirs.

Under ``--logfile`` or ``--syslog`` twistd's log belongs to the parent, which
rotates it; workers have a pipe to the parent instead, and what comes out of it
is written where the parent writes.
"""

from __future__ import annotations

import re
from typing import Final

from twisted.logger import (
    FileLogObserver,
    Logger,
    LogLevel,
    LogPublisher,
    globalLogPublisher,
)

from socksd.observe.sinks import Outflow

LINE: Final = 65536  # octets; of a longer one the rest is a line of its own

_HEAD = re.compile(r"\S+ \[([^\]#]+)(?:#(\w+))?\] ")  # as twistd writes it
_LEVELS = {level.name: level for level in LogLevel.iterconstants()}


def shares_standard_output(publisher: LogPublisher = globalLogPublisher) -> bool:
    """Tell whether our log goes to the standard output and nowhere else."""
    observers = publisher._observers
    return (
        len(observers) == 1
        and isinstance(observers[0], FileLogObserver)
        and isinstance(observers[0]._outFile, Outflow)
    )


class Said:
    """Puts the lines of one worker into our log, each as what it was."""

    def __init__(self, publisher: LogPublisher = globalLogPublisher) -> None:
        self._publisher = publisher
        self._rest = b""

    def __call__(self, octets: bytes) -> None:
        """Take what came out of the pipe."""
        *lines, self._rest = (self._rest + octets).split(b"\n")
        if len(self._rest) > LINE:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._log(line.decode("utf-8", "replace"))

    def _log(self, line: str) -> None:
        found = _HEAD.match(line)
        namespace, level = (found[1], found[2]) if found else ("socksd", None)
        logger = Logger(namespace, observer=self._publisher)
        text = line[found.end() :] if found else line
        logger.emit(_LEVELS.get(level, LogLevel.info), "{text}", text=text)

"""
The access log in systemd's journal: an entry for every session that ends.

The fields are the keys of :mod:`socksd.observe.access`, in capitals and with
``SOCKSD_`` before them, so ``journalctl SOCKSD_USER=alice`` finds a user's
sessions. What is null is left out; lists are repeated fields.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

from twisted.logger import Logger

from socksd.events import Event, Outcome, SessionClosed
from socksd.observe import lines
from socksd.observe.access import record

_log = Logger("socksd")

SOCKET: Final = "/run/systemd/journal/socket"

# As syslog(3) has them.
_ERROR, _WARNING, _INFORMATIONAL = 3, 4, 6
_PRIORITIES = {
    Outcome.ERROR: _ERROR,
    Outcome.DENIED: _WARNING,
    Outcome.LOGIN_FAILED: _WARNING,
}


def entry(event: SessionClosed) -> bytes:
    """Write a session in the journal's native protocol."""
    priority = _PRIORITIES.get(event.outcome, _INFORMATIONAL)
    fields = [
        _field("MESSAGE", lines.session(event)),
        _field("PRIORITY", str(priority)),
        _field("SYSLOG_IDENTIFIER", "socksd"),
    ]
    # What a session's entry says, and how it is spelled, is decided in one place.
    for key, value in json.loads(record(event)).items():
        fields += (_field(f"SOCKSD_{key.upper()}", text) for text in _texts(value))
    return b"".join(fields)


def _field(name: str, value: str) -> bytes:
    """
    Write one field with its length: no value can begin another one.

    https://systemd.io/JOURNAL_NATIVE_PROTOCOL
    """
    octets = value.encode()
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(octets)), octets)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from (f"{key}={each}" for key, each in value.items())
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif value is not None:
        yield str(value)


class Journal:
    """
    Send an entry for every session that ends.

    Trouble never reaches a session, and nobody is waited for: what the journal
    does not take at once is counted and gone. It is said once; and once more
    when entries arrive again.

    Args:
        path: Of the journal's socket. It is found anew for each entry, so that
            the journal may be restarted.

    Attributes:
        lost: How many entries could not be sent.
    """

    hears = (SessionClosed,)

    def __init__(self, path: str = SOCKET) -> None:
        self.lost = 0
        self._path = path
        self._socket: socket.socket | None = None
        self._troubled = False  # and it has been said

    def open(self) -> None:
        """Begin."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if isinstance(event, SessionClosed) and event.logged:
            self._send(entry(event))

    def close(self) -> None:
        """Send no more; sessions that end after this are lost."""
        sender, self._socket = self._socket, None
        if sender is not None:
            sender.close()

    def _send(self, octets: bytes) -> None:
        if self._socket is None:
            self.lost += 1
            return
        try:
            self._socket.sendto(octets, self._path)
        except OSError as error:
            self.lost += 1
            if not self._troubled:
                self._troubled = True
                _log.error(
                    "access log {path}: {error}; entries are lost until it can be written again",
                    path=self._path,
                    error=error.strerror,
                )
        else:
            if self._troubled:
                self._troubled = False
                _log.info(
                    "access log {path}: written again; entries lost so far: {lost}",
                    path=self._path,
                    lost=self.lost,
                )

"""
How the service goes, for the service manager that has started it.

sd_notify(3): datagrams to a socket that the environment names. Without that
variable nobody has asked, and nobody is told.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_log = Logger("socksd")

EVERY: Final = 5.0  # seconds from one status to the next
# Seconds beyond the drain before the manager loses patience: for the end itself.
GRACE: Final = 15.0


@dataclass(frozen=True, slots=True)
class Manager:
    """
    Who has started us, and wants to hear.

    Attributes:
        address: Of its socket, as bind(2) would take it.
        watchdog: Seconds of silence after which it starts us anew; ``None``:
            it does not.
    """

    address: str
    watchdog: float | None


def manager(environment: MutableMapping[str, str], pid: int) -> Manager | None:
    """
    Give who wants to hear from process *pid*, if anybody does.

    Its variables are taken out of the environment: no child of ours shall
    speak for us.
    """
    address = environment.pop("NOTIFY_SOCKET", "")
    microseconds = environment.pop("WATCHDOG_USEC", "")
    watched = environment.pop("WATCHDOG_PID", str(pid)) == str(pid)
    if address[:1] not in ("/", "@"):  # a vsock, for the manager of another machine
        return None
    watchdog = int(microseconds) / 1e6 if watched and microseconds.isdecimal() else 0.0
    return Manager(
        address.replace("@", "\0", 1) if address[0] == "@" else address, watchdog or None
    )


class Notifier:
    """
    Tell the manager what we do, and now and then that we still do it.

    Nobody is waited for. A change that the manager cannot take now is told
    again; what else goes wrong is said once.

    Args:
        status: Says how it goes, in one line.
    """

    def __init__(self, manager: Manager, status: Callable[[], str], clock: IReactorTime) -> None:
        self._address = manager.address
        self._watchdog = manager.watchdog
        self._every = EVERY if manager.watchdog is None else min(EVERY, manager.watchdog / 2)
        self._status = status
        self._clock = clock
        self._socket: socket.socket | None = None
        self._owed: deque[str] = deque(maxlen=8)  # changes that are not told yet
        self._told = ""  # the last status
        self._next: IDelayedCall | None = None
        self._troubled = False

    def start(self) -> None:
        """Begin, and say that we are ready as soon as the reactor turns."""
        self._owed.append("READY=1")
        self.start_unready()

    def start_unready(self) -> None:
        """Begin; ready() is to be called yet."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._next = self._clock.callLater(0, self._tick)

    def stop(self) -> None:
        """Say no more."""
        call, self._next = self._next, None
        if call is not None:
            call.cancel()
        sender, self._socket = self._socket, None
        if sender is not None:
            sender.close()

    def reloading(self) -> None:
        """Say that a reload begins."""
        self._change(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def ready(self) -> None:
        """Say that it is over, well or not."""
        self._change("READY=1")

    def stopping(self, seconds: float) -> None:
        """Say that we stop, and that it may take so long."""
        patience = int((seconds + GRACE) * 1e6)
        self._change(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={patience}")

    def _change(self, text: str) -> None:
        self._owed.append(text)
        self._settle()

    def _tick(self) -> None:
        self._next = self._clock.callLater(self._every, self._tick)
        self._settle()
        # From the reactor: one that is stuck sends none.
        lines = [] if self._watchdog is None else ["WATCHDOG=1"]
        status = self._status()
        if status != self._told:
            lines.append(f"STATUS={status}")
        if lines and self._tell("\n".join(lines)):
            self._told = status

    def _settle(self) -> None:
        while self._owed and self._tell(self._owed[0]):
            self._owed.popleft()

    def _tell(self, text: str) -> bool:
        """Send *text*; whether it went."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(text.encode(), self._address)
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._troubled:
                self._troubled = True
                _log.error("cannot tell the service manager: {error}", error=error.strerror)
            return False
        return True

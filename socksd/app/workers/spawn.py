"""A new process, and the channel to it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import Final

from twisted.internet.interfaces import IAddress, IReactorProcess, IReactorSocket
from twisted.internet.protocol import Factory

from socksd.app.workers.channel import DESCRIPTOR, Asker
from socksd.app.workers.pool import Worker
from socksd.observe.sinks import STANDARD_OUTPUT

MODULE: Final = "socksd.app.workers.child"
STANDARD_ERROR: Final = 2
# What a service manager has said to us, and to nobody else.
_OURS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class IReactorSpawning(IReactorProcess, IReactorSocket):
    """What starting a worker takes of the reactor."""


class _Channel(Factory[Asker]):
    noisy = False

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def buildProtocol(self, addr: IAddress | None) -> Asker:
        return self._asker


def spawn(worker: Worker, reactor: IReactorSpawning, *, shares_output: bool) -> None:
    """
    Start the process of *worker*.

    It has our standard output, and its log goes there as well if ours does
    (*shares_output*); or else to a pipe, and worker.childDataReceived() hears it.

    Raises:
        OSError: The system has no room for it.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull, "rb") as nothing:
        ours.setblocking(False)
        theirs.setblocking(False)
        reactor.spawnProcess(
            worker,
            sys.executable,
            # -P: not what happens to lie in the working directory. The number is for ps(1).
            [sys.executable, "-P", "-m", MODULE, str(worker.number)],
            environment(os.environ),
            childFDs={
                0: nothing.fileno(),
                STANDARD_OUTPUT: STANDARD_OUTPUT,
                STANDARD_ERROR: STANDARD_OUTPUT if shares_output else "r",
                DESCRIPTOR: theirs.fileno(),
            },
        )
        reactor.adoptStreamConnection(
            ours.fileno(),
            socket.AF_UNIX,
            _Channel(worker.asker),  # type: ignore[arg-type]  # any IProtocolFactory will do
        )


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Give a worker's environment: ours, but for what is meant for us alone."""
    kept = {
        name: value
        for name, value in ours.items()
        if name not in _OURS and not name.startswith("LISTEN_")
    }
    # Its modules are ours, wherever they are from: twistd may have put its directory first.
    return kept | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}

"""The control socket: a table of routes as HTTP with JSON, on a unix socket."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from socksd.admin.routes import IReactorControlled, Routes
from socksd.admin.site import QuietSite
from socksd.admin.web import Answering, JSONRequest

MODE: Final = 0o660  # whoever is in the group may ask


class ControlSocket:
    """
    Answer at a path of the file system while it is open.

    Args:
        path: Of the socket; its directory has to be there.
        routes: Looked at for each request, so it may still grow.
    """

    def __init__(self, path: str, routes: Routes, reactor: IReactorControlled) -> None:
        self._path = path
        self._routes = routes
        self._reactor = reactor
        self._port: IListeningPort | None = None

    def open(self) -> None:
        """
        Begin to listen, in the place of a socket that nobody listens on any more.

        Raises:
            OSError: The path cannot be had, or something else is there; its
                strerror says all of it.
        """
        site = QuietSite(Answering(self._routes), self._reactor, JSONRequest)
        try:
            _clear(self._path)
            # Nobody can connect before listen(2), and by then the mode is set.
            self._port = self._reactor.listenUNIX(self._path, site, mode=MODE)  # type: ignore[arg-type]  # Twisted's own
        except (OSError, CannotListenError) as error:
            cause = error.socketError if isinstance(error, CannotListenError) else error
            reason = getattr(cause, "strerror", None) or str(cause)
            raise OSError(None, f"control socket {self._path}: {reason}") from error

    def close(self) -> Deferred[None] | None:
        """Stop listening, and take the socket away; answers under way are still given."""
        port, self._port = self._port, None
        if port is None:
            return None
        if not os.path.lexists(self._path):
            # Twisted removes it without looking, and without it never gets to the end.
            Path(self._path).touch()
        return port.stopListening()


def _clear(path: str) -> None:
    """
    Remove a socket that a killed process has left.

    Raises:
        OSError: It is none, or somebody listens there.
    """
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise FileExistsError(None, "something is there that is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise FileExistsError(None, "another server listens there")

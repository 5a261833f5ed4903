"""``/proxy.pac`` and ``/wpad.dat``: what tells a browser when to use the gateway."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from socksd.admin.site import QuietSite
from socksd.admin.web import JSONRequest, refusal, send

KIND: Final = "application/x-ns-proxy-autoconfig"
PATHS: Final = ("/proxy.pac", "/wpad.dat")
_KEPT: Final = "max-age=300"  # a reload shall not take a day to be heard of


class Autoconfig:
    """
    Serve the file while it is open.

    Args:
        listen: Begins to listen with a factory; raises OSError.
        write: Writes the file for a client, by the client's address and ours.
    """

    def __init__(
        self,
        listen: Callable[[IProtocolFactory], IListeningPort],
        write: Callable[[IAddress, IAddress], str],
        reactor: IReactorTime,
    ) -> None:
        self._listen = listen
        self._site = QuietSite(_Page(write), reactor, JSONRequest)
        self._port: IListeningPort | None = None

    def open(self) -> None:
        """
        Begin to listen.

        Raises:
            OSError: It cannot be; its strerror says all of it.
        """
        self._port = self._listen(self._site)

    def close(self) -> Deferred[None] | None:
        """Stop listening."""
        port, self._port = self._port, None
        return port.stopListening() if port is not None else None


class _Page(Resource):
    isLeaf = True

    def __init__(self, write: Callable[[IAddress, IAddress], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._write = write

    def render(self, request: JSONRequest) -> int:
        """Answer one request."""
        path = request.path.decode("latin-1")
        if path not in PATHS:
            send(request, HTTPStatus.NOT_FOUND, refusal(f"there is no {path}"))
        elif request.method not in (b"GET", b"HEAD"):
            send(request, HTTPStatus.METHOD_NOT_ALLOWED, refusal(f"{path} takes GET"))
        else:
            client: IAddress = request.getClientAddress()  # type: ignore[no-untyped-call]  # Twisted's
            here: IAddress = request.getHost()  # type: ignore[no-untyped-call]  # Twisted's
            octets = self._write(client, here).encode("ascii")
            request.setHeader("Content-Type", KIND)  # type: ignore[no-untyped-call]  # Twisted's
            request.setHeader("Cache-Control", _KEPT)  # type: ignore[no-untyped-call]  # Twisted's
            request.setHeader("Content-Length", str(len(octets)))  # type: ignore[no-untyped-call]  # Twisted's
            if request.method == b"GET":
                request.write(octets)  # type: ignore[no-untyped-call]  # Twisted's
            request.finish()  # type: ignore[no-untyped-call]  # Twisted's
        return NOT_DONE_YET

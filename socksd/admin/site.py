"""What the servers of this room have in common."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

IDLE: Final = 10.0  # seconds that a client may be silent


class QuietSite(Site):
    """Twisted's, without a line in the log for each request."""

    noisy = False

    def __init__(
        self, resource: Resource, clock: IReactorTime, request: type[Request] = Request
    ) -> None:
        super().__init__(resource, request, timeout=IDLE, reactor=clock)  # type: ignore[no-untyped-call]  # Twisted's
        self.displayTracebacks = False

    def acceptableProtocols(self) -> list[bytes]:
        """Offer HTTP/1.1 over TLS, and not what a package that happens to be there adds."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Leave out the clock that Twisted keeps for the log's dates: a call each second."""

    def log(self, request: object) -> None:
        """Say nothing."""

"""Metrics over HTTP: one page, made when somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
)
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.pages import notFound
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from socksd.admin.routes import IReactorScraped
from socksd.admin.site import QuietSite

_log = Logger("socksd")

CONNECTIONS: Final = 16  # at a time; one more is closed


# Called in the reactor's thread, for what writes the page in another one.
Sample = Callable[[], Deferred[Callable[[], bytes]]]


class MetricsListener:
    """
    Answer ``GET /metrics`` while it is open.

    Args:
        listen: Begins to listen with a factory; raises OSError.
        sample: Takes the numbers.
        content_type: Of the page.
    """

    def __init__(
        self,
        listen: Callable[[IProtocolFactory], IListeningPort],
        sample: Sample,
        content_type: str,
        reactor: IReactorScraped,
    ) -> None:
        self._listen = listen
        self._reactor = reactor
        self._page = _Page(self._sampled, content_type)
        self._sample = sample
        self._factory = _AtMost(QuietSite(self._page, reactor))  # type: ignore[no-untyped-call]  # Twisted's
        self._port: IListeningPort | None = None
        self._pool = ThreadPool(0, 1, "metrics")

    def open(self) -> None:
        """
        Begin to listen.

        Raises:
            OSError: It cannot be; its strerror says all of it.
        """
        self._port = self._listen(self._factory)
        self._pool.start()

    def close(self) -> Deferred[None] | None:
        """Stop listening, and answer nobody any more."""
        port, self._port = self._port, None
        if port is None:
            return None
        for connection in list(self._factory.protocols):
            connection.transport.abortConnection()
        self._pool.stop()  # which waits for a page that is being written
        return port.stopListening()

    def _sampled(self) -> Deferred[bytes]:
        return self._sample().addCallback(partial(deferToThreadPool, self._reactor, self._pool))


class _Page(Resource):
    """The one page; who asks while it is being written gets the same one."""

    isLeaf = True

    def __init__(self, write: Callable[[], Deferred[bytes]], content_type: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._write = write
        self._content_type = content_type
        self._asked: list[Request] = []
        self._writing = False

    def render_GET(self, request: Request) -> Any:
        """Answer once there is something to say."""
        if request.path != b"/metrics":
            return notFound(message="The metrics are at /metrics.").render(request)
        self._asked.append(request)
        request.notifyFinish().addErrback(lambda _: self._asked.remove(request))
        if not self._writing:
            self._writing = True
            self._write().addBoth(self._written)
        return NOT_DONE_YET

    def _written(self, page: bytes | Failure) -> None:
        self._writing = False
        asked, self._asked = self._asked, []
        if isinstance(page, Failure):
            _log.failure("the metrics cannot be written", page)
        for request in asked:
            if isinstance(page, Failure):
                request.setResponseCode(500)
            else:
                request.setHeader("Content-Type", self._content_type)
                request.setHeader("Content-Length", str(len(page)))
                request.write(page)
            request.finish()


class _AtMost(WrappingFactory[ProtocolWrapper]):
    """Lets no more than CONNECTIONS in."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ProtocolWrapper | None:  # type: ignore[override]  # None is Factory's way to say no
        """Make the protocol of a new connection, or close it where there are enough."""
        return super().buildProtocol(addr) if len(self.protocols) < CONNECTIONS else None

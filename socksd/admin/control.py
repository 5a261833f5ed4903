"""The control socket: a table of routes as HTTP with JSON, on a unix socket."""

from __future__ import annotations

import json
import os
import socket
import stat
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from socksd.admin.routes import BadBody, Body, IReactorControlled, Routes, Unable
from socksd.errors import ConfigError

_log = Logger("socksd")

MODE: Final = 0o660  # whoever is in the group may ask
BODY: Final = 65536  # octets that a request may have behind its head
IDLE: Final = 10.0  # seconds that a client may be silent


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
        site = _Site(self._routes, self._reactor)
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


class _Request(Request):
    """A request whose body is kept in memory, and no more of it than may come."""

    content: BytesIO
    too_large = False

    def gotLength(self, length: int | None) -> None:
        """Twisted would write a long one to a file, however long it is."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep what may come; read the rest as well, or the client never sees our answer."""
        self.too_large = self.too_large or self.content.tell() + len(data) > BODY
        if not self.too_large:
            self.content.write(data)


class _Site(Site):
    """Twisted's, without a line in the log for each request."""

    noisy = False

    def __init__(self, routes: Routes, clock: IReactorTime) -> None:
        super().__init__(_Answers(routes), _Request, timeout=IDLE, reactor=clock)  # type: ignore[no-untyped-call]  # Twisted's
        self.displayTracebacks = False

    def startFactory(self) -> None:
        """Leave out the clock that Twisted keeps for the log's dates: a call each second."""

    def log(self, request: object) -> None:
        """Say nothing."""


class _Answers(Resource):
    """Looks a request up in the table."""

    isLeaf = True

    def __init__(self, routes: Routes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._routes = routes

    def render(self, request: _Request) -> int:
        """Answer, as JSON whatever happens, at once or when the answer is there."""
        method, path = request.method.decode("latin-1"), request.path.decode("latin-1")
        allowed = sorted(verb for verb, at in self._routes if at == path)
        handler = self._routes.get((method, path))
        headers = request.responseHeaders
        headers.setRawHeaders("Content-Type", ["application/json"])
        headers.setRawHeaders("Cache-Control", ["no-store"])
        if allowed:
            headers.setRawHeaders("Allow", [", ".join(allowed)])
        gone = request.notifyFinish()
        gone.addErrback(lambda _: None)  # who has left needs no answer
        if handler is not None:
            asked: Deferred[object] = maybeDeferred(lambda: handler(_body(request)))
            done = asked.addCallbacks(lambda answer: (HTTPStatus.OK, answer), _failed)
            done.addCallback(lambda said: None if gone.called else _send(request, *said))
        elif allowed:
            _send(request, HTTPStatus.METHOD_NOT_ALLOWED, _error(f"{path} takes {allowed[0]}"))
        else:
            _send(request, HTTPStatus.NOT_FOUND, _error(f"there is no {path}"))
        return NOT_DONE_YET


def _send(request: _Request, status: HTTPStatus, answer: object) -> None:
    request.setResponseCode(status)
    request.write(json.dumps(answer).encode("ascii") + b"\n")  # type: ignore[no-untyped-call]  # Twisted's
    request.finish()  # type: ignore[no-untyped-call]  # Twisted's


class _TooLarge(BadBody):
    """The body is longer than BODY."""


def _body(request: _Request) -> Body:
    if request.too_large:
        raise _TooLarge(f"the body has more than {BODY} octets")
    octets = request.content.getvalue()
    if not octets:
        return _parameters(request.uri.partition(b"?")[2])
    try:
        body = json.loads(octets)
    except (ValueError, RecursionError):
        raise BadBody("the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadBody("the body is not a JSON object")
    return body


def _parameters(query: bytes) -> Body:
    pairs = parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True)
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise BadBody(f"{name} is there more than once")
    return dict(pairs)


def _failed(failure: Failure) -> tuple[HTTPStatus, object]:
    error = failure.value
    if isinstance(error, _TooLarge):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _error(str(error))
    if isinstance(error, BadBody):
        return HTTPStatus.BAD_REQUEST, _error(str(error))
    if isinstance(error, Unable):
        return HTTPStatus.CONFLICT, _error(str(error))
    if isinstance(error, ConfigError):
        problems = [{"path": p.path, "message": p.message} for p in error.problems]
        return HTTPStatus.UNPROCESSABLE_ENTITY, {"error": "not loaded", "problems": problems}
    # A bug of ours shall not keep the client waiting.
    _log.failure("a request on the control socket has met a bug", failure)
    return HTTPStatus.INTERNAL_SERVER_ERROR, _error("a bug; its traceback is in the log")


def _error(message: str) -> dict[str, str]:
    return {"error": message}

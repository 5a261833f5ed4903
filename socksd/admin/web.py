"""A table of routes as HTTP with JSON, on whatever listens."""

from __future__ import annotations

import json
from http import HTTPStatus
from io import BytesIO
from typing import Final
from urllib.parse import parse_qsl

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from socksd.admin.routes import BadBody, Body, Handler, NotAdmitted, Routes, Unable
from socksd.errors import ConfigError

_log = Logger("socksd")

BODY: Final = 65536  # octets that a request may have behind its head
IDLE: Final = 10.0  # seconds that a client may be silent


class JSONRequest(Request):
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


class Answering(Resource):
    """Looks a request up in the table."""

    isLeaf = True

    def __init__(self, routes: Routes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._routes = routes

    def render(self, request: JSONRequest) -> int:
        """Answer, as JSON whatever happens, at once or when the answer is there."""
        method, path = request.method.decode("latin-1"), request.path.decode("latin-1")
        allowed = sorted(verb for verb, at in self._routes if at == path)
        handler = self._routes.get((method, path))
        if allowed:
            request.responseHeaders.setRawHeaders("Allow", [", ".join(allowed)])
        if handler is not None:
            answer(request, handler)
        elif allowed:
            send(request, HTTPStatus.METHOD_NOT_ALLOWED, refusal(f"{path} takes {allowed[0]}"))
        else:
            send(request, HTTPStatus.NOT_FOUND, refusal(f"there is no {path}"))
        return NOT_DONE_YET


def answer(request: JSONRequest, handler: Handler) -> None:
    """Let *handler* answer, now or later; whatever comes of it is JSON with a status."""
    gone = request.notifyFinish()
    gone.addErrback(lambda _: None)  # who has left needs no answer
    asked: Deferred[object] = maybeDeferred(lambda: handler(_body(request)))
    done = asked.addCallbacks(lambda said: (HTTPStatus.OK, said), _failed)
    done.addCallback(lambda said: None if gone.called else send(request, *said))


def send(request: JSONRequest, status: HTTPStatus, said: object) -> None:
    """Send an answer, and that is all."""
    headers = request.responseHeaders
    headers.setRawHeaders("Content-Type", ["application/json"])
    headers.setRawHeaders("Cache-Control", ["no-store"])
    request.setResponseCode(status)
    request.write(json.dumps(said).encode("ascii") + b"\n")  # type: ignore[no-untyped-call]  # Twisted's
    request.finish()  # type: ignore[no-untyped-call]  # Twisted's


def refusal(message: str) -> dict[str, str]:
    """Say why there is no other answer."""
    return {"error": message}


class _TooLarge(BadBody):
    """The body is longer than BODY."""


def _body(request: JSONRequest) -> Body:
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
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, refusal(str(error))
    if isinstance(error, BadBody):
        return HTTPStatus.BAD_REQUEST, refusal(str(error))
    if isinstance(error, NotAdmitted):
        return HTTPStatus.FORBIDDEN, refusal(str(error))
    if isinstance(error, Unable):
        return HTTPStatus.CONFLICT, refusal(str(error))
    if isinstance(error, ConfigError):
        problems = [{"path": p.path, "message": p.message} for p in error.problems]
        return HTTPStatus.UNPROCESSABLE_ENTITY, {"error": "not loaded", "problems": problems}
    # A bug of ours shall not keep the client waiting.
    _log.failure("an answer has met a bug", failure)
    return HTTPStatus.INTERNAL_SERVER_ERROR, refusal("a bug; its traceback is in the log")

"""
The dashboard: one page, and behind a login what it shows.

Whoever may see it sees who talks to whom. So every answer but the page itself
needs a login, and every request that changes anything also needs the visitor's
own CSRF token in a header, which no other site can send: it would have to be
read first, and the cookie is never sent along from another site.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from socksd.address import IPAddress
from socksd.admin.routes import BadBody, Body, NotAdmitted, Routes
from socksd.admin.site import QuietSite
from socksd.admin.visitors import LONGEST, Visitor, Visitors
from socksd.admin.web import JSONRequest, answer, refusal, send
from socksd.errors import LoginFailed
from socksd.facts import Principal

COOKIE: Final = "socksd"
STREAMS: Final = 32  # that are sent events, at a time
BEAT: Final = 15.0  # seconds between two signs of life on a stream that has nothing to tell

# What of the control socket's routes the dashboard has: it looks, explains, and
# ends sessions. It does not reload, nor show the configuration.
SHOWN: Final = frozenset(
    {
        ("GET", "/v1/status"),
        ("GET", "/v1/rules"),
        ("GET", "/v1/sessions"),
        ("GET", "/v1/talkers"),
        ("GET", "/v1/traffic"),
        ("GET", "/v1/denials"),
        ("POST", "/v1/explain"),
        ("POST", "/v1/kill"),
    }
)
_PAGE: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Gate:
    """
    Who may see the dashboard.

    Attributes:
        login: Verifies a user name and a password; fails with LoginFailed.
        admits: Whether somebody who has logged in may see it: asked at each
            request, so that a reload counts at once.
        client_of: Gives the address of a request's client.
    """

    login: Callable[[bytes, bytes, IPAddress], Deferred[Principal]]
    admits: Callable[[Principal], bool]
    client_of: Callable[[object], IPAddress]


class Dashboard:
    """
    Serve the page and its data while it is open.

    Args:
        listen: Begins to listen with a factory; raises OSError.
        routes: The control socket's.
        subscribe: Begins to tell a callable of events, each a name and what
            JSON can say; gives what ends it.
    """

    def __init__(
        self,
        listen: Callable[[IProtocolFactory], IListeningPort],
        routes: Routes,
        gate: Gate,
        subscribe: Callable[[Callable[[str, object], None]], Callable[[], None]],
        reactor: IReactorTime,
    ) -> None:
        self._listen = listen
        self._resource = _Rooms(routes, gate, Visitors(reactor), subscribe, reactor)
        self._site = QuietSite(self._resource, reactor, JSONRequest)
        self._port: IListeningPort | None = None

    def open(self) -> None:
        """
        Begin to listen.

        Raises:
            OSError: It cannot be; its strerror says all of it.
        """
        self._port = self._listen(self._site)

    def close(self) -> Deferred[None] | None:
        """Stop listening, and end what is still being told."""
        port, self._port = self._port, None
        if port is None:
            return None
        self._resource.close()
        return port.stopListening()


class _Rooms(Resource):
    """Everything that the dashboard's listener answers."""

    isLeaf = True

    def __init__(
        self,
        routes: Routes,
        gate: Gate,
        visitors: Visitors,
        subscribe: Callable[[Callable[[str, object], None]], Callable[[], None]],
        clock: IReactorTime,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._routes = routes
        self._gate = gate
        self._visitors = visitors
        self._subscribe = subscribe
        self._clock = clock
        self._streams: set[_Stream] = set()
        where = files("socksd.admin") / "page"
        self._files = {
            path: ((where / name).read_bytes(), kind) for path, (name, kind) in _PAGE.items()
        }

    def close(self) -> None:
        """End the streams."""
        for stream in tuple(self._streams):
            stream.end()

    def render(self, request: JSONRequest) -> int:
        """Answer one request."""
        for name, value in _HEADERS.items():
            request.responseHeaders.setRawHeaders(name, [value])
        method, path = request.method.decode("latin-1"), request.path.decode("latin-1")
        if path in self._files:
            self._file(request, method, path)
        elif method == "POST" and not _is_json(request):
            # A form of another site cannot say this, and its scripts have to ask first.
            send(request, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, refusal("send application/json"))
        elif (method, path) == ("POST", "/v1/login"):
            self._log_in(request)
        else:
            self._visited(request, method, path)
        return NOT_DONE_YET

    def _file(self, request: JSONRequest, method: str, path: str) -> None:
        if method not in ("GET", "HEAD"):
            send(request, HTTPStatus.METHOD_NOT_ALLOWED, refusal(f"{path} takes GET"))
            return
        octets, kind = self._files[path]
        request.responseHeaders.setRawHeaders("Content-Type", [kind])
        request.responseHeaders.setRawHeaders("Cache-Control", ["no-cache"])
        if method == "GET":
            request.write(octets)  # type: ignore[no-untyped-call]  # Twisted's
        request.finish()  # type: ignore[no-untyped-call]  # Twisted's

    def _log_in(self, request: JSONRequest) -> None:
        peer: object = request.getClientAddress()  # type: ignore[no-untyped-call]  # Twisted's
        client = self._gate.client_of(peer)

        def handler(body: Body) -> Deferred[object]:
            user, password = body.get("user"), body.get("password")
            if not isinstance(user, str) or not isinstance(password, str):
                raise BadBody("say user and password")
            # JSON can hold halves of surrogate pairs, which are no text.
            octets = user.encode(errors="replace"), password.encode(errors="replace")
            return self._gate.login(*octets, client).addCallbacks(entered, refused)

        def entered(principal: Principal) -> object:
            if not self._gate.admits(principal):
                raise NotAdmitted(f"{principal.name} may not see this: [dashboard] names who may")
            token, visitor = self._visitors.enter(principal)
            request.addCookie(  # type: ignore[no-untyped-call]  # Twisted's
                COOKIE,
                token,
                path="/",
                max_age=str(int(LONGEST)),
                httpOnly=True,
                sameSite="strict",
                secure=request.isSecure(),  # type: ignore[no-untyped-call]  # Twisted's
            )
            return _as_seen(visitor)

        def refused(failure: Any) -> object:
            failure.trap(LoginFailed)
            raise NotAdmitted("user name or password is wrong")

        answer(request, handler)

    def _visited(self, request: JSONRequest, method: str, path: str) -> None:
        token = _cookie(request)
        visitor = self._visitors.find(token)
        if visitor is None or not self._gate.admits(visitor.principal):
            send(request, HTTPStatus.UNAUTHORIZED, refusal("log in first"))
        elif method != "GET" and not _is_own(request, visitor):
            send(request, HTTPStatus.FORBIDDEN, refusal("X-CSRF-Token is missing or wrong"))
        elif (method, path) == ("GET", "/v1/me"):
            answer(request, lambda _: _as_seen(visitor))
        elif (method, path) == ("POST", "/v1/logout"):
            self._visitors.leave(token)
            send(request, HTTPStatus.OK, {})
        elif (method, path) == ("GET", "/v1/events"):
            self._stream(request, token)
        elif (method, path) in SHOWN and (method, path) in self._routes:
            answer(request, self._routes[method, path])
        else:
            send(request, HTTPStatus.NOT_FOUND, refusal(f"there is no {method} {path}"))

    def _stream(self, request: JSONRequest, token: str) -> None:
        if len(self._streams) >= STREAMS:
            send(request, HTTPStatus.SERVICE_UNAVAILABLE, refusal("too many are watching"))
            return

        def is_welcome() -> bool:
            visitor = self._visitors.find(token)
            return visitor is not None and self._gate.admits(visitor.principal)

        stream = _Stream(request, is_welcome, self._clock)
        self._streams.add(stream)
        stream.begin(self._subscribe).addBoth(lambda _: self._streams.discard(stream))


class _Stream:
    """
    Server-sent events (HTML living standard, section 9.2) to one visitor.

    A visitor who does not read is told less: events are dropped while the
    transport is full, and their number is told when it is not.
    """

    def __init__(
        self, request: JSONRequest, is_welcome: Callable[[], bool], clock: IReactorTime
    ) -> None:
        self._request = request
        self._is_welcome = is_welcome
        self._missed = 0
        self._paused = False
        self._beat = LoopingCall(self._beats)
        self._beat.clock = clock

    def begin(
        self, subscribe: Callable[[Callable[[str, object], None]], Callable[[], None]]
    ) -> Deferred[None]:
        """Tell until the visitor leaves; the Deferred fires then, and never fails."""
        request = self._request
        request.setHeader("Content-Type", "text/event-stream")  # type: ignore[no-untyped-call]  # Twisted's
        request.setHeader("Cache-Control", "no-store")  # type: ignore[no-untyped-call]  # Twisted's
        # The site closes connections that are silent; this one is to be.
        request.channel.setTimeout(None)
        request.registerProducer(self, True)  # type: ignore[no-untyped-call]  # Twisted's
        gone: Deferred[None] = request.notifyFinish().addBoth(lambda _: None)
        unsubscribe = subscribe(self.tell)
        self._beat.start(BEAT)

        def ended(_: None) -> None:
            unsubscribe()
            self._beat.stop()

        return gone.addCallback(ended)

    def tell(self, name: str, what: object) -> None:
        """Send one event, if there is room for it."""
        if self._paused:
            self._missed += 1
            return
        if self._missed:
            missed, self._missed = self._missed, 0
            self.tell("missed", missed)
        self._write(f"event: {name}\ndata: {json.dumps(what)}\n\n")

    def end(self) -> None:
        """Tell no more."""
        self._request.unregisterProducer()  # type: ignore[no-untyped-call]  # Twisted's
        self._request.finish()  # type: ignore[no-untyped-call]  # Twisted's

    def pauseProducing(self) -> None:
        """Drop what comes: the visitor does not read."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False

    def stopProducing(self) -> None:
        """The connection is gone; notifyFinish says so as well."""
        self._paused = True

    def _beats(self) -> None:
        if not self._is_welcome():
            self.end()
        elif not self._paused:
            self._write(":\n\n")

    def _write(self, text: str) -> None:
        self._request.write(text.encode("ascii"))  # type: ignore[no-untyped-call]  # Twisted's


def _as_seen(visitor: Visitor) -> Mapping[str, object]:
    return {"user": visitor.principal.name, "csrf": visitor.csrf}


def _cookie(request: JSONRequest) -> str:
    octets = request.getCookie(COOKIE.encode())  # type: ignore[no-untyped-call]  # Twisted's
    return octets.decode("latin-1") if octets else ""


def _is_json(request: JSONRequest) -> bool:
    return _said(request, b"content-type").partition(b";")[0].strip().lower() == b"application/json"


def _is_own(request: JSONRequest, visitor: Visitor) -> bool:
    return compare_digest(_said(request, b"x-csrf-token"), visitor.csrf.encode())


def _said(request: JSONRequest, header: bytes) -> bytes:
    """Give a header as it came: Twisted would decode it, and fail where it is no UTF-8."""
    values = request.requestHeaders.getRawHeaders(header, [b""])
    return values[-1]

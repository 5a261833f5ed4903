"""Requests as HTTP has them, and what of them is kept."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.web.test.requesthelper import DummyChannel

from socksd.admin.routes import Body, Routes
from socksd.admin.web import BODY, Answering, JSONRequest

ROUTES: Routes = {
    ("GET", "/v1/thing"): lambda body: {"thing": dict(body)},
    ("POST", "/v1/thing"): lambda body: len(body),
}


class Kept(BytesIO):
    """Can be looked at when the request is over."""

    def close(self) -> None: ...


def asked(
    method: str,
    uri: str,
    *chunks: bytes,
    routes: Routes = ROUTES,
    content: BytesIO | None = None,
) -> tuple[JSONRequest, DummyChannel]:
    channel = DummyChannel()
    request = JSONRequest(channel)  # type: ignore[no-untyped-call]  # Twisted's
    request.gotLength(None)
    request.content = request.content if content is None else content
    for chunk in chunks:
        request.handleContentChunk(chunk)
    request.method, request.uri = method.encode(), uri.encode()
    request.path = request.uri.partition(b"?")[0]
    request.clientproto = b"HTTP/1.0"  # whose answers are not in chunks
    Answering(routes).render(request)
    return request, channel


def answered(method: str, uri: str, *chunks: bytes) -> tuple[int, Any]:
    request, channel = asked(method, uri, *chunks)
    body = channel.transport.written.getvalue().partition(b"\r\n\r\n")[2]
    return request.code, json.loads(body)


def test_what_is_not_there_and_what_takes_something_else_are_told_apart() -> None:
    request, _ = asked("DELETE", "/v1/thing")
    assert request.code == 405
    assert request.responseHeaders.getRawHeaders("Allow") == ["GET, POST"]
    request, _ = asked("GET", "/v1/thin")
    assert request.code == 404
    assert request.responseHeaders.getRawHeaders("Allow") is None


def test_no_answer_is_kept_by_whoever_is_between() -> None:
    request, _ = asked("GET", "/v1/thing")
    assert request.responseHeaders.getRawHeaders("Cache-Control") == ["no-store"]


def test_parameters_may_be_empty_and_are_there_once() -> None:
    assert answered("GET", "/v1/thing?a=&b=c%20d") == (200, {"thing": {"a": "", "b": "c d"}})
    assert answered("GET", "/v1/thing?a=1&b=2&a=1")[0] == 400


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="half"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"x"', id="a string"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"[" * 20_000, id="too deep"),
    ],
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert answered("POST", "/v1/thing", body)[0] == 400


def test_of_a_body_that_is_too_long_nothing_more_is_kept() -> None:
    """It is read all the same, in whatever pieces: or the client never sees the answer."""
    longest = json.dumps({"a": "x" * (BODY - 9)}).encode()
    assert len(longest) == BODY
    assert answered("POST", "/v1/thing", longest) == (200, 1)
    kept = Kept()
    request, _ = asked("POST", "/v1/thing", longest, b" ", *[longest] * 10, content=kept)
    assert request.code == 413
    assert len(kept.getvalue()) == BODY


def test_a_late_answer_goes_nowhere_once_the_client_has_gone() -> None:
    later: Deferred[object] = Deferred()

    def handler(_: Body) -> object:
        return later

    request, channel = asked("GET", "/late", routes={("GET", "/late"): handler})
    request.connectionLost(ConnectionResetError())  # type: ignore[no-untyped-call]  # Twisted's
    later.callback({"late": True})
    assert channel.transport.written.getvalue() == b""

"""Asking control sockets from the reactor: real ones, in a directory of the test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from socksd.admin import asking
from socksd.admin.asking import Asking, NoAnswer
from socksd.admin.control import ControlSocket
from socksd.admin.routes import BadBody, Body, Routes

reactor: Any = real_reactor


def refuse(_: Body) -> object:
    raise BadBody("no such thing")


ROUTES: Routes = {
    ("GET", "/v1/query"): lambda body: dict(body),
    ("POST", "/v1/echo"): lambda body: dict(body),
    ("POST", "/v1/bad"): refuse,
    ("GET", "/v1/never"): lambda body: Deferred(),
    ("GET", "/v1/list"): lambda body: [1],
}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    control = ControlSocket(str(tmp_path / "control.sock"), ROUTES, reactor)
    control.open()
    yield str(tmp_path / "control.sock")
    pytest_twisted.blockon(control.close() or succeed(None))


class Speaking(Protocol):
    """Sends what it is to, at once, and closes."""

    octets = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.octets)
        self.transport.loseConnection()


@pytest.fixture
def speak(tmp_path: Path) -> Iterator[Any]:
    """Listen, and answer anybody with the same octets."""
    with ExitStack() as stack:

        def listen(octets: bytes) -> str:
            class Speaker(Speaking):
                pass

            Speaker.octets = octets
            where = str(tmp_path / "speaker.sock")
            port = reactor.listenUNIX(where, Factory.forProtocol(Speaker))
            stack.callback(lambda: pytest_twisted.blockon(port.stopListening()))
            return where

        yield listen


async def left() -> None:
    """Let connections that were given up end."""
    await deferLater(reactor, 0.01)


@ensureDeferred
async def test_an_answer_is_a_status_and_an_object(path: str) -> None:
    ask = Asking(reactor).ask
    body = {"session": [1, 2], "user": "\u00e4 &\udcff"}
    for question in (("GET", "/v1/query"), ("POST", "/v1/echo")):
        assert await ask(path, *question, body) == (HTTPStatus.OK, body)
        assert await ask(path, *question, {}) == (HTTPStatus.OK, {})
    await left()


@ensureDeferred
async def test_a_question_leaves_no_line_in_the_log(path: str) -> None:
    """A parent asks each worker every second, while somebody looks."""
    asked = Asking(reactor)
    with capturedLogs() as logged:
        await asked.ask(path, "GET", "/v1/query", {})
        await left()
    assert [formatEvent(each) for each in logged] == []


@ensureDeferred
async def test_a_refusal_is_an_answer(path: str) -> None:
    said = await Asking(reactor).ask(path, "POST", "/v1/bad", {})
    assert said == (HTTPStatus.BAD_REQUEST, {"error": "no such thing"})
    await left()


class Hasty:
    """The reactor, with delays that are over at once; and noted."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def callLater(self, seconds: float, *call: Any) -> Any:
        self.delays.append(seconds)
        return reactor.callLater(0.01, *call)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


@ensureDeferred
async def test_nobody_is_waited_for_longer_than_it_may_take(path: str) -> None:
    hasty: Any = Hasty()
    waiting = Asking(hasty).ask(path, "GET", "/v1/never", {}, seconds=7.0)
    assert 7.0 in hasty.delays
    with pytest.raises(NoAnswer):
        await waiting
    await left()


@ensureDeferred
async def test_who_is_not_there_gives_no_answer(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer):
        await Asking(reactor).ask(str(tmp_path / "nobody"), "GET", "/v1/query", {})


@ensureDeferred
async def test_who_does_not_accept_is_given_up(tmp_path: Path) -> None:
    """A process that is stopped lets the kernel accept some, and says nothing to any."""
    where = str(tmp_path / "stuck.sock")
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(where)
        stuck.listen(0)
        for _ in range(3):
            with pytest.raises(NoAnswer):
                await Asking(reactor).ask(where, "GET", "/v1/query", {}, seconds=0.01)
        await left()


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="no body"),
        pytest.param(b'HTTP/1.1 200 OK\r\n\r\n{"a": 1', id="half an object"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n[1]", id="no object"),
        pytest.param(b"HTTP/1.1 two OK\r\n\r\n{}", id="no status"),
        pytest.param(b"HTTP/1.1 999 OK\r\n\r\n{}", id="an unknown status"),
        pytest.param(b"\xff\r\n\r\n{}", id="no HTTP"),
    ],
)
@ensureDeferred
async def test_what_is_no_answer_is_none(speak: Any, octets: bytes) -> None:
    where = speak(octets)
    with pytest.raises(NoAnswer):
        await Asking(reactor).ask(where, "GET", "/v1/query", {})
    await left()


@ensureDeferred
async def test_an_answer_that_has_no_end_is_not_taken(
    speak: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = speak(b'HTTP/1.1 200 OK\r\n\r\n{"a": "' + b"x" * 100_000 + b'"}')
    monkeypatch.setattr(asking, "MOST", 50_000)
    with pytest.raises(NoAnswer):
        await Asking(reactor).ask(where, "GET", "/v1/query", {})
    await left()

"""The metrics over real sockets, as Prometheus and as strangers ask for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from threading import Event
from typing import Any, cast

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from socksd.admin import scrape
from socksd.admin.scrape import MetricsListener

reactor: Any = real_reactor
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Client(Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.octets = b""
        self.over: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.octets += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(self.octets)


class Scene:
    def __init__(self) -> None:
        self.samples = 0
        self.write: Callable[[], bytes] = lambda: b"socksd_x 1\n"
        self.listener = MetricsListener(self.listen, self.sample, "text/plain; x=y", reactor)
        self.port: Any = None

    def listen(self, factory: Any) -> Any:
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        return self.port

    def sample(self) -> Deferred[Callable[[], bytes]]:
        self.samples += 1
        return succeed(self.write)

    async def connect(self) -> Client:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        return cast("Client", await connectProtocol(endpoint, Client()))

    async def ask(self, request: bytes = GET) -> bytes:
        client = await self.connect()
        client.transport.write(request)
        return await client.over


@async_yield_fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    scene.listener.open()
    yield scene
    stopped = scene.listener.close()
    if stopped is not None:
        await stopped
    await deferLater(reactor, 0.01)  # aborted connections end a turn later


@ensureDeferred
async def test_the_metrics_are_at_their_place(scene: Scene) -> None:
    answer = await scene.ask()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Type: text/plain; x=y\r\n" in head + b"\r\n"
    assert body == b"socksd_x 1\n"


@ensureDeferred
async def test_elsewhere_there_is_nothing(scene: Scene) -> None:
    answer = await scene.ask(GET.replace(b"/metrics", b"/"))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"The metrics are at /metrics." in answer
    assert scene.samples == 0


@ensureDeferred
async def test_nothing_but_asking_is_allowed(scene: Scene) -> None:
    answer = await scene.ask(GET.replace(b"GET", b"POST"))
    assert answer.startswith(b"HTTP/1.1 405 ")


@ensureDeferred
async def test_who_asks_while_the_page_is_written_is_given_the_same_one(scene: Scene) -> None:
    """It is not written once for each of them; and who does not wait is forgotten."""
    gate = Event()
    scene.write = lambda: b"late" if gate.wait(5) else b"never"
    clients = [await scene.connect() for _ in range(5)]
    for client in clients:
        client.transport.write(GET)
    while len(scene.listener._page._asked) < 5:
        await deferLater(reactor, 0)
    gone = clients.pop(0)
    gone.transport.abortConnection()
    while len(scene.listener._page._asked) > 4:
        await deferLater(reactor, 0)
    gate.set()
    for client in clients:
        assert b"late" in await client.over
    assert scene.samples == 1
    assert b"late" in await scene.ask()
    assert scene.samples == 2


@ensureDeferred
async def test_a_bug_is_an_error_and_the_next_one_is_answered(
    scene: Scene, logged_errors: list[dict[str, Any]]
) -> None:
    def broken() -> bytes:
        raise ZeroDivisionError

    scene.write = broken
    answer = await scene.ask()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"Zero" not in answer
    (event,) = logged_errors
    assert event["log_failure"].check(ZeroDivisionError)
    logged_errors.clear()
    scene.write = lambda: b"again"
    assert b"again" in await scene.ask()


@ensureDeferred
async def test_there_is_room_for_so_many_and_no_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "CONNECTIONS", 2)
    clients = [await scene.connect() for _ in range(2)]
    await deferLater(reactor, 0.01)
    assert await scene.ask(b"") == b""
    for client in clients:
        client.transport.loseConnection()
        await client.over
    await deferLater(reactor, 0.01)
    assert b"socksd_x 1" in await scene.ask()


@ensureDeferred
async def test_who_is_connected_at_the_end_is_left(scene: Scene) -> None:
    client = await scene.connect()
    await deferLater(reactor, 0.01)
    stopped = scene.listener.close()
    assert stopped is not None
    await stopped
    assert await client.over == b""
    assert scene.listener.close() is None

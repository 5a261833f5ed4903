"""A gateway that is built from a configuration carries a client, whichever relay it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.app.build import build
from socksd.app.config import Config, Listener
from socksd.relay.line import Line
from socksd.relay.pump import Pump
from tests.relay.test_contract import noise

PAGE = noise(1, 1 << 20)


@implementer(IHalfCloseableProtocol)
class Client(Protocol):
    """Collects what it is told, to its end."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended: Deferred[BaseException | None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(reason.value)


@implementer(IHalfCloseableProtocol)
class Echoing(Echo):
    """Sends back what it is told, and its end behind it."""

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None: ...


@asynccontextmanager
async def listening(factory: Factory[Any]) -> AsyncIterator[int]:
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()


@pytest.mark.parametrize(
    ("switched", "kind"),
    [pytest.param(True, Line, id="switched"), pytest.param(False, Pump, id="by Twisted")],
)
async def test_a_client_is_carried_to_its_target_and_back(
    switched: bool, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = []
    join = kind.join  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "join", lambda *it: joined.append(it[0]) or join(*it))
    config = Config(listener=[Listener(name="here", endpoint="tcp:0:interface=127.0.0.1")])
    gateway = build(config, reactor, switched=switched)
    gateway.startService()
    try:
        (port,) = (port.getHost().port for port in gateway._ports)
        async with listening(Factory.forProtocol(Echoing)) as echo:
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
            client: Client = await endpoint.connect(Factory.forProtocol(Client))
            request = b"\x05\x01\x00\x01\x7f\x00\x00\x01" + echo.to_bytes(2, "big")
            client.transport.write(b"\x05\x01\x00" + request + PAGE)
            client.transport.loseWriteConnection()
            reason = await client.ended
        assert isinstance(reason, ConnectionDone)
        assert client.received[:4] == b"\x05\x00\x05\x00"
        assert client.received[12:] == PAGE
        (relay,) = joined
        assert (relay.up, relay.down) == (len(PAGE), len(PAGE))
        for _ in range(100):
            if not len(gateway.sessions):
                break
            await deferLater(reactor, 0)
        assert not len(gateway.sessions)
    finally:
        await gateway.stopService()

"""A configuration made ready, with what runs already used again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.app.build import Lasting, build, lasting
from socksd.app.config import Config, Listener, parse_config
from socksd.app.service import Gateway, Generation, Part
from socksd.errors import ConfigError
from socksd.relay.line import Line
from socksd.relay.pump import Pump
from socksd.server.door import Door
from socksd.server.front import Front
from socksd.server.protocol import Sessions
from tests import authority
from tests.relay.test_contract import noise

SAME = """
[auth]
authenticators = ["memory:alice:secret"]
[log]
access = "-"
[control]
socket = "/run/no/control.sock"
"""


@pytest.fixture
def reactor() -> Any:
    return MemoryReactorClock()


@pytest.fixture
def common(reactor: Any) -> Lasting:
    return lasting(reactor)


def made(text: str, reactor: Any, common: Lasting, running: Sequence[Part] = ()) -> Generation:
    return build(parse_config(text, ""), reactor, common, running)


def test_what_would_be_made_of_the_same_is_used_again(reactor: Any, common: Lasting) -> None:
    """Verified logins, cached names and the open log outlive a reload that changes rules."""
    first = made(SAME, reactor, common)
    rules = '[[rule]]\nid = "all"\naction = "allow"\n'
    second = made(SAME + rules, reactor, common, first.parts)
    assert second.parts == first.parts
    assert second.runtime.authenticator is first.runtime.authenticator
    assert second.runtime.resolver is first.runtime.resolver
    assert second.runtime.policy is not first.runtime.policy
    assert (first.rules[0], second.rules) == (("local", "allow"), (("all", "allow"),))


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ('[auth]\ncache = "1m"\n', {"authenticator"}),
        ("[auth]\nthreads = 3\n", {"login threads", "authenticator"}),
        ('[resolver]\nttl = "2m"\n', {"resolver"}),
        ('[deadlines]\nresolve = "1s"\n', {"resolver"}),
        ('[log]\naccess = "/var/log/other"\n', {"access log"}),
        ('[control]\nsocket = "/run/other"\n', {"control"}),
        ('[deadlines]\nidle = "1m"\n', set()),
    ],
)
def test_only_what_has_changed_is_made_anew(
    reactor: Any, common: Lasting, text: str, changed: set[str]
) -> None:
    first = made("", reactor, common)
    second = made(text, reactor, common, first.parts)
    fresh = {
        part.made_of[0]
        for part in second.parts
        if part not in first.parts  # type: ignore[index]
    }
    assert fresh == changed


def test_a_password_file_that_is_broken_is_a_problem_although_it_runs(
    reactor: Any, common: Lasting, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    users.write_text("")
    text = f'[auth]\nauthenticators = ["htpasswd:{users}"]\n'
    first = made(text, reactor, common)
    users.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        made(text, reactor, common, first.parts)


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
    port = await TCP4ServerEndpoint(real_reactor, 0, interface="127.0.0.1").listen(factory)
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
    config = Config(listener=(Listener(name="here", endpoint="tcp:0:interface=127.0.0.1"),))
    made = build(config, real_reactor, lasting(real_reactor), switched=switched)
    gateway = Gateway(made, Sessions(Door(real_reactor, None)), real_reactor)
    gateway.startService()
    try:
        (port,) = (each.port.getHost().port for each in gateway.listeners)
        async with listening(Factory.forProtocol(Echoing)) as echo:
            endpoint = TCP4ClientEndpoint(real_reactor, "127.0.0.1", port)
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
            await deferLater(real_reactor, 0)
        assert not len(gateway.sessions)
    finally:
        await gateway.stopService()


def test_a_listener_has_what_comes_before_its_sessions(
    tmp_path: Path, reactor: Any, common: Lasting
) -> None:
    own = authority.server("gw.example").write(tmp_path, "gw.pem")
    balancers = (ip_network("10.0.0.2"),)
    plain, proxied, secure, both = (
        Listener("plain", "tcp:1"),
        Listener("proxied", "tcp:2", proxy_protocol=balancers),
        Listener("secure", f"ssl:3:privateKey={own}"),
        Listener("both", f"ssl:4:privateKey={own}", proxy_protocol=balancers),
    )
    generation = build(Config(listener=(plain, proxied, secure, both)), reactor, common)
    fronts = [entrance.front for entrance in generation.entrances]
    assert fronts[0] is None
    assert fronts[1] == Front(balancers)
    assert [each is not None and each.balancers for each in fronts[2:]] == [None, balancers]
    assert all(each is not None and each.security for each in fronts[2:])

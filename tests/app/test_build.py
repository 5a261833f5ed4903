"""A configuration made ready, with what runs already used again."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
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

from socksd.address import Destination
from socksd.app.build import Lasting, build, lasting
from socksd.app.config import Config, Listener, parse_config
from socksd.app.service import Gateway, Generation, Part
from socksd.errors import ConfigError
from socksd.facts import ANONYMOUS, Facts, Principal
from socksd.relay.line import Line
from socksd.relay.pump import Pump, ThrottledPump
from socksd.server.door import Door
from socksd.server.ends import End
from socksd.server.protocol import Sessions
from tests.fakes import FakeTransport
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
        ('[limit.bulk]\nbandwidth = "1MB/s"\n', {"limit"}),
        ('[limit.long]\nidle = "1m"\n', set()),
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


# -- limits and routes ----------------------------------------------------------

ALICE = Facts(ip_address("192.0.2.1"), "local", Principal("alice"))
BULK = '[limit.bulk]\nbandwidth = "1MB/s"\nidle = "2h"\n'


def relay_of(generation: Generation, facts: Facts, limits: str = "bulk") -> Any:
    client, target = End(), End()
    for end in (client, target):
        FakeTransport(end)
    return generation.runtime.limited[limits](facts, client, target)


def test_the_sessions_of_a_user_share_a_budget(reactor: Any, common: Lasting) -> None:
    """Wherever they come from; without a login it is the address that counts."""
    generation = made(BULK, reactor, common)
    elsewhere = replace(ALICE, client=ip_address("192.0.2.2"))
    first, second, bob, here, there = (
        relay_of(generation, facts)._budget
        for facts in (
            ALICE,
            elsewhere,
            replace(ALICE, principal=Principal("bob")),
            replace(ALICE, principal=ANONYMOUS),
            replace(elsewhere, principal=ANONYMOUS),
        )
    )
    assert first is second
    assert len({id(budget) for budget in (first, bob, here, there)}) == 4


def test_a_reload_that_leaves_the_bandwidth_leaves_the_budgets(
    reactor: Any, common: Lasting
) -> None:
    first = made(BULK, reactor, common)
    second = made(BULK.replace("2h", "3h"), reactor, common, first.parts)
    third = made(BULK.replace("1MB", "2MB"), reactor, common, second.parts)
    budgets = [relay_of(each, ALICE)._budget for each in (first, second, third)]
    assert budgets[0] is budgets[1]
    assert budgets[0] is not budgets[2]


def test_a_limit_may_have_an_idle_time_of_its_own(reactor: Any, common: Lasting) -> None:
    text = BULK + '[limit.long]\nidle = "10h"\n[limit.slow]\nbandwidth = "1MB/s"\n'
    generation = made(text, reactor, common)
    idle = {name: relay_of(generation, ALICE, name)._idle for name in generation.runtime.limited}
    assert idle == {"bulk": 7200.0, "long": 36_000.0, "slow": 900.0}
    kinds = {name: type(relay_of(generation, ALICE, name)) for name in idle}
    assert kinds == {"bulk": ThrottledPump, "long": Pump, "slow": ThrottledPump}


def dialled_from(egress: Any, reactor: Any, address: str) -> tuple[str, int] | None:
    web = Destination.named("web.example", 80)
    connecting = egress.connect(web, [ip_address(address)], Factory.forProtocol(End))
    connecting.addErrback(lambda _: None).cancel()
    bound: tuple[str, int] | None = reactor.tcpClients[-1][4]
    return bound


@pytest.mark.parametrize(
    ("text", "direct", "second"),
    [
        ("", None, None),
        ('[route.second]\nsource = ["127.0.0.9"]\n', None, ("127.0.0.9", 0)),
        ('[route.direct]\nsource = ["127.0.0.8"]\n', ("127.0.0.8", 0), None),
    ],
)
def test_a_route_has_its_source(
    reactor: Any,
    common: Lasting,
    text: str,
    direct: tuple[str, int] | None,
    second: tuple[str, int] | None,
) -> None:
    runtime = build(parse_config(text, ""), reactor, common, switched=False).runtime
    assert dialled_from(runtime.egress, reactor, "198.51.100.1") == direct
    assert set(runtime.routes) == ({"second"} if second else set())
    if second:
        assert dialled_from(runtime.routes["second"], reactor, "198.51.100.1") == second


def test_a_source_that_this_host_does_not_have_is_a_problem(
    reactor: Any, common: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as caught:
        made('[route."a.b"]\nsource = ["127.0.0.1", "2001:db8::1"]\n', reactor, common)
    assert [str(problem) for problem in caught.value.problems] == [
        'route."a.b".source: 2001:db8::1 is none of this host\'s addresses'
    ]

    def no_ipv6(source: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr("socksd.app.build.try_source", no_ipv6)
    with pytest.raises(ConfigError, match=r"cannot connect from ::1: Address family not supp"):
        made('[route.a]\nsource = ["::1"]\n', reactor, common)


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

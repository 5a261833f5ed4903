"""The same promises over real sockets, on the loopback."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.names import authority, dns, server

from socksd.address import Destination
from socksd.codes import ReplyCode
from socksd.egress.dial import DialEndpoint
from socksd.egress.direct import DirectEgress
from socksd.egress.resolve import resolver_from
from socksd.errors import Refused
from socksd.relay.switchboard import Switchboard
from tests.egress.fakes import TargetFactory, a, aaaa, cname

LOOPBACK = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
        return True


FAMILIES = [
    pytest.param(4, id="IPv4"),
    pytest.param(6, id="IPv6", marks=pytest.mark.skipif(not has_ipv6(), reason="no ::1 here")),
]


@asynccontextmanager
async def listening(version: int) -> AsyncIterator[int]:
    """A TCP port that takes connections; its connections are gone at the end."""
    accepted: list[Protocol] = []

    class Accepting(Protocol):
        def connectionMade(self) -> None:
            accepted.append(self)

    factory = Factory.forProtocol(Accepting)
    port: Any = reactor.listenTCP(0, factory, interface=str(LOOPBACK[version]))
    try:
        yield port.getHost().port
    finally:
        for protocol in accepted:
            protocol.transport.abortConnection()
        await port.stopListening()


def closed_port(version: int) -> int:
    """A port nobody listens on, as far as one can know."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((str(LOOPBACK[version]), 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(params=["by Twisted", "on a switchboard"])
def direct(request: pytest.FixtureRequest) -> Iterator[DirectEgress]:
    if request.param == "by Twisted":
        yield DirectEgress(reactor, 5.0)
        return
    board = Switchboard(reactor)
    board.start()
    yield DirectEgress(reactor, 5.0, partial(DialEndpoint, board))
    board.stop()


@pytest.mark.parametrize("version", FAMILIES)
@pytest_twisted.ensureDeferred
async def test_a_listening_port_is_reached(version: int, direct: DirectEgress) -> None:
    async with listening(version) as port:
        there = Destination("here.example", port)
        protocol: Any = await direct.connect(there, [LOOPBACK[version]], TargetFactory())
        peer = protocol.transport.getPeer()
        assert (ip_address(peer.host), peer.port) == (LOOPBACK[version], port)
        protocol.transport.abortConnection()


@pytest.mark.parametrize("version", FAMILIES)
@pytest_twisted.ensureDeferred
async def test_a_closed_port_is_refused(version: int, direct: DirectEgress) -> None:
    there = Destination("here.example", closed_port(version))
    with pytest.raises(Refused) as raised:
        await direct.connect(there, [LOOPBACK[version]], TargetFactory())
    assert raised.value.reply is ReplyCode.CONNECTION_REFUSED
    assert raised.value.reason == f"connection refused by {LOOPBACK[version]}"


@pytest_twisted.ensureDeferred
async def test_the_address_that_answers_is_found_behind_those_that_refuse(
    direct: DirectEgress,
) -> None:
    async with listening(4) as port:
        refusing = [IPv4Address(f"127.0.0.{number}") for number in range(2, 9)]
        before = reactor.seconds()
        there = Destination("here.example", port)
        protocol: Any = await direct.connect(there, [*refusing, LOOPBACK[4]], TargetFactory())
        assert protocol.transport.getPeer().host == "127.0.0.1"
        assert reactor.seconds() - before < 0.25, "a refused address costs no delay"
        protocol.transport.abortConnection()


# -- names ----------------------------------------------------------------------


class Authority(authority.FileAuthority):
    """A zone, from here instead of a file."""

    def loadFile(self, filename: object) -> None:
        self.soa = b"example", dns.Record_SOA(b"ns.example", b"root.example", minimum=60)
        records = [
            a(b"both.example", "192.0.2.1"),
            aaaa(b"both.example", "2001:db8::1"),
            a(b"four.example", "192.0.2.4"),
            aaaa(b"six.example", "2001:db8::6"),
            cname(b"alias.example", b"four.example"),
            cname(b"dangling.example", b"gone.example"),
            a(b"under_score.example", "192.0.2.5"),
            *(a(b"many.example", f"198.51.100.{number}") for number in range(60)),
        ]
        self.records: dict[bytes, list[Any]] = {b"example": [self.soa[1]]}
        for record in records:
            self.records.setdefault(record.name.name, []).append(record.payload)
            record.payload.ttl = record.ttl  # type: ignore[union-attr]  # of a known type


@asynccontextmanager
async def name_server() -> AsyncIterator[str]:
    """A name server for the zone, over UDP and TCP, as the configuration writes it."""
    factory = server.DNSServerFactory(authorities=[Authority("")])
    factory.noisy = False
    tcp: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
    number = tcp.getHost().port
    udp = reactor.listenUDP(number, dns.DNSDatagramProtocol(factory), interface="127.0.0.1")
    try:
        yield f"127.0.0.1:{number}"
    finally:
        for connection in list(factory.connections):
            connection.transport.abortConnection()
        await udp.stopListening()
        await tcp.stopListening()


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    port: IListeningPort = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
    try:
        yield f"127.0.0.1:{port.getHost().port}"
    finally:
        await port.stopListening()


async def found(name: str, *servers: str, seconds: float = 5.0) -> list[str]:
    resolver = resolver_from("dns:" + ",".join(servers), reactor, timeout=seconds)
    return [str(address) for address in await resolver.resolve(name)]


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("both.example", ["2001:db8::1", "192.0.2.1"]),
        ("four.example", ["192.0.2.4"]),
        ("six.example", ["2001:db8::6"]),
        ("alias.example", ["192.0.2.4"]),
        ("under_score.example", ["192.0.2.5"]),
        ("localhost", ["127.0.0.1", "::1"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_name_leads_to_its_addresses(name: str, addresses: list[str]) -> None:
    async with name_server() as here:
        assert await found(name, here) == addresses


@pytest_twisted.ensureDeferred
async def test_an_answer_too_long_for_a_datagram_comes_over_tcp() -> None:
    async with name_server() as here:
        addresses = await found("many.example", here)
    assert sorted(addresses) == sorted(f"198.51.100.{number}" for number in range(60))


@pytest.mark.parametrize("name", ["gone.example", "dangling.example"])
@pytest_twisted.ensureDeferred
async def test_a_name_that_does_not_exist_is_known_not_to(name: str) -> None:
    async with name_server() as here:
        with pytest.raises(Refused) as raised:
            await found(name, here)
    assert raised.value.reply is ReplyCode.HOST_UNREACHABLE
    assert raised.value.reason == "no such name"


@pytest_twisted.ensureDeferred
async def test_a_silent_server_is_given_up_in_time() -> None:
    async with silent_server() as nobody:
        with pytest.raises(Refused) as raised:
            await found("both.example", nobody, seconds=0.2)
    assert raised.value.reply is ReplyCode.HOST_UNREACHABLE
    assert raised.value.reason == "no name server answered within 0.2 s"


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_down_is_passed_over_at_once() -> None:
    """ICMP says so, and the socket is connected, so it hears of it."""
    async with name_server() as here:
        before = reactor.seconds()
        assert await found("four.example", f"127.0.0.1:{closed_port(4)}", here) == ["192.0.2.4"]
        assert reactor.seconds() - before < 0.5


@pytest_twisted.ensureDeferred
async def test_the_system_knows_localhost() -> None:
    resolver = resolver_from("system", reactor)
    try:
        assert {str(x) for x in await resolver.resolve("localhost")} <= {"127.0.0.1", "::1"}
    finally:
        resolver.stop()

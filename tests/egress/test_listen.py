"""Where a peer finds us: addresses and ports, on this host's own loopback."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IReactorTCP
from twisted.internet.testing import MemoryReactorClock

from socksd.address import Destination, IPAddress
from socksd.codes import ReplyCode
from socksd.egress import listen
from socksd.egress.direct import DirectEgress
from socksd.egress.listen import ANY_PORT, Listening, facing
from socksd.errors import Refused
from tests.egress.fakes import TargetFactory

PEER = ip_address("127.0.0.1")
OUT_OF_REACH = ip_address("255.255.255.255")  # connect(2) is not permitted without SO_BROADCAST


class FullReactor:
    """Has no free port but those that are given; any other number is what it raises."""

    def __init__(self, *free: int, why: int = errno.EADDRINUSE, bare: bool = False) -> None:
        self.free = free
        self.error = OSError(why, "so it is")
        self.bare = bare  # as listen(2) says it, and not bind(2)
        self.tried: list[int] = []

    def listenTCP(self, port: int, factory: IProtocolFactory, *, interface: str) -> Any:
        self.tried.append(port)
        if port not in self.free:
            raise self.error if self.bare else CannotListenError(interface, port, self.error)
        return MemoryReactorClock().listenTCP(port, factory, interface=interface)


def opened(listening: Listening, full: FullReactor, address: IPAddress = PEER) -> Destination:
    return listening.open(cast("IReactorTCP", full), [address], TargetFactory()).bound


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


FAMILIES = [
    "127.0.0.1",
    pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
]


@pytest.mark.parametrize("address", FAMILIES)
@pytest_twisted.ensureDeferred
async def test_a_port_is_open_where_it_is_said_to_be_until_it_is_closed(address: str) -> None:
    port = DirectEgress(reactor, 5.0).listen([ip_address(address)], TargetFactory())
    where = str(port.bound.host), port.bound.port
    assert port.bound.host == ip_address(address)
    socket.create_connection(where, 5).close()
    await maybeDeferred(port.close)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, 5)


@pytest.mark.parametrize("address", FAMILIES)
def test_we_face_a_peer_with_the_address_that_it_would_see(address: str) -> None:
    peer = ip_address(address)
    assert facing(peer) == peer, "it is this host"


def test_the_first_address_that_there_is_a_way_to_is_faced() -> None:
    full = FullReactor(0)
    port = ANY_PORT.open(cast("IReactorTCP", full), [OUT_OF_REACH, PEER], TargetFactory())
    assert port.bound.host == PEER


def test_no_way_to_any_address_is_the_refusal_of_a_connection() -> None:
    full = FullReactor(0)
    with pytest.raises(Refused) as raised:
        opened(ANY_PORT, full, OUT_OF_REACH)
    assert raised.value.reply is ReplyCode.NOT_ALLOWED
    assert str(OUT_OF_REACH) in raised.value.reason
    assert full.tried == []


def test_a_port_is_one_of_the_range() -> None:
    full = FullReactor(40003)
    bound = opened(Listening(range(40000, 40010)), full)
    assert bound == Destination(PEER, 40003)
    assert set(full.tried) <= set(range(40000, 40010))


@pytest.mark.parametrize(
    ("ports", "tried"),
    [
        pytest.param(range(40000, 40010), 10, id="each of few"),
        pytest.param(range(1, 65536), listen._TRIES, id="some of many"),
    ],
)
def test_a_range_without_a_free_port_is_given_up_soon(ports: range, tried: int) -> None:
    """The reactor does nothing else meanwhile."""
    full = FullReactor()
    with pytest.raises(Refused) as raised:
        opened(Listening(ports), full)
    assert raised.value.reply is ReplyCode.GENERAL_FAILURE
    assert raised.value.reason == "no port to listen on 127.0.0.1 is free"
    assert len(set(full.tried)) == len(full.tried) == tried


def test_what_no_other_port_would_mend_is_told_at_once() -> None:
    full = FullReactor(why=errno.EMFILE)
    with pytest.raises(Refused) as raised:
        opened(Listening(range(40000, 40010)), full)
    assert raised.value.reply is ReplyCode.GENERAL_FAILURE
    assert raised.value.reason == f"cannot listen on 127.0.0.1 port {full.tried[0]}: EMFILE"
    assert len(full.tried) == 1


@pytest_twisted.ensureDeferred
async def test_a_port_in_use_is_passed_over() -> None:
    with socket.create_server((str(PEER), 0)) as other:
        number = other.getsockname()[1]
        with pytest.raises(Refused, match="no port to listen on"):
            Listening(range(number, number + 1)).open(reactor, [PEER], TargetFactory())


def test_a_port_that_only_listen_finds_in_use_is_passed_over() -> None:
    """Twisted lets the error of listen(2) through as it is."""
    full = FullReactor(40003, bare=True)
    assert opened(Listening(range(40000, 40010)), full).port == 40003


@pytest.mark.parametrize(
    ("advertise", "told"),
    [
        pytest.param("203.0.113.1", "203.0.113.1", id="of the same family"),
        pytest.param("2001:db8::1", "127.0.0.1", id="of the other"),
    ],
)
def test_clients_are_told_what_is_advertised(advertise: str, told: str) -> None:
    bound = opened(Listening(range(40000, 40001), ip_address(advertise)), FullReactor(40000))
    assert bound == Destination(ip_address(told), 40000)

from __future__ import annotations

import errno
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address

import pytest
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from socksd.address import Destination
from socksd.codes import ReplyCode
from socksd.egress.direct import DirectEgress, tcp_endpoint
from socksd.egress.race import ATTEMPT_DELAY
from socksd.egress.sourced import SourcedEgress, try_source
from socksd.errors import Refused
from socksd.interfaces import IEgress
from tests.egress.fakes import TargetFactory
from tests.fakes import outcome

WEB = Destination("web.example", 80)
FOUR, SIX = "198.51.100.7", "2001:db8::7"


def sourced(*sources: str) -> tuple[MemoryReactorClock, SourcedEgress]:
    reactor = MemoryReactorClock()
    return reactor, SourcedEgress(
        [ip_address(source) for source in sources],
        partial(DirectEgress, reactor, 15.0),
        partial(tcp_endpoint, reactor, timeout=15.0),
    )


def dialled(
    sources: Sequence[str], addresses: Sequence[str]
) -> list[tuple[str, tuple[str, int] | None]]:
    """Give which addresses are tried in a second, and where each is bound to."""
    reactor, egress = sourced(*sources)
    wanted = [ip_address(address) for address in addresses]
    connecting = egress.connect(WEB, wanted, TargetFactory())
    reactor.pump([ATTEMPT_DELAY] * 4)
    connecting.addErrback(lambda _: None).cancel()
    return [(client[0], client[4]) for client in reactor.tcpClients]


def test_it_is_an_egress() -> None:
    assert verifyObject(IEgress, sourced("192.0.2.1")[1])


def test_each_family_comes_from_its_own_source() -> None:
    assert dialled(["192.0.2.1", "2001:db8::1"], [SIX, FOUR]) == [
        (SIX, ("2001:db8::1", 0)),
        (FOUR, ("192.0.2.1", 0)),
    ]


def test_a_family_without_a_source_is_not_dialled() -> None:
    """Not even though it is the first, and from no other address."""
    assert dialled(["192.0.2.1"], [SIX, FOUR]) == [(FOUR, ("192.0.2.1", 0))]


def test_with_no_address_left_it_refuses_and_says_why() -> None:
    reactor, egress = sourced("192.0.2.1")
    with pytest.raises(Refused) as raised:
        outcome(egress.connect(WEB, [ip_address(SIX)], TargetFactory()))
    assert raised.value.reply is ReplyCode.NETWORK_UNREACHABLE
    assert raised.value.reason == "the route has no source address of IPv6"
    assert not reactor.tcpClients


def test_of_no_address_at_all_it_says_what_every_egress_says() -> None:
    with pytest.raises(Refused) as raised:
        outcome(sourced("192.0.2.1")[1].connect(WEB, [], TargetFactory()))
    assert raised.value.reason == "no address to connect to"


@pytest.mark.parametrize("source", ["127.0.0.9", "::1"])
def test_an_address_of_this_host_is_a_source(source: str) -> None:
    try_source(ip_address(source))


@pytest.mark.parametrize("source", ["192.0.2.1", "2001:db8::1"])
def test_an_address_that_this_host_does_not_have_is_none(source: str) -> None:
    with pytest.raises(OSError) as raised:
        try_source(ip_address(source))
    assert raised.value.errno == errno.EADDRNOTAVAIL

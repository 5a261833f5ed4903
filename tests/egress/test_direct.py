from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksd.address import Destination, IPAddress
from socksd.codes import ReplyCode
from socksd.egress.direct import MOST_ADDRESSES, DirectEgress
from socksd.egress.race import ATTEMPT_DELAY
from socksd.errors import Refused
from socksd.interfaces import IEgress
from tests.egress.fakes import Target, TargetFactory
from tests.fakes import FakeTransport, outcome

WEB = Destination("web.example", 80)


def egress() -> tuple[MemoryReactorClock, DirectEgress]:
    reactor = MemoryReactorClock()
    return reactor, DirectEgress(reactor, 15.0)


def dialled(reactor: MemoryReactorClock) -> list[tuple[str, int]]:
    return [(client[0], client[1]) for client in reactor.tcpClients]


def connectors_gone(reactor: MemoryReactorClock) -> bool:
    return all(connector.stoppedConnecting for connector in reactor.connectors)


def test_it_is_an_egress() -> None:
    assert verifyObject(IEgress, egress()[1])


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_the_result_is_the_connected_protocol_of_the_factory(address: str) -> None:
    reactor, direct = egress()
    connected = direct.connect(WEB, [ip_address(address)], TargetFactory())
    assert dialled(reactor) == [(address, 80)]
    wrapper = reactor.tcpClients[0][2].buildProtocol(None)
    transport = FakeTransport(wrapper)
    protocol = outcome(connected)
    assert isinstance(protocol, Target)
    assert protocol.transport is transport
    assert not reactor.getDelayedCalls()


def test_the_families_take_turns() -> None:
    reactor, direct = egress()
    addresses = [ip_address(x) for x in ("2001:db8::1", "2001:db8::2", "192.0.2.1")]
    connecting = direct.connect(WEB, addresses, TargetFactory())
    reactor.pump([ATTEMPT_DELAY] * 3)
    assert [host for host, _ in dialled(reactor)] == ["2001:db8::1", "192.0.2.1", "2001:db8::2"]
    connecting.addErrback(lambda _: None).cancel()


@given(st.lists(st.ip_addresses(), min_size=1, max_size=30), st.integers(1, 65535))
def test_only_the_given_addresses_are_ever_dialled(addresses: list[IPAddress], port: int) -> None:
    """The judged ones: each once, nothing else, and a bounded number of them."""
    reactor, direct = egress()
    connecting = direct.connect(Destination("web.example", port), addresses, TargetFactory())
    reactor.pump([0.1] * 100)
    given_ones = [(str(address), port) for address in addresses]
    for attempt in dialled(reactor):
        given_ones.remove(attempt)
    assert len(reactor.tcpClients) == min(len(addresses), MOST_ADDRESSES)
    connecting.addErrback(lambda _: None).cancel()
    assert not reactor.getDelayedCalls()
    assert connectors_gone(reactor)


def test_a_failure_is_refused_by_its_errno() -> None:
    reactor, direct = egress()
    connecting = direct.connect(WEB, [ip_address("192.0.2.1")], TargetFactory())
    failed = Failure(error.getConnectError((errno.EHOSTUNREACH, "")))
    reactor.tcpClients[0][2].clientConnectionFailed(reactor.connectors[0], failed)
    with pytest.raises(Refused) as raised:
        outcome(connecting)
    assert raised.value.reply is ReplyCode.HOST_UNREACHABLE
    assert raised.value.reason == "host unreachable: 192.0.2.1"


def test_the_deadline_refuses_and_counts_what_was_tried() -> None:
    reactor, direct = egress()
    addresses = [ip_address("192.0.2.1"), ip_address("192.0.2.2")]
    connecting = direct.connect(WEB, addresses, TargetFactory())
    reactor.pump([0.25] * 60)
    with pytest.raises(Refused) as raised:
        outcome(connecting)
    assert raised.value.reply is ReplyCode.HOST_UNREACHABLE
    assert raised.value.reason == "no answer in time from 192.0.2.1 (2 addresses tried)"
    assert not reactor.getDelayedCalls()
    assert connectors_gone(reactor)


def test_cancelling_leaves_nothing() -> None:
    reactor, direct = egress()
    connecting = direct.connect(WEB, [ip_address("192.0.2.1")] * 3, TargetFactory())
    connecting.cancel()
    with pytest.raises(CancelledError):
        outcome(connecting)
    assert not reactor.getDelayedCalls()
    assert connectors_gone(reactor)


def test_one_address_is_no_race_and_cancelling_leaves_nothing() -> None:
    """Its deadline is that of whoever waits."""
    reactor, direct = egress()
    connecting = direct.connect(WEB, [ip_address("192.0.2.1")], TargetFactory())
    reactor.pump([ATTEMPT_DELAY] * 3)
    assert len(reactor.tcpClients) == 1
    connecting.cancel()
    with pytest.raises(CancelledError):
        outcome(connecting)
    assert not reactor.getDelayedCalls()
    assert connectors_gone(reactor)


def test_port_0_is_refused_without_a_packet() -> None:
    reactor, direct = egress()
    to_port_0 = Destination("web.example", 0)
    with pytest.raises(Refused) as raised:
        outcome(direct.connect(to_port_0, [ip_address("192.0.2.1")], TargetFactory()))
    assert raised.value.reply is ReplyCode.CONNECTION_REFUSED
    assert not reactor.tcpClients


def test_no_address_is_no_connection() -> None:
    reactor, direct = egress()
    with pytest.raises(Refused) as raised:
        outcome(direct.connect(WEB, [], TargetFactory()))
    assert raised.value.reply is ReplyCode.HOST_UNREACHABLE
    assert not reactor.getDelayedCalls()

"""Straight to the destination, over TCP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import IPv4Address
from typing import cast

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTCP,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import Destination, IPAddress
from socksd.codes import ReplyCode
from socksd.egress.listen import ANY_PORT, Listening
from socksd.egress.race import AllFailed, interleave, race
from socksd.egress.refusals import refusal
from socksd.errors import Refused
from socksd.interfaces import IEgress, OpenPort

# Begun 250 ms apart, sixteen are under way after 4 s, well within any sensible
# deadline. A name with hundreds of addresses must not make one request a scan
# of them, nor take a descriptor for each.
MOST_ADDRESSES = 16


class IReactorConnecting(IReactorTCP, IReactorTime):
    """What connecting takes of the reactor."""


# Gives the endpoint of exactly this address and port.
EndpointAt = Callable[[IPAddress, int], IStreamClientEndpoint]


def tcp_endpoint(
    reactor: IReactorConnecting,
    address: IPAddress,
    port: int,
    timeout: float,
    source: IPAddress | None = None,
) -> IStreamClientEndpoint:
    """Give Twisted's endpoint of exactly this address: nothing is looked up."""
    kind = TCP4ClientEndpoint if isinstance(address, IPv4Address) else TCP6ClientEndpoint
    bind = None if source is None else (str(source), 0)
    return kind(reactor, str(address), port, timeout, bindAddress=bind)


@implementer(IEgress)
class DirectEgress:
    """
    Connect to the addresses that were judged, and to no other.

    Args:
        timeout: Seconds until all addresses of a destination are given up; a
            single one is left to the deadline of whoever waits, who cancels.
        endpoint_at: How to connect to an address, if not by Twisted's endpoints.
        listening: How to wait for a connection.
    """

    def __init__(
        self,
        reactor: IReactorConnecting,
        timeout: float,
        endpoint_at: EndpointAt | None = None,
        listening: Listening = ANY_PORT,
    ) -> None:
        self._reactor = reactor
        self._listening = listening
        self._timeout = timeout
        # Given the whole timeout, so that the race's own deadline is the one
        # that ends an attempt, and not the endpoint's default.
        self._endpoint_at = endpoint_at or partial(tcp_endpoint, reactor, timeout=timeout)

    def connect(
        self, destination: Destination, addresses: Sequence[IPAddress], factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        """
        Race for the first of *addresses* to answer; see IEgress.

        Of more than ``MOST_ADDRESSES``, the first are tried.
        """
        if destination.port == 0:
            # Reserved (RFC 6335 section 6), so nobody listens there, yet Linux
            # sends a SYN all the same: the answer is a RST, or silence.
            return fail(Refused(ReplyCode.CONNECTION_REFUSED, "port 0 is no destination"))
        if not addresses:
            return fail(Refused(ReplyCode.HOST_UNREACHABLE, "no address to connect to"))
        if len(addresses) == 1:  # nobody to race against
            endpoint = self._endpoint_at(addresses[0], destination.port)
            return endpoint.connect(factory).addErrback(_refused_by, addresses[0])
        tried = interleave(addresses)[:MOST_ADDRESSES]
        endpoints = [self._endpoint_at(address, destination.port) for address in tried]
        return race(endpoints, factory, self._reactor, self._timeout).addErrback(_refused, tried)

    def listen(self, addresses: Sequence[IPAddress], factory: IProtocolFactory) -> OpenPort:
        """Listen where one of *addresses* would connect to; see IEgress."""
        return self._listening.open(self._reactor, addresses, factory)


def _refused_by(failure: Failure, address: IPAddress) -> Failure:
    if failure.check(ConnectingCancelledError):
        raise CancelledError
    raise refusal([(address, cast("BaseException", failure.value))])


def _refused(failure: Failure, tried: Sequence[IPAddress]) -> Failure:
    if not isinstance(failure.value, AllFailed):  # cancelled
        return failure
    errors = zip(tried, failure.value.errors, strict=True)
    raise refusal([(address, error) for address, error in errors if error is not None])

"""Connections from an address of this host's that the operator has chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from socket import AF_INET, AF_INET6, socket

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from socksd.address import Destination, IPAddress
from socksd.codes import ReplyCode
from socksd.egress.direct import EndpointAt
from socksd.errors import Refused
from socksd.interfaces import IEgress, OpenPort


@implementer(IEgress)
class SourcedEgress:
    """
    Connect from given addresses, and from no other.

    An address of a family that has no source is not connected to: from
    another address it would get around what the source is there for.

    Args:
        sources: One of a family at most.
        connect_by: Makes the egress that connects by such endpoints.
        endpoint_from: Gives the endpoint of exactly an address and a port, from
            exactly the address *source*.
    """

    def __init__(
        self,
        sources: Sequence[IPAddress],
        connect_by: Callable[[EndpointAt], IEgress],
        endpoint_from: Callable[..., IStreamClientEndpoint],
    ) -> None:
        self._sources = {source.version: source for source in sources}
        self._endpoint_from = endpoint_from
        self._egress = connect_by(self._endpoint_at)

    def _endpoint_at(self, address: IPAddress, port: int) -> IStreamClientEndpoint:
        return self._endpoint_from(address, port, source=self._sources[address.version])

    def connect(
        self, destination: Destination, addresses: Sequence[IPAddress], factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        """Connect to those of *addresses* that there is a source for; see IEgress."""
        reached = [address for address in addresses if address.version in self._sources]
        if addresses and not reached:
            reason = f"the route has no source address of IPv{addresses[0].version}"
            return fail(Refused(ReplyCode.NETWORK_UNREACHABLE, reason))
        return self._egress.connect(destination, reached, factory)

    def listen(self, addresses: Sequence[IPAddress], factory: IProtocolFactory) -> OpenPort:
        """Listen where one of *addresses* would connect to; see IEgress."""
        return self._egress.listen(addresses, factory)


def try_source(source: IPAddress) -> None:
    """
    See whether connections can come from *source*.

    Raises:
        OSError: EADDRNOTAVAIL where it is none of this host's addresses.
    """
    with socket(AF_INET if source.version == 4 else AF_INET6) as sock:
        sock.bind((str(source), 0))

"""What a listener does with a connection before there is a session: PROXY, then TLS."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from socksd.errors import ProtocolError
from socksd.events import Outcome
from socksd.facts import Facts
from socksd.interfaces import IEndTransport
from socksd.server.protocol import Arrival, SocksFactory, SocksProtocol, client_of
from socksd.server.secure import SecureProtocol, Security
from socksd.wire.proxy import ProxyHeader

IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Front:
    """
    What comes before a listener's sessions.

    A PROXY header stands in front of TLS, in clear: so balancers that do not
    end TLS send it, and so does HAProxy where it speaks TLS to us itself.

    Attributes:
        balancers: Whose connections begin with a PROXY header. Nobody else's
            are served then: "the receiver [...] MUST not try to guess whether
            the protocol header is present or not. This means that the
            protocol explicitly prevents port sharing between public and
            private access" (section 2 of its specification). ``None``: nobody
            sends one.
        security: What TLS is spoken by; ``None``: it is not.
    """

    balancers: tuple[IPNetwork, ...] | None = None
    security: Security | None = None

    def protocol(self, factory: SocksFactory) -> Protocol:
        """Make the protocol of a new connection."""
        if self.balancers is None:
            return self.secured(factory)
        return Preface(self.balancers, self, factory)

    def secured(self, factory: SocksFactory, arrival: Arrival | None = None) -> Protocol:
        """Make the protocol of a connection behind its PROXY header."""
        end = SocksProtocol() if self.security is None else SecureProtocol(self.security.identify)
        end.factory = factory
        end.arrival = arrival
        if self.security is None:
            return end
        clock = factory.runtime.clock
        tls = TLSMemoryBIOFactory(self.security, False, factory, clock)
        return tls.protocol(tls, end)


class _TurnedAway(SocksProtocol):
    """A connection whose session is only there to say why it ends."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__()
        self._why = outcome, reason

    def connectionMade(self) -> None:
        """Begin a session, and end it."""
        self.factory.begin(self).finish(*self._why)


class Preface(Protocol):
    """
    Reads the PROXY header, and hands the connection on to who speaks behind it.

    A balancer that goes without a word for a client, as after a health check,
    has been no session: no line in the log tells of it.
    """

    transport: IEndTransport

    def __init__(
        self, balancers: tuple[IPNetwork, ...], front: Front, factory: SocksFactory
    ) -> None:
        self._balancers = balancers
        self._front = front
        self._factory = factory
        self._unread = bytearray()
        self._header: ProxyHeader | None = None
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Wait for the header, if there may be one."""
        factory, runtime = self._factory, self._factory.runtime
        peer, port = client_of(self.transport.getPeer())
        facts = Facts(peer, factory.listener, time=time.time())
        self._arrival = Arrival(self.transport, runtime, facts, port)
        self._began = runtime.clock.seconds()
        factory.sessions.expect(self.transport, runtime)
        if not any(peer in network for network in self._balancers):
            self._turn_away(Outcome.PROTOCOL_ERROR, "comes from none of proxy_protocol's balancers")
            return
        self._deadline = runtime.clock.callLater(runtime.deadlines.handshake, self._overdue)

    def dataReceived(self, data: bytes) -> None:
        """Take the header, and hand on."""
        self._unread += data
        if self._header is None:
            try:
                self._header = ProxyHeader.take(self._unread)
            except ProtocolError as error:
                self._turn_away(Outcome.PROTOCOL_ERROR, str(error))
                return
            if self._header is None:
                return
        # The balancer's own connection is a session's only if it says something.
        # Its checks are LOCAL, or (version 1) name itself.
        if self._header.client not in (None, self._arrival.facts.client) or self._unread:
            self._hand_on(self._front.secured(self._factory, self._arrived()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give up: nobody was there to be served."""
        self._disarm()
        self._factory.sessions.give_up(self.transport)

    def _arrived(self) -> Arrival:
        arrival = self._arrival
        runtime = arrival.runtime
        waited = min(runtime.clock.seconds() - self._began, runtime.deadlines.handshake)
        if self._header is None or self._header.client is None:
            return replace(arrival, waited=waited)
        facts = replace(arrival.facts, client=self._header.client)
        return replace(arrival, facts=facts, port=self._header.port, waited=waited)

    def _overdue(self) -> None:
        self._deadline = None
        self._turn_away(Outcome.TIMED_OUT, "waiting for a PROXY header, or what follows it")

    def _turn_away(self, outcome: Outcome, reason: str) -> None:
        self._unread.clear()
        end = _TurnedAway(outcome, reason)
        end.factory = self._factory
        end.arrival = self._arrived()
        self._hand_on(end)

    def _hand_on(self, protocol: Protocol) -> None:
        self._disarm()
        transport = self.transport
        transport.protocol = protocol  # type: ignore[attr-defined]  # whom a transport tells
        protocol.makeConnection(transport)
        if self._unread:
            protocol.dataReceived(bytes(self._unread))

    def _disarm(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

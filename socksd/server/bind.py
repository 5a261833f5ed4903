"""BIND (RFC 1928 sections 4 and 6): ask, resolve, ask, listen, reply, accept, reply, relay."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from socksd.address import Destination, IPAddress
from socksd.codes import Command, ReplyCode
from socksd.errors import Refused
from socksd.events import PeerArrived, PortOpened, StrangerTurnedAway
from socksd.facts import DIRECT, Verdict
from socksd.server.connect import denied, resolve
from socksd.server.ends import End, address_of
from socksd.server.states import State
from socksd.wire.socks5 import Request

if TYPE_CHECKING:
    from socksd.server.session import Session


async def bind(session: Session, request: Request) -> None:
    """
    Carry out BIND.

    DST.ADDR is the peer that may connect; each of its addresses is judged
    before there is a port. DST.PORT is judged, too, but a peer may come from
    any port: clients send 0, or that of another connection to the same host.

    Raises:
        Refused: With what the client is to be told.
    """
    destination = request.destination
    if not isinstance(destination.host, str) and destination.host.is_unspecified:
        # The RFC does not say what it means. "Anybody" would join the client
        # with whoever is the first to find the port.
        raise Refused(ReplyCode.NOT_ALLOWED, "DST.ADDR names nobody who might connect")
    facts = session.facts.asking(Command.BIND, destination)
    decision = session.ask(facts)  # before any lookup, as for CONNECT
    if decision.verdict is Verdict.DENY:
        raise denied(decision)
    if facts.address is not None:
        permitted = {facts.address: decision}
    else:
        permitted = await resolve(session, facts, str(destination.host))
    if any(each.route != DIRECT for each in permitted.values()):
        # To listen here would be a way around the one that the rule names.
        raise Refused(ReplyCode.COMMAND_NOT_SUPPORTED, "there is no BIND but by the direct route")
    session.enter(State.BINDING)
    clock, peers = session.runtime.clock, _Peers(session, permitted)
    opened = clock.seconds()
    # IPv4 first where there is a choice: SOCKS4 and FTP's PORT can tell no other.
    addresses = sorted(permitted, key=lambda address: address.version)
    port = session.runtime.egress.listen(addresses, peers)
    try:
        session.tell(PortOpened(session.number, port.bound))
        session.listening(port.bound)
        peer: End = await session.outcome_of(peers.arrival)
    except Refused as refused:
        if not peers.strangers:
            raise
        reason = f"{refused.reason}; turned away: {peers.strangers}"
        raise Refused(refused.reply, reason) from None
    finally:
        port.close()
    address, number = peer.far()
    session.address, session.decision = address, permitted[address]
    session.tell(PeerArrived(session.number, address, number, clock.seconds() - opened))
    try:
        session.relay(peer, Destination(address, number))
    except Exception:
        peer.abort()
        raise


class _Peer(End):
    """The connection of a peer."""

    factory: _Peers

    def connectionMade(self) -> None:
        """Tell who waits for it."""
        self.factory.arrival.callback(self)


class _Peers(Factory[_Peer]):
    """
    Lets one in who is expected, and turns everybody else away.

    Attributes:
        arrival: Fires with the one.
        strangers: How many others have come.
    """

    noisy = False

    def __init__(self, session: Session, expected: Collection[IPAddress]) -> None:
        self.arrival: Deferred[End] = Deferred()
        self.strangers = 0
        self._session = session
        self._expected = expected

    def logPrefix(self) -> str:
        """Name what listens, for the two lines that Twisted writes of each port."""
        return "BIND"

    def buildProtocol(self, addr: IAddress | None) -> _Peer | None:
        """Make the peer's end; ``None`` closes the connection."""
        assert addr is not None  # a TCP port knows who has connected
        address, port = address_of(addr)
        if address not in self._expected:
            self.strangers += 1
            self._session.tell(StrangerTurnedAway(self._session.number, address, port))
            return None
        if self.arrival.called:  # one was before it, in the same turn of the reactor
            return None
        peer = _Peer()
        peer.factory = self
        return peer

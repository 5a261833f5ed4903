"""What a listener makes of a connection."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from socket import SocketType
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address as TCP4Address
from twisted.internet.address import IPv6Address as TCP6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

from socksd.address import IPAddress, parsed
from socksd.facts import Facts
from socksd.interfaces import IEndTransport, ISwitchboard, SocketName
from socksd.server.bare import BareEnd
from socksd.server.door import Door
from socksd.server.ends import End
from socksd.server.runtime import Runtime
from socksd.server.session import Session

if TYPE_CHECKING:
    from socksd.server.front import Front

_THIS_HOST = IPv4Address("127.0.0.1")


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """
    A connection of which more has to be heard before it can be a session.

    Attributes:
        transport: The connection, as it was accepted.
        runtime: What its session will begin with.
        facts: What is known of the client.
        port: The client's.
        waited: Seconds since it was accepted, which count for its handshake,
            and are no more than that may take.
    """

    transport: IEndTransport
    runtime: Runtime
    facts: Facts
    port: int
    waited: float = 0.0


class SocksProtocol(End):
    """
    A client's connection.

    ``dataReceived`` goes to the session, which drives the parser through
    method negotiation, authentication and request; then to the relay.

    Attributes:
        arrival: How it came here, where that took more than to be accepted.
    """

    factory: SocksFactory
    arrival: Arrival | None = None
    peer: IAddress | None = None

    def connectionMade(self) -> None:
        """Begin a session."""
        self.factory.begin(self)


class SocksFactory(Factory[Protocol]):
    """
    The sessions of one listener.

    Attributes:
        runtime: What new sessions begin with; swapped by a reload,
        front: and with it what comes before a session, if anything.
        sessions: The live ones of all listeners.
    """

    noisy = False

    def __init__(
        self, listener: str, runtime: Runtime, sessions: Sessions, front: Front | None = None
    ) -> None:
        self.listener = listener
        self.runtime = runtime
        self.sessions = sessions
        self.front = front

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Make the protocol of a new connection, or close it where there is no room."""
        if self.sessions.door.overrun:
            return None
        if self.front is not None:
            return self.front.protocol(self)
        protocol = SocksProtocol()
        protocol.factory = self
        protocol.peer = addr
        return protocol

    def accept(self, board: ISwitchboard, sock: SocketType, name: SocketName) -> None:
        """Begin a session on a socket that *board* has accepted; where there is no *front*."""
        if self.sessions.door.overrun:
            sock.close()
            return
        facts = Facts(parsed(name[0]), self.listener, time=time.time())
        self.sessions.begin(BareEnd(board, sock, name), self.runtime, facts, name[1])

    def begin(self, end: SocksProtocol) -> Session:
        """Begin a session on a connection that has just been made."""
        if end.arrival is not None:
            return self.sessions.arrived(end, end.arrival)
        client, port = client_of(end.peer or end.transport.getPeer())
        facts = Facts(client, self.listener, time=time.time())
        return self.sessions.begin(end, self.runtime, facts, port)


class Sessions:
    """
    The live sessions, and the numbers they go by; and who is about to become one.

    Attributes:
        left: Called with a Runtime when the last session that kept it has gone.
        begun: The number of the latest.
        before: The number before the first: 0, but for one process of several.
    """

    def __init__(self, door: Door, before: int = 0) -> None:
        self.door = door
        self.left: Callable[[Runtime], object] = lambda _: None
        self._live: set[Session] = set()
        self._expected: dict[IEndTransport, Runtime] = {}
        self._keep: Counter[int] = Counter()  # how many keep a Runtime, by its id()
        self.begun = self.before = before

    def begin(
        self, end: End, runtime: Runtime, facts: Facts, client_port: int, waited: float = 0.0
    ) -> Session:
        """Begin one; it leaves by itself when it has closed."""
        self.begun += 1
        session = Session(self.begun, end, runtime, facts, client_port, self._closed, waited)
        self._live.add(session)
        self._keep[id(runtime)] += 1
        end.carried_by(session)
        if isinstance(end, BareEnd):
            self.door.entered(len(self._live) + len(self._expected), end)
        else:
            self.door.entered(len(self._live) + len(self._expected), end.transport)
        return session

    def expect(self, transport: IEndTransport, runtime: Runtime) -> None:
        """Count a connection that is to become a session, or to be given up."""
        self._keep[id(runtime)] += 1
        self._expected[transport] = runtime
        self.door.entered(len(self), transport)

    def arrived(self, end: End, arrival: Arrival) -> Session:
        """Begin one on a connection that was expected."""
        runtime = self._expected.pop(arrival.transport)
        self._keep[id(runtime)] -= 1  # now its session does
        return self.begin(end, runtime, arrival.facts, arrival.port, arrival.waited)

    def give_up(self, transport: IEndTransport) -> None:
        """Expect no more of a connection, which is gone."""
        self._gone(self._expected.pop(transport))

    def stop(self) -> None:
        """End all of them at once."""
        for session in self:
            session.stop()
        for transport in tuple(self._expected):
            transport.abortConnection()

    def _closed(self, session: Session) -> None:
        self._live.discard(session)
        self._gone(session.runtime)

    def _gone(self, runtime: Runtime) -> None:
        self.door.left(len(self._live) + len(self._expected))
        self._keep[id(runtime)] -= 1
        if not self._keep[id(runtime)]:
            del self._keep[id(runtime)]
            self.left(runtime)

    def keep(self, runtime: Runtime) -> int:
        """How many connections keep *runtime*."""
        return self._keep[id(runtime)]

    def carried(self) -> tuple[int, int]:
        """Octets that the relays of those that live have carried so far, up and down."""
        up = down = 0
        for session in self._live:
            more_up, more_down = session.carried
            up += more_up
            down += more_down
        return up, down

    def __len__(self) -> int:
        return len(self._live) + len(self._expected)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._live))


def client_of(peer: IAddress | None) -> tuple[IPAddress, int]:
    """
    Give a peer's address in its normal form, and its port.

    A unix socket's peer is on this host by definition: the loopback, port 0.
    """
    if isinstance(peer, (TCP4Address, TCP6Address)):
        return parsed(peer.host), peer.port
    return _THIS_HOST, 0

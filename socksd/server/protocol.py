"""What a listener makes of a connection."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from itertools import count

from twisted.internet.address import IPv4Address as TCP4Address
from twisted.internet.address import IPv6Address as TCP6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from socksd.address import IPAddress, parsed
from socksd.facts import Facts
from socksd.server.door import Door
from socksd.server.ends import End
from socksd.server.runtime import Runtime
from socksd.server.session import Session

_THIS_HOST = IPv4Address("127.0.0.1")


class SocksProtocol(End):
    """
    A client's connection.

    ``dataReceived`` goes to the session, which drives the parser through
    method negotiation, authentication and request; then to the relay.
    """

    factory: SocksFactory
    peer: IAddress | None

    def connectionMade(self) -> None:
        """Begin a session."""
        self.factory.begin(self)


class SocksFactory(Factory[SocksProtocol]):
    """
    The sessions of one listener.

    Attributes:
        runtime: What new sessions begin with; the one mutable reference.
        sessions: The live ones of all listeners.
    """

    noisy = False

    def __init__(self, listener: str, runtime: Runtime, sessions: Sessions) -> None:
        self.listener = listener
        self.runtime = runtime
        self.sessions = sessions

    def buildProtocol(self, addr: IAddress | None) -> SocksProtocol | None:
        """Make the protocol of a new connection, or close it where there is no room."""
        if self.sessions.door.overrun:
            return None
        protocol = SocksProtocol()
        protocol.factory = self
        protocol.peer = addr
        return protocol

    def begin(self, end: SocksProtocol) -> None:
        """Begin a session on a connection that has just been made."""
        client, port = client_of(end.peer)
        facts = Facts(client, self.listener, time=time.time())
        self.sessions.begin(end, self.runtime, facts, port)


class Sessions:
    """
    The live sessions, and the numbers they go by.

    Attributes:
        left: Called with a Runtime when the last session that kept it has gone.
    """

    def __init__(self, door: Door) -> None:
        self.door = door
        self.left: Callable[[Runtime], object] = lambda _: None
        self._live: set[Session] = set()
        self._keep: Counter[int] = Counter()  # how many keep a Runtime, by its id()
        self._numbers = count(1)

    def begin(self, end: End, runtime: Runtime, facts: Facts, client_port: int) -> None:
        """Begin one; it leaves by itself when it has closed."""
        session = Session(next(self._numbers), end, runtime, facts, client_port, self._closed)
        self._live.add(session)
        self._keep[id(runtime)] += 1
        end.carried_by(session)
        self.door.entered(len(self._live), end.transport)

    def _closed(self, session: Session) -> None:
        self._live.discard(session)
        self.door.left(len(self._live))
        runtime = session.runtime
        self._keep[id(runtime)] -= 1
        if not self._keep[id(runtime)]:
            del self._keep[id(runtime)]
            self.left(runtime)

    def keep(self, runtime: Runtime) -> int:
        """How many sessions keep *runtime*."""
        return self._keep[id(runtime)]

    def __len__(self) -> int:
        return len(self._live)

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

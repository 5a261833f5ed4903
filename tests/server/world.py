"""A session on a fake transport, among stand-ins of the other rooms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from zope.interface import implementer

from socksd.address import Destination, IPAddress
from socksd.codes import Method
from socksd.errors import LoginFailed, Refused
from socksd.facts import Decision, Facts, Principal, Verdict
from socksd.interfaces import (
    Ended,
    EndedBy,
    IAssociation,
    IAuthenticator,
    IEgress,
    IEnd,
    IPolicy,
    IRelay,
    IResolver,
    ISecurityContext,
    ITargets,
    OpenPort,
    Tally,
)
from socksd.server.door import Door
from socksd.server.protocol import Sessions, SocksFactory, SocksProtocol
from socksd.server.runtime import Runtime
from socksd.server.spoken import PROTOCOLS, dialogues
from socksd.server.states import Deadlines
from tests.fakes import FakeTransport, Recorder
from tests.tokens import FakeContext

ALLOW = Decision(Verdict.ALLOW, "yes")
DENY = Decision(Verdict.DENY, "no")
DEFER = Decision(Verdict.DEFER, "later")


@implementer(IPolicy)
class FakePolicy:
    """Answers as a function of the facts, and remembers the questions."""

    def __init__(self, answer: Callable[[Facts], Decision]) -> None:
        self.answer = answer
        self.asked: list[Facts] = []

    def decide(self, facts: Facts) -> Decision:
        self.asked.append(facts)
        return self.answer(facts)


class Pending:
    """Hands Deferreds out and remembers them; a cancelled one says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.deferreds: list[Deferred[Any]] = []
        self.cancelled = 0

    def __call__(self, *arguments: Any) -> Deferred[Any]:
        def cancel(_: object) -> None:
            self.cancelled += 1

        self.calls.append(arguments)
        self.deferreds.append(Deferred(cancel))
        return self.deferreds[-1]


@implementer(IResolver)
class FakeResolver:
    def __init__(self) -> None:
        self.pending = Pending()

    def resolve(self, name: str) -> Deferred[Sequence[IPAddress]]:
        return self.pending(name)


class FakePort:
    """A port that somebody listens on; the test says who connects."""

    def __init__(self, addresses: Sequence[IPAddress], factory: IProtocolFactory) -> None:
        self.addresses = tuple(addresses)
        self.factory = factory
        self.is_open = True

    def close(self) -> None:
        assert self.is_open, "closed twice"
        self.is_open = False

    def connect(self, address: str, port: int = 20) -> FakeTransport | None:
        """Connect; ``None``: and be closed at once."""
        assert self.is_open, "nobody listens"
        return self.connect_in_the_same_turn(address, port)

    def connect_in_the_same_turn(self, address: str, port: int) -> FakeTransport | None:
        """Connect, though the port was closed since the reactor has looked."""
        kind = IPv6Address if ":" in address else IPv4Address
        peer = kind("TCP", address, port)
        protocol = self.factory.buildProtocol(peer)
        return FakeTransport(protocol, peer) if protocol is not None else None


@implementer(IEgress)
class FakeEgress:
    def __init__(self) -> None:
        self.pending = Pending()
        self.factory: IProtocolFactory | None = None
        self.port: FakePort | None = None
        self.no_port: Refused | None = None

    def connect(
        self,
        destination: Destination,
        addresses: Sequence[IPAddress],
        factory: IProtocolFactory,
    ) -> Deferred[IProtocol]:
        self.factory = factory
        return self.pending(destination, tuple(addresses))

    def listen(self, addresses: Sequence[IPAddress], factory: IProtocolFactory) -> OpenPort:
        if self.no_port is not None:
            raise self.no_port
        self.port = FakePort(addresses, factory)
        return OpenPort(Destination(ip_address("192.0.2.99"), 45678), self.port.close)

    def answer(self, address: str, port: int = 80) -> FakeTransport:
        """Let the last connection be made, to *address*."""
        assert self.factory is not None
        kind = IPv6Address if ":" in address else IPv4Address
        here = "::1" if ":" in address else "127.0.0.1"
        protocol = self.factory.buildProtocol(None)
        transport = FakeTransport(protocol, kind("TCP", address, port), kind("TCP", here, 50000))
        self.pending.deferreds[-1].callback(protocol)
        return transport


@implementer(IAuthenticator)
class FakeAuthenticator:
    def __init__(self) -> None:
        self.acceptable: tuple[Method, ...] = (Method.NO_AUTHENTICATION,)
        self.users: dict[bytes, bytes] = {}
        self.slow = False
        self.pending = Pending()
        self.context: ISecurityContext = FakeContext()

    def methods(self, client: IPAddress) -> Sequence[Method]:
        return self.acceptable

    def login(self, username: bytes, password: bytes, client: IPAddress) -> Deferred[Principal]:
        if self.slow:
            return self.pending(username, password, client)
        if self.users.get(username) == password:
            return succeed(Principal(username.decode()))
        return fail(LoginFailed("wrong user name or password"))

    def security_context(self, client: IPAddress) -> ISecurityContext:
        return self.context


@implementer(IRelay)
class FakeRelay:
    """Remembers what it was given; the test says when it ends."""

    def __init__(self, client: IEnd, target: IEnd) -> None:
        self.client, self.target = client, target
        self.up = self.down = 0
        self.early: bytes | None = None

    def join(self, early: bytes, ended: Ended) -> None:
        self.early, self.ended = early, ended

    def abort(self) -> None:
        self.end(EndedBy.US)

    def end(self, by: EndedBy, up: int = 0, down: int = 0) -> None:
        self.ended(Tally(up, down, by))


@implementer(IAssociation)
class FakeAssociation:
    """Remembers what it was given; the test asks for targets, and says when it ends."""

    def __init__(self, client: IEnd, expected: Destination, targets: ITargets) -> None:
        self.client, self.expected, self.targets = client, expected, targets
        self.bound = Destination(ip_address("192.0.2.9"), 40123)
        self.up = self.down = 0
        self.early: bytes | None = None

    def join(self, early: bytes, ended: Ended) -> None:
        self.early, self.ended = early, ended

    def abort(self) -> None:
        self.end(EndedBy.US)

    def end(self, by: EndedBy, up: int = 0, down: int = 0) -> None:
        self.ended(Tally(up, down, by))


class PlentyOfDescriptors:
    def limit(self) -> int:
        return 1024

    def lowest_free(self) -> int:
        return 10


@dataclass
class World:
    """One listener; connect() gives a client."""

    policy: FakePolicy = field(default_factory=lambda: FakePolicy(lambda facts: ALLOW))
    clock: Clock = field(default_factory=Clock)
    resolver: FakeResolver = field(default_factory=FakeResolver)
    egress: FakeEgress = field(default_factory=FakeEgress)
    authenticator: FakeAuthenticator = field(default_factory=FakeAuthenticator)
    events: Recorder = field(default_factory=Recorder)
    relays: list[FakeRelay] = field(default_factory=list)
    associations: list[FakeAssociation] = field(default_factory=list)
    no_ports: OSError | None = None

    def __post_init__(self) -> None:
        self.runtime = Runtime(
            clock=self.clock,
            dialogues=dict.fromkeys(("office", "lab"), dialogues(PROTOCOLS)),
            authenticator=self.authenticator,
            policy=self.policy,
            resolver=self.resolver,
            egress=self.egress,
            relay=self._relay,
            associate=self._associate,
            advertise=None,
            observer=self.events,
            deadlines=Deadlines(),
            early_data=1000,
            refusals=lambda client, user, plain: f"{client} {user} {plain}\n",
        )
        self.sessions = Sessions(Door(self.clock, None, PlentyOfDescriptors()))
        self.factory = SocksFactory("office", self.runtime, self.sessions)

    def _relay(self, client: IEnd, target: IEnd) -> FakeRelay:
        self.relays.append(FakeRelay(client, target))
        return self.relays[-1]

    def _associate(self, client: IEnd, expected: Destination, targets: ITargets) -> FakeAssociation:
        if self.no_ports is not None:
            raise self.no_ports
        self.associations.append(FakeAssociation(client, expected, targets))
        return self.associations[-1]

    def connect(self, client: str = "192.0.2.1") -> FakeTransport:
        """Let a client connect."""
        kind = IPv6Address if ":" in client else IPv4Address
        protocol = self.factory.buildProtocol(kind("TCP", client, 40000))
        assert isinstance(protocol, SocksProtocol)
        return FakeTransport(protocol, kind("TCP", client, 40000))


def addresses(*texts: str) -> tuple[IPAddress, ...]:
    return tuple(map(ip_address, texts))

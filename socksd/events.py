"""
What happened, as values.

A session tells its observer about eight of these. They end in exclusive
pairs (``Resolved`` or ``ResolveFailed``, ``Connected`` or ``ConnectFailed``)
and in exactly one ``SessionClosed``; one with the outcome DENIED comes after
exactly one ``Denied`` that is not of a datagram. A BIND has ``PortOpened``
and, if its peer comes, ``PeerArrived`` instead. Passwords and payload are
never in one.

What goes well before the end, which is most of them, is told only to an
observer that hears it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import get_args

from socksd.address import Destination, IPAddress
from socksd.codes import Command, Method, ReplyCode
from socksd.facts import Decision, Report, Verdict
from socksd.frozen import value
from socksd.interfaces import Drop


class Outcome(StrEnum):
    """How a session ended, for people, logs and metrics alike."""

    SERVED = "served"  # relayed until both directions ended in order
    RESET = "reset"  # relayed until one side reset the connection
    IDLE = "idle"  # relayed until nothing moved for the idle or linger time
    DENIED = "denied"  # by the policy
    FAILED = "failed"  # name or destination not reached, or command not supported
    LOGIN_FAILED = "login-failed"
    NO_METHOD = "no-method"  # no acceptable authentication method offered
    PROTOCOL_ERROR = "protocol-error"
    TIMED_OUT = "timed-out"  # the handshake took too long
    CLIENT_LEFT = "client-left"  # before the relay began
    STOPPED = "stopped"  # by us: shutdown
    ERROR = "error"  # our bug; the log has the failure


class Asked(StrEnum):
    """What a session's standing decision was about."""

    CLIENT = "client"  # who connects, at the first octets
    REQUEST = "request"  # what it asked for: the address as well, where that was a literal
    ADDRESS = "address"  # where the name has led


@value
class SessionOpened:
    """A client has connected."""

    session: int
    client: IPAddress
    client_port: int  # 0 for a unix-socket peer
    listener: str


@value
class MethodChosen:
    """Method negotiation ended in this; NO_ACCEPTABLE is the last thing we say."""

    session: int
    method: Method
    offered: bytes


@value
class LoggedIn:
    """The client is who it says: user name and password were right, or a ticket was."""

    session: int
    user: str


@value
class LoginRefused:
    """A user name and password, or a ticket, were not accepted."""

    session: int
    client: IPAddress
    client_port: int
    user: str  # as the client wrote it; escape before printing. '' with a ticket, which hides it
    reason: str


@value
class RequestReceived:
    """A whole request has arrived."""

    session: int
    command: Command
    destination: Destination


@value
class Decided:
    """The policy has spoken; told once per question, even when it defers."""

    session: int
    decision: Decision
    address: IPAddress | None  # None before one is known


@value
class Resolved:
    """The name has led to these addresses, in the resolver's order."""

    session: int
    addresses: tuple[IPAddress, ...]
    seconds: float


@value
class ResolveFailed:
    """The name has led nowhere."""

    session: int
    reason: str
    seconds: float


@value
class Connected:
    """The destination has answered."""

    session: int
    address: IPAddress  # the one that was dialled
    seconds: float


@value
class ConnectFailed:
    """No permitted address has answered."""

    session: int
    reply: ReplyCode
    reason: str
    seconds: float


@value
class Denied:
    """
    The policy has refused the client, which may take its time to leave.

    Or, with *datagram*, one target of an association, which goes on.
    """

    session: int
    started: float  # the session, in seconds since the epoch; of a datagram: when it came
    client: IPAddress
    client_port: int
    user: str | None  # None without login
    command: Command | None  # None: denied by its address, before there was a request
    destination: Destination | None
    decision: Decision
    datagram: bool = False


@value
class PortOpened:
    """For a BIND there is a port where its peer may connect."""

    session: int
    bound: Destination  # as the client was told


@value
class StrangerTurnedAway:
    """Somebody else than the peer of a BIND has connected, and was closed."""

    session: int
    address: IPAddress
    port: int


@value
class PeerArrived:
    """The peer of a BIND has connected."""

    session: int
    address: IPAddress
    port: int
    seconds: float  # since the port was opened


@value
class DatagramTarget:
    """
    A client has sent a datagram to where its association has not sent before, and may.

    Told once for each target, and again for one that was forgotten, being one
    of very many. Where it may not, Denied is told instead.
    """

    session: int
    client: IPAddress
    client_port: int  # of its TCP connection
    user: str | None
    destination: Destination
    decision: Decision  # the one that stands
    address: IPAddress | None  # where it goes; None: nowhere
    reason: str  # why a name that may be permitted leads nowhere; else empty


@value
class DatagramsDropped:
    """An association has ended, and this many datagrams were not relayed; if any were not."""

    session: int
    counts: Mapping[Drop, int]


@value
class SessionClosed:
    """The end of a session, with all that its one canonical line and a replay need."""

    session: int
    started: float  # seconds since the epoch
    seconds: float  # how long it lasted, by the monotonic clock
    client: IPAddress
    client_port: int
    listener: str
    user: str | None  # None without login
    command: Command | None  # None: never got as far as a request
    destination: Destination | None
    address: IPAddress | None  # the one that was dialled; of BIND, the one that has connected
    rule: str | None  # the last rule that spoke
    outcome: Outcome
    reply: ReplyCode | None  # what the client was told, if anything
    reason: str  # one clause; empty when served
    up: int  # octets from the client to the target
    down: int  # octets from the target to the client
    groups: frozenset[str] = frozenset()  # what the authenticator said
    asked: Asked | None = None  # None: the policy was not asked
    verdict: Verdict | None = None  # the last one, which the rule has spoken
    reports: tuple[Report, ...] = ()  # what rules on trial would have decided instead
    addresses: tuple[IPAddress, ...] = ()  # where the name has led, as they were judged
    unlisted: int = 0  # how many more there were
    logged: bool = True  # False: the rule wants no line of it in any log
    userid: str | None = None  # what a SOCKS4 client said of itself, unverified; escape it
    certificate: str | None = None  # SHA-256 of the client's, verified, in hex
    protocol: str | None = None  # as [[listener]] calls it; None: it has said nothing of any


Event = (
    SessionOpened
    | MethodChosen
    | LoggedIn
    | LoginRefused
    | RequestReceived
    | Decided
    | Resolved
    | ResolveFailed
    | Connected
    | ConnectFailed
    | Denied
    | PortOpened
    | StrangerTurnedAway
    | PeerArrived
    | DatagramTarget
    | DatagramsDropped
    | SessionClosed
)

Observer = Callable[[Event], None]


def heard(observer: Observer) -> frozenset[type[Event]]:
    """Give what *observer* wants to hear: its attribute ``hears`` says; without one, everything."""
    return frozenset(getattr(observer, "hears", get_args(Event)))

"""
The seams between the rooms.

Each takes values and returns a value or a Deferred; none takes a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from socket import SocketType
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface

from socksd.frozen import value

if TYPE_CHECKING:
    from socksd.address import Destination, IPAddress
    from socksd.codes import Method, Protection
    from socksd.facts import Decision, Facts, Principal

SocketName = tuple[Any, ...]  # of a TCP socket's side: host, port, and more for IPv6

# mypy-zope reads an interface's methods as they stand: no self.


class IPrincipal(Interface):
    """Who a client has shown itself to be."""

    name = Attribute("The user's name (str), or None for a client without login.")
    groups = Attribute("What the authenticator says the user belongs to: a frozenset of str.")


@value
class Accepted:
    """
    What became of a token.

    Attributes:
        token: What to answer; empty for nothing.
        principal: Who the client is; ``None`` while it has to send more.
    """

    token: bytes
    principal: Principal | None


class ISecurityContext(Interface):
    """What one client and we establish by GSS-API: who it is, and keys (RFC 1961)."""

    def accept(token: bytes) -> Deferred[Accepted]:
        """
        Go on by the client's next token, until there is a principal.

        Fails with LoginFailed. Cancelling gives up the place in the queue.
        """

    def agree(asked: int) -> Protection:
        """
        Choose what messages are protected by, the client having *asked* for this.

        Raises:
            ProtocolError: The context cannot do what the configuration demands.
        """

    def wrap(octets: bytes, confidential: bool) -> bytes:
        """
        Make a token of octets; raises ProtocolError when the context is of no more use.

        Not more octets than longest() says.
        """

    def unwrap(token: bytes) -> tuple[bytes, bool]:
        """
        Give the octets in a token, and whether nobody else could read them.

        Raises:
            ProtocolError: It is not the next one that the client has made.
        """

    def longest(confidential: bool) -> int:
        """Give how many octets fit into a token that RFC 1961 can carry."""


class IAuthenticator(Interface):
    """Who are they?"""

    def methods(client: IPAddress) -> Sequence[Method]:
        """Name the methods that would do for a client at this address, the best first."""

    def login(username: bytes, password: bytes, client: IPAddress) -> Deferred[Principal]:
        """
        Verify a user name and a password (RFC 1929).

        Fails with LoginFailed; that takes as long for an unknown user as for
        a wrong password. Cancelling gives up the place in the queue.
        """

    def security_context(client: IPAddress) -> ISecurityContext:
        """Begin GSS-API with a client, to whom methods() has named it."""


class IPolicy(Interface):
    """May they?"""

    def decide(facts: Facts) -> Decision:
        """
        Judge by the facts so far.

        Never DEFER once all facts are known; an ALLOW or a DENY is never
        contradicted when more become known.
        """


class IResolver(Interface):
    """Where does a name lead?"""

    def resolve(name: str) -> Deferred[Sequence[IPAddress]]:
        """
        Look a normalised name up; at least one address, in the order to try.

        Fails with Refused: HOST_UNREACHABLE where the name leads nowhere,
        GENERAL_FAILURE where we cannot ask. Cancelling gives up this
        question, not that of others who ask the same.
        """


@value
class OpenPort:
    """
    A port of ours that waits for a connection.

    Attributes:
        bound: Where it is to be found, as clients are told.
        close: Wait no more; a connection that was made stays.
    """

    bound: Destination
    close: Callable[[], object]


class IEgress(Interface):
    """How do we get there?"""

    def connect(
        destination: Destination, addresses: Sequence[IPAddress], factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        """
        Connect to *destination* at one of *addresses*, and at no other.

        Fails with Refused, whose reply says why. Cancelling ends every
        attempt at once.
        """

    def listen(addresses: Sequence[IPAddress], factory: IProtocolFactory) -> OpenPort:
        """
        Listen on our address that faces *addresses*, the first of them that there is a way to.

        Whoever connects gets a protocol of *factory*, which may refuse to
        make one. Raises Refused, whose reply says why.
        """


class ICarrier(Interface):
    """Who is told what arrives at an end."""

    def data_received(octets: bytes) -> None:
        """Take what the peer sent."""

    def read_ended() -> None:
        """The peer has sent FIN; it may still read."""

    def lost(reason: Failure) -> None:
        """The connection is gone; ConnectionDone, or what broke it."""


class IEndTransport(ITCPTransport, IConsumer, IPushProducer):
    """What the reactor's stream transports are, in one word."""


class IEnd(Interface):
    """One of the two connections that a relay joins."""

    transport: IEndTransport = Attribute("The connected transport.")
    bare: bool = Attribute("It has none, and is an IBareEnd that no relay has taken over.")

    def carried_by(carrier: ICarrier) -> None:
        """From now on tell *carrier*, beginning with what it has missed."""

    def send(octets: bytes) -> None:
        """Send, without waiting for the reactor if that is possible."""

    def finish_writing() -> None:
        """Send FIN behind what is still to be sent, and read on."""


class IBareEnd(IEnd):
    """An end that is a socket on a switchboard, and has no transport until one is asked for."""

    def taken_over(by: ICarrier) -> tuple[SocketType, int, bytes]:
        """
        Tell *by*, who is an IWatched too, and nobody else, what happens to the socket.

        Gives the socket, what is true of it in the bits of epoll(7), and what is to be
        sent there before anything else.
        """

    def hang_up(reason: Failure) -> None:
        """Close a socket that was taken over: ConnectionAborted resets it."""


class IWatched(Interface):
    """Who wants to know what happens to a socket."""

    def hear(events: int) -> None:
        """Hear what has become true, in the bits of epoll(7)."""

    def fail(failure: Failure) -> None:
        """Hear that hear() has raised, which is a bug."""


class IActing(Interface):
    """Who has put something off until all that has happened was heard."""

    def act() -> None:
        """Do it, if it still is to be done; may be called once too often."""

    def fail(failure: Failure) -> None:
        """Hear that act() has raised, which is a bug."""


class ISwitchboard(Interface):
    """Watches sockets of its own beside the reactor's, for much less."""

    def watch(descriptor: int, watched: IWatched) -> None:
        """
        Tell *watched* what happens to a socket, beginning with what is true now.

        It is told once, when it becomes true, and not for as long as it is:
        whoever is told that there is something to read has to read until
        there is nothing.
        """

    def watch_reading(descriptor: int, watched: IWatched) -> None:
        """
        Tell *watched* that there is something to read, for as long as there is.

        And nothing else: with datagrams there is room to write all the time,
        and each that leaves would make it anew.
        """

    def hand_over(descriptor: int, watched: IWatched) -> None:
        """Tell another from now on; what it has missed it has to be told by who was before."""

    def soon(watched: IWatched) -> None:
        """Have *watched* hear in the next turn, though nothing new may have happened."""

    def at_end(acting: IActing) -> None:
        """
        Have *acting* act at the end of this turn.

        It is for what wakes somebody: to wake who sleeps is a third of a send(2).
        While he is awake, what is sent after it costs no more than itself, and he
        finds all of it at once.
        """

    def forget(descriptor: int) -> None:
        """Tell no more; to be said before the socket is closed."""

    def closing(descriptor: int) -> None:
        """Tell no more of a socket that is about to be closed, which takes it out by itself."""

    def transport(
        sock: SocketType,
        protocol: IProtocol,
        peer: IPv4Address | IPv6Address,
        true: int | None = None,
    ) -> IEndTransport:
        """
        Make the transport of a connected socket, for *protocol* to be given it.

        *peer* is the other side's address, and *true* what its watcher has
        heard last; ``None`` for a socket that is not watched yet. From now on
        the transport is who is told.
        """

    def listen(port: Port, accept: Callable[[SocketType, SocketName], object] | None) -> None:
        """
        Accept what comes to *port*, instead of the reactor, as long as it reads.

        *accept* is given each socket, which does not block, and the peer's
        name as the socket module has it; ``None`` leaves it to the reactor
        again.
        """


class Drop(StrEnum):
    """Why a datagram was not relayed."""

    MALFORMED = "malformed"  # no header
    FRAGMENT = "fragment"  # of a datagram that has not become whole, or fragments are not wanted
    STRANGER = "stranger"  # not from the client's address, or its port
    DENIED = "denied"  # its target, by the policy
    NOT_FOUND = "not-found"  # its target, a name that leads nowhere
    CROWDED = "crowded"  # too much waits for names already
    UNASKED = "unasked"  # from where the client has not sent to
    UNSENT = "unsent"  # the system did not take it: too long, no route, no room
    LIMITED = "limited"  # no bandwidth was left under the limit of the rule that allows it


class IShare(Interface):
    """What the datagrams of one association take of a budget."""

    def up(octets: int) -> bool:
        """Spend *octets* on a datagram from the client, if there are as many."""

    def down(octets: int) -> bool:
        """Spend *octets* on a datagram to the client, if there are as many."""

    def end() -> None:
        """Take no more."""


class IBudget(Interface):
    """What somebody may spend under one limit, in all sessions together."""

    def share() -> IShare:
        """Take part in it, to the end of an association."""


@value
class Granted:
    """
    Where datagrams may go, and what answers may come from there.

    Attributes:
        budget: What they are paid from; ``None``: there is no limit.
    """

    address: IPAddress
    budget: IBudget | None = None


class ITargets(Interface):
    """Where may the datagrams of an association go?"""

    def find(
        destination: Destination, reaches: Callable[[IPAddress], bool]
    ) -> Deferred[Granted | None]:
        """
        Judge a target, and give the address to send to; ``None``: denied.

        Of several addresses that are permitted it is the first that *reaches*
        says there is a way to. Fails with Refused: a name leads nowhere.
        """

    def lets_in(source: Destination) -> Granted | None:
        """Say whether a datagram may come from where the client has not sent to."""

    def ended(drops: Mapping[Drop, int]) -> None:
        """Hear that the association is over, and what was dropped in its life."""


class EndedBy(StrEnum):
    """What brought a relay to its end."""

    BOTH = "both"  # both directions ended in order
    CLIENT = "client"  # the client's connection broke
    TARGET = "target"  # the target's connection broke
    IDLE = "idle"  # nothing moved for the idle time
    LINGER = "linger"  # half-closed, and nothing moved for the linger time
    US = "us"  # abort() was called


@value
class Tally:
    """What a relay has carried, in octets, and how it ended."""

    up: int  # from the client, handed to the target's transport
    down: int  # from the target, handed to the client's transport
    ended_by: EndedBy


# Who hears how a relay has ended; a failure is a bug of ours.
Ended = Callable[[Tally | Failure], object]


class IRelay(Interface):
    """Carry octets between a client's end and a target's, both ways."""

    up: int = Attribute("Octets from the client so far.")
    down: int = Attribute("Octets from the target so far.")

    def join(early: bytes, ended: Ended) -> None:
        """
        Take both ends over, *early* being the client's first octets.

        *ended* is called, once, when both connections are gone. Not by a Deferred:
        nobody else waits for it, and one takes 5 us of each session.
        """

    def abort() -> None:
        """Reset both connections now; who has joined them hears of it."""


class IAssociation(IRelay):
    """Carry datagrams for as long as a client's TCP connection lives."""

    bound: Destination = Attribute("Where the client is to send its datagrams.")

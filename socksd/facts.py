"""What is known when the policy is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from zope.interface import implementer

from socksd.address import Destination, IPAddress, reached
from socksd.codes import Command
from socksd.frozen import value
from socksd.interfaces import IPrincipal


@implementer(IPrincipal)
@dataclass(frozen=True, slots=True)
class Principal:
    """
    Who the client has shown itself to be: the avatar of twisted.cred.

    Attributes:
        name: The user's name, octets that are not UTF-8 as surrogates (so that
            two names never become one); ``None`` for a client without login.
        groups: What the authenticator says the user belongs to.
    """

    name: str | None
    groups: frozenset[str] = frozenset()


ANONYMOUS = Principal(None)


@value
class Facts:
    """
    All that a decision may use; ``None`` is "not known yet".

    Facts only grow: each method returns new facts that know one thing more.
    """

    client: IPAddress  # never IPv4-mapped; the loopback for a unix-socket peer
    listener: str  # by its name in the configuration
    principal: Principal | None = None  # ANONYMOUS once known to come without login
    command: Command | None = None
    destination: Destination | None = None
    address: IPAddress | None = None  # the one that would be dialled
    time: float = 0.0  # seconds since the epoch when the client connected; one for all questions
    certificate: str | None = None  # SHA-256 of the verified one that the client has shown, in hex

    def known_as(self, principal: Principal) -> Facts:
        """Add who it is."""
        return Facts(
            self.client,
            self.listener,
            principal,
            self.command,
            self.destination,
            self.address,
            self.time,
            self.certificate,
        )

    def certified(self, principal: Principal, certificate: str) -> Facts:
        """Add who it is by a verified certificate, and by which."""
        return Facts(
            self.client,
            self.listener,
            principal,
            self.command,
            self.destination,
            self.address,
            self.time,
            certificate,
        )

    def asking(self, command: Command, destination: Destination | None) -> Facts:
        """
        Add the request; a literal destination is its own address.

        ``None``: the request has no destination. What UDP ASSOCIATE names is
        where the client will send from; each datagram has a destination.
        """
        host = None if destination is None else destination.host
        address = None if host is None or isinstance(host, str) else reached(host)
        # Not by replace(), which looks all fields up by their names: 9 us of a connection.
        return Facts(
            self.client,
            self.listener,
            self.principal,
            command,
            destination,
            address,
            self.time,
            self.certificate,
        )

    def at(self, address: IPAddress) -> Facts:
        """Add the address a name has led to, as connect(2) would take it."""
        return Facts(
            self.client,
            self.listener,
            self.principal,
            self.command,
            self.destination,
            reached(address),
            self.time,
            self.certificate,
        )


class Verdict(Enum):
    """May they?"""

    ALLOW = "allow"
    DENY = "deny"
    DEFER = "defer"  # the facts so far do not settle it


DIRECT = "direct"  # the route that every gateway has


@dataclass(frozen=True, slots=True)
class Report:
    """
    What a rule on trial would have decided, had it been enforced alone.

    Attributes:
        rule: The rule's id.
        verdict: ALLOW (would_allow) or DENY (would_deny).
    """

    rule: str
    verdict: Verdict


@value
class Decision:
    """
    A verdict and the rule that spoke.

    Attributes:
        rule: The rule's id; for DEFER the first rule that wants to know more.
        text: What the rule would have a refused person be told; else ''.
        detail: Where the guard spoke, the class of address it objects to, as
            the configuration calls it; else ''.
        reports: What rules on trial would have decided instead, in order.
        route: By which way to get there.
        limits: The name of the limits that hold; '' for none.
        log: Whether the session is to have its line in the logs.
        unasked: Whether datagrams may come from there, although the client has
            not sent any to it.
    """

    verdict: Verdict
    rule: str
    text: str = ""
    detail: str = ""
    reports: tuple[Report, ...] = ()
    route: str = DIRECT
    limits: str = ""
    log: bool = True
    unasked: bool = False

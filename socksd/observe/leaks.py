"""Which clients look names up by themselves, and so are not found by rules about names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from socksd.address import Destination, IPAddress
from socksd.codes import Command
from socksd.events import Event, SessionClosed

CLIENTS: Final = 10_000  # remembered; the one that has asked least recently goes first
DESTINATIONS: Final = 10  # remembered of each

Caller = tuple[IPAddress, str | None]  # who asks: an address and, with login, a user


@dataclass(slots=True)
class Asked:
    """
    How one client asks for its destinations.

    Attributes:
        since: When its first session began, in seconds since the epoch.
        last: When its latest did.
        names: How many requests had a name.
        addresses: How many had an address.
    """

    since: float
    last: float
    names: int = 0
    addresses: int = 0
    # By octets and port: to hash a Destination takes longer than all the rest.
    _top: dict[tuple[bytes, int], int] = field(default_factory=dict)

    @property
    def top(self) -> dict[Destination, int]:
        """The addresses asked for most, with how often; about right."""
        return {
            Destination(ip_address(octets), port): count
            for (octets, port), count in self._top.items()
        }

    def count(self, destination: Destination) -> None:
        """Count one request."""
        host = destination.host
        if isinstance(host, str):
            self.names += 1
            return
        self.addresses += 1
        top, asked = self._top, (host.packed, destination.port)
        seen = top.pop(asked, 0)
        if not seen and len(top) >= DESTINATIONS:
            # Space-Saving (Metwally 2005): the newcomer takes over the count of
            # the rarest, so that what is frequent stays, whatever passes by.
            seen = top.pop(min(top, key=top.__getitem__))
        top[asked] = seen + 1


class Leaks:
    """Count by client how many requests had an address where a name could be."""

    hears = (SessionClosed,)

    def __init__(self) -> None:
        # By the octets of an address, as above.
        self._clients: OrderedDict[tuple[bytes, str | None], Asked] = OrderedDict()

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if not isinstance(event, SessionClosed) or event.destination is None:
            return
        if event.command is Command.BIND:  # its peer is an address that the client knows anyway
            return
        if event.command is Command.UDP_ASSOCIATE:  # names where it sends from, if anything
            return
        caller = event.client.packed, event.user
        asked = self._clients.get(caller)
        if asked is None:
            if len(self._clients) >= CLIENTS:
                self._clients.popitem(last=False)
            asked = self._clients[caller] = Asked(event.started, event.started)
        else:
            self._clients.move_to_end(caller)
            if event.started > asked.last:
                asked.last = event.started
        asked.count(event.destination)

    def __iter__(self) -> Iterator[tuple[Caller, Asked]]:
        """Give the clients that have sent an address, those with most of them first."""
        leaking = [(caller, asked) for caller, asked in self.everybody() if asked.addresses]
        return iter(sorted(leaking, key=lambda item: -item[1].addresses))

    def everybody(self) -> Iterator[tuple[Caller, Asked]]:
        """Give all clients that are remembered, who has asked least recently first."""
        for (octets, user), asked in self._clients.items():
            yield (ip_address(octets), user), asked

    def __len__(self) -> int:
        """How many clients are remembered, leaking or not."""
        return len(self._clients)

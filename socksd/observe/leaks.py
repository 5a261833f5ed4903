"""Which clients look names up by themselves, and so are not found by rules about names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
        top: The addresses asked for most, with how often; about right.
    """

    since: float
    last: float
    names: int = 0
    addresses: int = 0
    top: dict[Destination, int] = field(default_factory=dict)

    def count(self, destination: Destination) -> None:
        """Count one request."""
        if isinstance(destination.host, str):
            self.names += 1
            return
        self.addresses += 1
        seen = self.top.pop(destination, 0)
        if not seen and len(self.top) >= DESTINATIONS:
            # Space-Saving (Metwally 2005): the newcomer takes over the count of
            # the rarest, so that what is frequent stays, whatever passes by.
            rarest = min(self.top, key=self.top.__getitem__)
            seen = self.top.pop(rarest)
        self.top[destination] = seen + 1


class Leaks:
    """Count by client how many requests had an address where a name could be."""

    hears = (SessionClosed,)

    def __init__(self) -> None:
        self._clients: OrderedDict[Caller, Asked] = OrderedDict()

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if not isinstance(event, SessionClosed) or event.destination is None:
            return
        if event.command is Command.BIND:  # its peer is an address that the client knows anyway
            return
        if event.command is Command.UDP_ASSOCIATE:  # names where it sends from, if anything
            return
        caller = event.client, event.user
        asked = self._clients.pop(caller, None)
        if asked is None:
            asked = Asked(event.started, event.started)
            if len(self._clients) >= CLIENTS:
                self._clients.popitem(last=False)
        self._clients[caller] = asked  # the last of them now
        asked.last = max(asked.last, event.started)
        asked.count(event.destination)

    def __iter__(self) -> Iterator[tuple[Caller, Asked]]:
        """Give the clients that have sent an address, those with most of them first."""
        leaking = [(caller, asked) for caller, asked in self._clients.items() if asked.addresses]
        return iter(sorted(leaking, key=lambda item: -item[1].addresses))

    def everybody(self) -> Iterable[tuple[Caller, Asked]]:
        """Give all clients that are remembered, who has asked least recently first."""
        return self._clients.items()

    def __len__(self) -> int:
        """How many clients are remembered, leaking or not."""
        return len(self._clients)

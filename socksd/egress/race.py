"""
Happy eyeballs: several addresses, one connection (RFC 8305).

Over endpoints, so that it does not matter how one connects to an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.python.failure import Failure

from socksd.address import IPAddress

ATTEMPT_DELAY = 0.25  # seconds; Connection Attempt Delay, RFC 8305 section 5


class AllFailed(Exception):
    """
    No endpoint has connected.

    Attributes:
        errors: What each ended in, in the order of the endpoints; ``None``
            for those that the deadline left untried.
    """

    def __init__(self, errors: Sequence[BaseException | None]) -> None:
        super().__init__(f"{len(errors)} endpoints")
        self.errors = tuple(errors)


def interleave(addresses: Sequence[IPAddress]) -> list[IPAddress]:
    """
    Alternate the families, the first address's first (RFC 8305 section 4).

    Within a family the order stays: it is the resolver's preference.
    """
    first = [address for address in addresses if address.version == addresses[0].version]
    other = [address for address in addresses if address.version != addresses[0].version]
    pairs = chain.from_iterable(zip_longest(first, other))
    return [address for address in pairs if address is not None]


def race(
    endpoints: Sequence[IStreamClientEndpoint],
    factory: IProtocolFactory,
    clock: IReactorTime,
    timeout: float,
) -> Deferred[IProtocol]:
    """
    Connect to the first endpoint that answers.

    Each gets a head start of ``ATTEMPT_DELAY`` over the next; when one fails,
    the next begins at once. The others are cancelled when one connects, and
    all of them when the result is.

    The *endpoints* are at least one, the preferred first; the *timeout* is for
    all of them together, in seconds, for a deadline of each alone would begin
    anew with every attempt. Fails with AllFailed.
    """
    return _Race(endpoints, factory, clock, timeout).won


class _Race:
    """
    The attempts of one race.

    While an endpoint is left untried, and only then, the stagger is running.
    """

    def __init__(
        self,
        endpoints: Sequence[IStreamClientEndpoint],
        factory: IProtocolFactory,
        clock: IReactorTime,
        timeout: float,
    ) -> None:
        self.won: Deferred[IProtocol] = Deferred(lambda _: self._end())
        self._endpoints = endpoints
        self._factory = factory
        self._clock = clock
        self._begun = 0
        self._attempts: dict[int, Deferred[IProtocol]] = {}  # under way, by position
        self._errors: list[BaseException | None] = [None] * len(endpoints)
        self._over = False
        self._stagger: IDelayedCall
        self._deadline = clock.callLater(timeout, self._expire)
        self._begin()

    def _begin(self) -> None:
        position = self._begun
        self._begun += 1
        if self._untried:
            self._stagger = self._clock.callLater(ATTEMPT_DELAY, self._begin)
        attempt = self._attempts[position] = self._endpoints[position].connect(self._factory)
        attempt.addCallbacks(
            self._connected, self._failed, callbackArgs=(position,), errbackArgs=(position,)
        )

    @property
    def _untried(self) -> bool:
        return self._begun < len(self._endpoints)

    def _connected(self, protocol: IProtocol, position: int) -> None:
        del self._attempts[position]
        if self._over:  # connected although cancelled
            transport: ITCPTransport = protocol.transport  # type: ignore[attr-defined]  # a Protocol
            transport.abortConnection()
            return
        self._end()
        self.won.callback(protocol)

    def _failed(self, failure: Failure, position: int) -> None:
        del self._attempts[position]
        if self._over:
            return
        self._errors[position] = failure.value
        if self._untried:
            self._stagger.cancel()
            self._begin()
        elif not self._attempts:
            self._lose()

    def _expire(self) -> None:
        for position in self._attempts:
            self._errors[position] = error.TimeoutError()
        self._lose()

    def _lose(self) -> None:
        self._end()
        self.won.errback(AllFailed(self._errors))

    def _end(self) -> None:
        """Leave nothing behind: no attempt, no delayed call."""
        self._over = True
        if self._deadline.active():
            self._deadline.cancel()
        if self._untried:
            self._stagger.cancel()
        for attempt in list(self._attempts.values()):
            attempt.cancel()

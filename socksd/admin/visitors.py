"""Who has logged in to the dashboard."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_urlsafe
from typing import Final

from twisted.internet.interfaces import IReactorTime

from socksd.facts import Principal

MOST: Final = 256  # at a time; who was here least recently goes first
IDLE: Final = 30 * 60.0  # seconds without a request
LONGEST: Final = 12 * 3600.0  # seconds; then a password is asked for again


@dataclass(slots=True, eq=False)
class Visitor:
    """One login."""

    principal: Principal
    csrf: str  # what every request that changes something has to repeat
    since: float
    last: float


class Visitors:
    """
    Logins by what the browser's cookie says, in memory only.

    Kept by a digest: what is in the table opens nothing, and how long a
    look-up takes says nothing about a token.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._by_token: OrderedDict[bytes, Visitor] = OrderedDict()

    def enter(self, principal: Principal) -> tuple[str, Visitor]:
        """Let somebody in, and give the token to remember them by."""
        now, token = self._clock.seconds(), token_urlsafe(32)
        visitor = Visitor(principal, token_urlsafe(32), now, now)
        self._by_token[_digest(token)] = visitor
        if len(self._by_token) > MOST:
            self._by_token.popitem(last=False)
        return token, visitor

    def find(self, token: str) -> Visitor | None:
        """Give who has come with this token, unless that was too long ago."""
        key, now = _digest(token), self._clock.seconds()
        visitor = self._by_token.get(key)
        if visitor is None:
            return None
        if now - visitor.last > IDLE or now - visitor.since > LONGEST:
            del self._by_token[key]
            return None
        visitor.last = now
        self._by_token.move_to_end(key)
        return visitor

    def leave(self, token: str) -> None:
        """Forget who has come with this token."""
        self._by_token.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="surrogateescape")).digest()

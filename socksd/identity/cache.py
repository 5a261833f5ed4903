"""Logins that were verified a short while ago."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence

from socksd.facts import Principal

ENTRIES = 10_000


class VerifiedLogins:
    """
    Who a user name and password turned out to be, for some seconds.

    Only logins that succeeded are kept, and of them neither the name nor the
    password: the key is an HMAC under a random key of this process, so that a
    core dump gives nothing to look up in a table. The oldest goes first.

    Attributes:
        hits: How many questions had an answer,
        misses: and how many had none.
    """

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        """
        Begin empty.

        Args:
            seconds: How long a login stays verified, counted from its
                verification; 0 keeps nothing.
            now: The time in seconds on a clock that never goes back.
        """
        self.hits = self.misses = 0
        self._seconds = seconds
        self._now = now
        self._secret = secrets.token_bytes(32)
        self._entries: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, username: bytes, password: bytes, versions: Sequence[int] = ()) -> bytes:
        """
        Give the key of a login, different for any difference in it.

        Args:
            username: As sent.
            password: As sent.
            versions: The checkers' knowledge it is verified against; when that
                changes, all that was verified before is out of reach.
        """
        # Each part with its length in front: ("a", "bc") is not ("ab", "c").
        parts = (username, password, *(str(version).encode() for version in versions))
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, message, "sha256")

    def get(self, key: bytes) -> Principal | None:
        """Give who this login is, if that is still known."""
        self._forget_old()
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        return entry[1]

    def put(self, key: bytes, principal: Principal) -> None:
        """Remember a login that has just been verified."""
        if self._seconds <= 0:
            return
        self._entries[key] = (self._now() + self._seconds, principal)
        self._entries.move_to_end(key)
        if len(self._entries) > ENTRIES:
            self._entries.popitem(last=False)

    def _forget_old(self) -> None:
        """Drop what has expired: all entries live equally long, so the first is the oldest."""
        now = self._now()
        while self._entries:
            expires, _ = next(iter(self._entries.values()))
            if expires > now:
                return
            self._entries.popitem(last=False)

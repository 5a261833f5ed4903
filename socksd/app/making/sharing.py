"""What of a configuration several processes cannot share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from socksd.app.config import Config
from socksd.app.endpoints import ENCRYPTED
from socksd.errors import Problem

# A worker is given the socket itself. What else an endpoint would do with it, as one of
# another package may, stays with the parent.
SHARED: Final = ("tcp", "tcp6", "unix", "systemd", *ENCRYPTED)


def unshared(config: Config) -> Iterator[Problem]:
    """Find what workers cannot be given, where there are to be any."""
    workers = config.server.workers
    if workers < 2:
        return
    for index, listener in enumerate(config.listener):
        kind = listener.endpoint.partition(":")[0]
        if kind not in SHARED and not listener.endpoint.isdecimal():
            message = f"workers cannot share a {kind!r} endpoint; only {', '.join(SHARED)}"
            yield Problem(f"listener[{index}].endpoint", message)
    most = config.limits.sessions
    if most is not None and most < workers:
        message = f"must be {workers} at least, for each of the {workers} workers has its share"
        yield Problem("limits.sessions", message)


def share(whole: int, place: int, places: int) -> int:
    """Give the part of *whole* that one of several has; together they have all of it."""
    return whole // places + (place < whole % places)

"""What is said of observers that raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from twisted.logger import Logger

from socksd.events import Event

_log = Logger("socksd")


class Failures:
    """
    Says that observers have failed, without a line for each event.

    An observer that raises is a bug of ours, and no session shall suffer from
    it. Its traceback is logged the first time a kind of event fails in a kind
    of way; then only the count, at 10, 100, 1000, ... times.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, type[Event], type[Exception]]] = Counter()

    def tell(self, observer: Callable[..., object], event: Event, error: Exception) -> None:
        """Say that *observer*, which lives as long as this, has just raised *error*."""
        kind = id(observer), type(event), type(error)
        self._counts[kind] += 1
        count = self._counts[kind]
        if count == 1:
            _log.failure(
                "observer {observer!r} failed on {event}",
                observer=observer,
                event=type(event).__name__,
            )
        elif str(count).rstrip("0") == "1":
            _log.error(
                "observer {observer!r} has failed on {event} {count} times: {error}",
                observer=observer,
                event=type(event).__name__,
                count=count,
                error=type(error).__name__,
            )

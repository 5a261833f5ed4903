"""One observer made of many."""

from __future__ import annotations

from collections import Counter
from typing import Final

from twisted.logger import Logger

from socksd.events import Event, Observer, heard

_log = Logger("socksd")

_NOBODY: Final[tuple[tuple[int, Observer], ...]] = ()


class Observers:
    """
    Tell each of *many*, in order, whatever becomes of the others.

    One that has an attribute ``hears``, a tuple of kinds of events, is told of
    these and no others: most want no more than the last of a session's eight.

    An observer that raises is a bug of ours, and no session shall suffer from
    it. Its traceback is logged the first time a kind of event fails in a kind
    of way; then only the count, at 10, 100, 1000, ... times.

    Attributes:
        hears: The kinds of events that somebody hears.
    """

    def __init__(self, *many: Observer) -> None:
        heard_by = [heard(each) for each in many]
        self.hears: frozenset[type[Event]] = frozenset().union(*heard_by)
        self._hearing = {
            kind: tuple((i, each) for i, each in enumerate(many) if kind in heard_by[i])
            for kind in self.hears
        }
        self._failures: Counter[tuple[int, type[Event], type[Exception]]] = Counter()

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        for position, observer in self._hearing.get(type(event), _NOBODY):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 -- whatever it is, see above
                self._failed(position, observer, event, error)

    def _failed(self, position: int, observer: Observer, event: Event, error: Exception) -> None:
        kind = position, type(event), type(error)
        self._failures[kind] += 1
        count = self._failures[kind]
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

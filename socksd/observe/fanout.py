"""One observer made of many."""

from __future__ import annotations

from socksd.events import Event, Observer, heard
from socksd.observe.failures import Failures


class Observers:
    """
    Tell each of *many*, in order, whatever becomes of the others.

    One that has an attribute ``hears``, a tuple of kinds of events, is told of
    these and no others: most want no more than the last of a session's eight.

    Attributes:
        hears: The kinds of events that somebody hears.
    """

    def __init__(self, *many: Observer) -> None:
        self.hears: frozenset[type[Event]] = frozenset().union(*map(heard, many))
        self._hearing = {
            kind: tuple(each for each in many if kind in heard(each)) for kind in self.hears
        }
        self._failures = Failures()

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        for observer in self._hearing.get(type(event), ()):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 -- whatever it is, see Failures
                self._failures.tell(observer, event, error)

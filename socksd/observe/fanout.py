"""One observer made of many."""

from __future__ import annotations

from collections.abc import Mapping

from socksd.events import Event, Observer, heard
from socksd.observe.failures import Failures


class Observers:
    """
    Tell each of *many*, in order, whatever becomes of the others.

    One that has an attribute ``hears``, of kinds of events, is told of these
    and no others: most want no more than the last of a session's eight. Where
    it is a mapping, what it has for a kind is told of that.

    Attributes:
        hears: The kinds of events that somebody hears.
    """

    def __init__(self, *many: Observer) -> None:
        self.hears: frozenset[type[Event]] = frozenset().union(*map(heard, many))
        self._hearing = {
            kind: tuple(_told(each, kind) for each in many if kind in heard(each))
            for kind in self.hears
        }
        self._failures = Failures()

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        for observer in self._hearing.get(type(event), ()):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 -- whatever it is, see Failures
                self._failures.tell(observer, event, error)


def _told(observer: Observer, kind: type[Event]) -> Observer:
    hears = getattr(observer, "hears", ())
    told: Observer = hears[kind] if isinstance(hears, Mapping) else observer
    return told

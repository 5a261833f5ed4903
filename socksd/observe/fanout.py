"""One observer made of many."""

from __future__ import annotations

from collections import Counter
from typing import get_args

from twisted.logger import Logger

from socksd.events import Event, Observer

_log = Logger("socksd")

_KINDS: tuple[type[Event], ...] = get_args(Event)


def observers(*many: Observer) -> Observer:
    """
    Tell each of *many*, in order, whatever becomes of the others.

    One that has an attribute ``hears``, a tuple of kinds of events, is told of
    these and no others: most want no more than the last of a session's eight.

    An observer that raises is a bug of ours, and no session shall suffer from
    it. Its traceback is logged the first time a kind of event fails in a kind
    of way; then only the count, at 10, 100, 1000, ... times.
    """
    failures: Counter[tuple[int, type[Event], type[Exception]]] = Counter()
    hearing = {
        kind: [(i, each) for i, each in enumerate(many) if kind in getattr(each, "hears", _KINDS)]
        for kind in _KINDS
    }

    def tell(event: Event) -> None:
        for position, observer in hearing[type(event)]:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 -- whatever it is, see above
                kind = position, type(event), type(error)
                failures[kind] += 1
                count = failures[kind]
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

    return tell

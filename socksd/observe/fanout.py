"""One observer made of many."""

from __future__ import annotations

from collections import Counter

from twisted.logger import Logger

from socksd.events import Event, Observer

_log = Logger("socksd")


def observers(*many: Observer) -> Observer:
    """
    Tell each of *many*, in order, whatever becomes of the others.

    An observer that raises is a bug of ours, and no session shall suffer from
    it. Its traceback is logged the first time a kind of event fails in a kind
    of way; then only the count, at 10, 100, 1000, ... times.
    """
    failures: Counter[tuple[int, type[Event], type[Exception]]] = Counter()

    def tell(event: Event) -> None:
        for position, observer in enumerate(many):
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

from __future__ import annotations

import inspect
from ipaddress import IPv4Address
from typing import Any, get_args

from twisted.logger import formatEvent

from socksd.events import Event, Resolved, SessionClosed, SessionOpened, heard
from socksd.observe.access import AccessLog
from socksd.observe.counters import RuleCounters
from socksd.observe.fanout import Observers
from socksd.observe.leaks import Leaks
from socksd.observe.log import PeopleLog
from socksd.observe.refusals import Refusals
from tests.fakes import Recorder

OPENED = SessionOpened(1, IPv4Address("127.0.0.1"), 40000, "local")
RESOLVED = Resolved(1, (IPv4Address("127.0.0.1"),), 0.1)


class Broken:
    """An observer that raises."""

    def __init__(self, error: type[Exception] = ZeroDivisionError) -> None:
        self.error = error

    def __call__(self, event: Event) -> None:
        raise self.error

    def __repr__(self) -> str:
        return "Broken"


def test_every_observer_hears_every_event() -> None:
    one, other = Recorder(), Recorder()
    tell = Observers(one, other)
    tell(OPENED)
    tell(RESOLVED)
    assert one.events == other.events == [OPENED, RESOLVED]


def test_one_that_says_what_it_hears_hears_nothing_else() -> None:
    class Picky(Recorder):
        hears = (Resolved,)

    picky, other = Picky(), Recorder()
    tell = Observers(picky, other)
    tell(OPENED)
    tell(RESOLVED)
    assert picky.events == [RESOLVED]
    assert other.events == [OPENED, RESOLVED]
    assert tell.hears == set(get_args(Event))


def test_what_nobody_hears_is_known() -> None:
    """So that it need not be made; who tells it all the same does no harm."""

    class Picky(Recorder):
        hears: tuple[type[Event], ...] = (Resolved,)

    class Other(Picky):
        hears = (SessionClosed, Resolved)

    picky, other = Picky(), Other()
    tell = Observers(picky, other)
    assert tell.hears == {Resolved, SessionClosed}
    assert heard(tell) == tell.hears
    tell(OPENED)
    tell(RESOLVED)
    assert picky.events == other.events == [RESOLVED]


def test_one_that_says_what_is_to_hear_each_kind_has_that_told() -> None:
    class Sorting(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.opened = Recorder()
            self.hears = {Resolved: self, SessionOpened: self.opened, SessionClosed: Broken()}

    sorting = Sorting()
    tell = Observers(sorting)
    tell(OPENED)
    tell(RESOLVED)
    assert tell.hears == {Resolved, SessionOpened, SessionClosed}
    assert (sorting.events, sorting.opened.events) == ([RESOLVED], [OPENED])


def test_ours_hear_all_that_they_look_at() -> None:
    """What an observer says it hears is what its __call__ asks for."""
    for kind in (PeopleLog, AccessLog, Leaks, RuleCounters, Refusals):
        source = inspect.getsource(kind.__call__)
        looked_at = {each for each in get_args(Event) if each.__name__ in source}
        assert set(kind.hears) == looked_at, kind


def test_one_that_fails_stops_neither_the_others_nor_the_session(
    logged_errors: list[dict[str, Any]],
) -> None:
    other = Recorder()
    Observers(Broken(), other)(OPENED)
    assert other.events == [OPENED]
    (error,) = logged_errors
    assert formatEvent(error) == "observer Broken failed on SessionOpened"
    assert error["log_failure"].check(ZeroDivisionError)
    logged_errors.clear()

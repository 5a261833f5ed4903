from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from socksd.events import Event, Resolved, SessionOpened
from socksd.observe.failures import Failures

OPENED = SessionOpened(1, IPv4Address("127.0.0.1"), 40000, "local")
RESOLVED = Resolved(1, (IPv4Address("127.0.0.1"),), 0.1)


class Named:
    """An observer, by what is said of it."""

    def __call__(self, event: Event) -> None:
        """Hear nothing."""

    def __repr__(self) -> str:
        return "Broken"


@pytest.fixture
def failures(logged_errors: list[dict[str, Any]]) -> Iterator[Failures]:
    """Give one whose tracebacks are expected."""
    yield Failures()
    logged_errors.clear()


def told(failures: Failures, observer: Named, event: Event, error: Exception) -> list[str | None]:
    with capturedLogs() as logged:
        try:
            raise error
        except Exception as raised:  # noqa: BLE001 -- as whoever tells observers does
            failures.tell(observer, event, raised)
    return [formatEvent(each) for each in logged]


def test_a_failure_is_logged_once_then_counted_in_powers_of_ten(failures: Failures) -> None:
    """An observer that always fails must not make two lines of each event."""
    broken = Named()
    lines = [
        line for _ in range(2345) for line in told(failures, broken, OPENED, ZeroDivisionError())
    ]
    assert lines == [
        "observer Broken failed on SessionOpened",
        "observer Broken has failed on SessionOpened 10 times: ZeroDivisionError",
        "observer Broken has failed on SessionOpened 100 times: ZeroDivisionError",
        "observer Broken has failed on SessionOpened 1000 times: ZeroDivisionError",
    ]


def test_each_kind_of_failure_is_logged(failures: Failures) -> None:
    one, other = Named(), Named()
    said = [
        told(failures, observer, event, error)
        for observer in (one, other)
        for event in (OPENED, RESOLVED)
        for error in (ZeroDivisionError(), KeyError())
    ]
    assert all(len(each) == 1 for each in said)
    assert told(failures, one, OPENED, KeyError("another")) == []  # the second of its kind

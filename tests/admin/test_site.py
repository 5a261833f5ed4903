"""What the servers of this room leave out of Twisted's."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.web import http
from twisted.web.resource import Resource

from socksd.admin.site import IDLE, QuietSite


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(clock: Clock) -> QuietSite:
    made = QuietSite(Resource(), clock)  # type: ignore[no-untyped-call]  # Twisted's
    made.doStart()
    return made


def test_it_wakes_nobody_while_nobody_asks(site: QuietSite, clock: Clock) -> None:
    """Twisted's has a call each second, for the dates of a log that we do not write."""
    assert clock.getDelayedCalls() == []
    site.doStop()


def test_it_shows_nobody_a_traceback(site: QuietSite) -> None:
    assert not site.displayTracebacks


def test_over_tls_it_offers_what_it_was_written_for(
    site: QuietSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the package h2 at hand Twisted would offer that, too."""
    monkeypatch.setattr(http, "H2_ENABLED", True)
    assert site.acceptableProtocols() == [b"http/1.1"]


def test_who_is_silent_is_not_waited_for(site: QuietSite) -> None:
    assert site.timeOut == IDLE

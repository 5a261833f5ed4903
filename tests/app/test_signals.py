"""Signals are calls in the reactor's turn, and none is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from socksd.app.signals import Early, Insistence, OnSignal
from tests.app.test_reload import FakeReactor


@pytest.fixture
def reactor() -> FakeReactor:
    return FakeReactor()


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR2)
    yield
    assert signal.signal(signal.SIGUSR2, before) == before, "who stops leaves it as it was"


def on(reactor: FakeReactor, heard: list[str], *, shared: bool = False) -> OnSignal:
    return OnSignal(signal.SIGUSR2, reactor, lambda: heard.append("us"), shared=shared)  # type: ignore[arg-type]  # of it, what is used


def raised() -> None:
    os.kill(os.getpid(), signal.SIGUSR2)


def test_a_signal_is_a_call_in_a_later_turn(reactor: FakeReactor, heard: list[str]) -> None:
    listening = on(reactor, heard)
    listening.start()
    raised()
    assert heard == []
    reactor.turn()
    assert heard == ["us"]
    listening.stop()


def test_several_signals_in_one_turn_are_one(reactor: FakeReactor, heard: list[str]) -> None:
    listening = on(reactor, heard)
    listening.start()
    for _ in range(5):
        raised()
    reactor.turn()
    raised()
    reactor.turn()
    assert heard == ["us", "us"]
    listening.stop()


@pytest.mark.parametrize(("came", "times"), [(True, ["us"]), (False, [])])
def test_what_came_too_early_is_heard_once(
    reactor: FakeReactor, heard: list[str], came: bool, times: list[str]
) -> None:
    """Left to itself it would have ended the process."""
    before = signal.signal(signal.SIGUSR2, Early())
    if came:
        raised()
    for _ in range(2):
        listening = on(reactor, heard)
        listening.start()
        reactor.turn()
        assert heard == times
        listening.stop()
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(("shared", "both"), [(True, ["other", "us"]), (False, ["us"])])
def test_who_has_listened_before_hears_it_where_it_is_shared(
    reactor: FakeReactor, heard: list[str], shared: bool, both: list[str]
) -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append("other"))
    listening = on(reactor, heard, shared=shared)
    listening.start()
    raised()
    reactor.turn()
    assert heard == both
    listening.stop()
    signal.signal(signal.SIGUSR2, before)


def test_to_share_with_nobody_is_no_matter(reactor: FakeReactor, heard: list[str]) -> None:
    listening = on(reactor, heard, shared=True)
    listening.start()
    raised()
    reactor.turn()
    assert heard == ["us"]
    listening.stop()


# -- who insists -----------------------------------------------------------------


def insisting(reactor: FakeReactor, heard: list[str]) -> Insistence:
    listening = Insistence([signal.SIGUSR2], reactor, lambda: heard.append("us"))  # type: ignore[arg-type]  # of it, what is used
    listening.start()
    return listening


def test_the_first_is_for_who_had_it_before_and_the_others_are_ours(
    reactor: FakeReactor, heard: list[str]
) -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append("other"))
    listening = insisting(reactor, heard)
    for _ in range(3):
        raised()
    assert heard == ["other"]
    reactor.turn()
    assert heard == ["other", "us", "us"]
    listening.stop()
    raised()
    assert heard[3:] == ["other"]
    signal.signal(signal.SIGUSR2, before)


def test_all_are_ours_once_it_has_begun_otherwise(reactor: FakeReactor, heard: list[str]) -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append("other"))
    listening = insisting(reactor, heard)
    listening.begin()
    raised()
    reactor.turn()
    assert heard == ["us"]
    listening.stop()
    signal.signal(signal.SIGUSR2, before)


def test_one_that_is_ignored_is_heard_when_it_has_begun(
    reactor: FakeReactor, heard: list[str]
) -> None:
    """As SIGINT is by what a shell has in the background."""
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    listening = insisting(reactor, heard)
    raised()
    reactor.turn()
    assert heard == []
    listening.begin()
    raised()
    reactor.turn()
    assert heard == ["us"]
    listening.stop()
    signal.signal(signal.SIGUSR2, before)

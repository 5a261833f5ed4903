"""Who has logged in to the dashboard."""

from twisted.internet.task import Clock

from socksd.admin.visitors import IDLE, LONGEST, MOST, Visitors
from socksd.facts import Principal

ALICE = Principal("alice")


def test_a_visitor_is_known_by_the_token_alone() -> None:
    visitors = Visitors(Clock())
    token, visitor = visitors.enter(ALICE)
    assert visitors.find(token) is visitor
    assert visitors.find(token[:-1]) is None
    assert visitors.find("") is None
    assert visitors.find("\udce9") is None
    assert visitor.csrf != token


def test_two_logins_have_nothing_in_common() -> None:
    visitors = Visitors(Clock())
    (one, first), (other, second) = visitors.enter(ALICE), visitors.enter(ALICE)
    assert one != other
    assert first.csrf != second.csrf
    visitors.leave(one)
    visitors.leave("nobody's")
    assert visitors.find(one) is None
    assert visitors.find(other) is second


def test_who_does_nothing_is_forgotten() -> None:
    clock = Clock()
    visitors = Visitors(clock)
    token, visitor = visitors.enter(ALICE)
    for _ in range(3):
        clock.advance(IDLE - 1)
        assert visitors.find(token) is visitor
    clock.advance(IDLE + 1)
    assert visitors.find(token) is None
    assert visitors.find(token) is None


def test_nobody_stays_for_ever() -> None:
    clock = Clock()
    visitors = Visitors(clock)
    token, _ = visitors.enter(ALICE)
    for _ in range(int(LONGEST // IDLE)):
        clock.advance(IDLE)
        assert visitors.find(token) is not None
    clock.advance(1)
    assert visitors.find(token) is None


def test_of_too_many_the_one_who_was_here_least_recently_goes() -> None:
    visitors = Visitors(Clock())
    first, _ = visitors.enter(ALICE)
    second, _ = visitors.enter(ALICE)
    for _ in range(MOST - 2):
        visitors.enter(ALICE)
    visitors.find(first)
    visitors.enter(ALICE)
    assert visitors.find(second) is None
    assert visitors.find(first) is not None

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from socksd.address import IPAddress
from socksd.codes import ReplyCode
from socksd.egress import cache
from socksd.egress.cache import NEGATIVE_TTL, CachingResolver
from socksd.egress.lookup import Answer, NoSuchName
from socksd.errors import Refused, TimedOut
from socksd.interfaces import IResolver
from tests.egress.fakes import FakeLookup
from tests.fakes import outcome

ONE = ip_address("192.0.2.1")


def answer(*addresses: str, ttl: float = 60.0) -> Answer:
    return Answer([ip_address(address) for address in addresses], ttl)


def resolver(inner: FakeLookup) -> tuple[Clock, CachingResolver]:
    clock = Clock()
    return clock, CachingResolver(inner, clock)


def refused(deferred: Deferred[Sequence[IPAddress]]) -> Refused:
    with pytest.raises(Refused) as raised:
        outcome(deferred)
    return raised.value


def test_it_is_a_resolver() -> None:
    assert verifyObject(IResolver, resolver(FakeLookup())[1])


def test_an_answer_is_good_for_its_ttl() -> None:
    inner = FakeLookup(web=answer("192.0.2.1", ttl=30))
    clock, cached = resolver(inner)
    assert list(outcome(cached.resolve("web"))) == [ONE]
    clock.advance(29.9)
    assert list(outcome(cached.resolve("web"))) == [ONE]
    assert inner.asked == ["web"]
    clock.advance(0.1)
    assert list(outcome(cached.resolve("web"))) == [ONE]
    assert inner.asked == ["web", "web"]
    assert (cached.hits, cached.joined, cached.misses, len(cached)) == (1, 0, 2, 1)


def test_a_ttl_of_0_is_not_remembered() -> None:
    inner = FakeLookup(web=answer("192.0.2.1", ttl=0))
    _, cached = resolver(inner)
    for _ in range(2):
        assert list(outcome(cached.resolve("web"))) == [ONE]
    assert len(inner.asked) == 2


def test_addresses_are_normalised_and_single_in_their_order() -> None:
    """An answer is input too: ::ffff:127.0.0.2 must meet the rule for 127.0.0.2."""
    inner = FakeLookup(
        web=answer("::ffff:127.0.0.2", "192.0.2.1", "127.0.0.2", "::", "0.0.0.0", "192.0.2.1")
    )
    _, cached = resolver(inner)
    found = outcome(cached.resolve("web"))
    assert list(map(str, found)) == ["127.0.0.2", "192.0.2.1", "::1", "127.0.0.1"]


def test_an_answer_has_a_bounded_number_of_addresses() -> None:
    inner = FakeLookup(web=Answer([ONE + i for i in range(500)], 60))
    found = outcome(resolver(inner)[1].resolve("web"))
    assert list(found) == [ONE + i for i in range(cache.MOST_ADDRESSES)]


def test_a_failure_is_remembered_for_a_short_time() -> None:
    """As a new exception each time: a shared one would gather tracebacks."""
    inner = FakeLookup(web=NoSuchName())
    clock, cached = resolver(inner)
    first, second = refused(cached.resolve("web")), refused(cached.resolve("web"))
    assert (second.reply, second.reason) == (ReplyCode.HOST_UNREACHABLE, "no such name")
    assert first is not second
    assert inner.asked == ["web"]
    clock.advance(NEGATIVE_TTL)
    refused(cached.resolve("web"))
    assert inner.asked == ["web", "web"]


@pytest.mark.parametrize("kind", [NoSuchName(), TimedOut("no name server answered")])
def test_it_is_remembered_whether_anybody_answered(kind: Refused) -> None:
    inner = FakeLookup(web=kind)
    _, cached = resolver(inner)
    for _ in range(2):
        error = refused(cached.resolve("web"))
        assert (isinstance(error, TimedOut), error.reason) == (type(kind) is TimedOut, kind.reason)
    assert inner.asked == ["web"]


def test_a_failure_may_be_forgotten_at_once() -> None:
    inner = FakeLookup(web=NoSuchName())
    cached = CachingResolver(inner, Clock(), negative_ttl=0)
    refused(cached.resolve("web"))
    refused(cached.resolve("web"))
    assert len(inner.asked) == 2


@pytest.mark.parametrize("error", [Refused(ReplyCode.GENERAL_FAILURE, "busy"), LookupError()])
def test_our_own_trouble_is_told_to_all_but_not_remembered(error: Exception) -> None:
    inner = FakeLookup()
    _, cached = resolver(inner)
    waiters = [cached.resolve("web"), cached.resolve("web")]
    inner.waiting["web"].errback(error)
    for waiter in waiters:
        with pytest.raises(type(error)):
            outcome(waiter)
    inner.ready["web"] = answer("192.0.2.1")
    assert list(outcome(cached.resolve("web"))) == [ONE]


def test_equal_questions_are_one() -> None:
    inner = FakeLookup()
    _, cached = resolver(inner)
    waiters = [cached.resolve("web") for _ in range(50)]
    assert inner.asked == ["web"]
    inner.waiting["web"].callback(answer("192.0.2.1"))
    assert [list(outcome(waiter)) for waiter in waiters] == [[ONE]] * 50


def test_who_leaves_takes_nobody_along() -> None:
    inner = FakeLookup()
    _, cached = resolver(inner)
    leaving, staying = cached.resolve("web"), cached.resolve("web")
    leaving.cancel()
    with pytest.raises(CancelledError):
        outcome(leaving)
    assert not inner.cancelled
    inner.waiting["web"].callback(answer("192.0.2.1"))
    assert list(outcome(staying)) == [ONE]


def test_the_last_to_leave_ends_the_lookup() -> None:
    inner = FakeLookup()
    _, cached = resolver(inner)
    waiters = [cached.resolve("web"), cached.resolve("web")]
    for waiter in waiters:
        waiter.cancel()
        with pytest.raises(CancelledError):
            outcome(waiter)
    assert inner.cancelled == ["web"]
    again = cached.resolve("web")
    assert inner.asked == ["web", "web"], "an abandoned lookup is no answer"
    inner.waiting["web"].callback(answer("192.0.2.1"))
    assert list(outcome(again)) == [ONE]


def test_a_waiter_may_cancel_another_as_it_is_told() -> None:
    inner = FakeLookup()
    _, cached = resolver(inner)
    first, second = cached.resolve("web"), cached.resolve("web")
    first.addCallback(lambda _: second.cancel())
    inner.waiting["web"].callback(answer("192.0.2.1"))
    with pytest.raises(CancelledError):
        outcome(second)


def test_questions_at_a_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a refusal that says nothing about the name, so it is not remembered."""
    monkeypatch.setattr(cache, "MOST_QUESTIONS", 2)
    inner = FakeLookup()
    _, cached = resolver(inner)
    hanging = [cached.resolve("a"), cached.resolve("b")]
    assert refused(cached.resolve("c")).reply is ReplyCode.GENERAL_FAILURE
    joined = cached.resolve("a")
    inner.waiting["a"].callback(answer("192.0.2.1"))
    assert list(outcome(joined)) == [ONE]
    inner.ready["c"] = answer("192.0.2.1")
    assert list(outcome(cached.resolve("c"))) == [ONE]
    hanging[1].addErrback(lambda _: None).cancel()


def test_names_remembered_are_bounded_and_the_oldest_goes() -> None:
    inner = FakeLookup(**dict.fromkeys("abc", answer("192.0.2.1", ttl=10)))
    clock = Clock()
    cached = CachingResolver(inner, clock, entries=2)
    cached.resolve("a")
    cached.resolve("b")
    clock.advance(10)
    for name in "acab":  # a is renewed, so b is the oldest when c comes
        cached.resolve(name)
    assert inner.asked == ["a", "b", "a", "c", "b"]


def test_stop_is_passed_on() -> None:
    inner = FakeLookup()
    resolver(inner)[1].stop()
    assert inner.stopped

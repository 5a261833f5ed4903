from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock

from socksd.address import IPAddress
from socksd.egress.race import ATTEMPT_DELAY, AllFailed, interleave, race
from tests.egress.fakes import FakeEndpoint, TargetFactory
from tests.fakes import outcome

TIMEOUT = 15.0

addresses = st.lists(st.ip_addresses(), max_size=20)


def started(*endpoints: FakeEndpoint) -> tuple[Clock, Deferred[IProtocol]]:
    clock = Clock()
    return clock, race(endpoints, TargetFactory(), clock, TIMEOUT)


def begun(*endpoints: FakeEndpoint) -> list[bool]:
    return [endpoint.begun for endpoint in endpoints]


# -- the order of RFC 8305 section 4 --------------------------------------------


@given(addresses)
def test_interleaving_is_a_permutation(given_addresses: list[IPAddress]) -> None:
    assert sorted(map(str, interleave(given_addresses))) == sorted(map(str, given_addresses))


@given(addresses)
def test_families_alternate_while_both_remain(given_addresses: list[IPAddress]) -> None:
    versions = [address.version for address in interleave(given_addresses)]
    shorter = min(versions.count(4), versions.count(6))
    for position in range(min(2 * shorter, len(versions) - 1)):
        assert versions[position] != versions[position + 1] or position + 1 >= 2 * shorter


@given(addresses)
def test_the_order_within_a_family_stays(given_addresses: list[IPAddress]) -> None:
    mixed = interleave(given_addresses)
    assert mixed[:1] == given_addresses[:1]
    for kind in (IPv4Address, IPv6Address):
        assert [x for x in mixed if isinstance(x, kind)] == [
            x for x in given_addresses if isinstance(x, kind)
        ]


# -- the race -------------------------------------------------------------------


def test_the_first_to_connect_is_the_result() -> None:
    one, two = FakeEndpoint(), FakeEndpoint()
    clock, won = started(one, two)
    assert begun(one, two) == [True, False]
    one.succeed()
    assert one.transport is not None
    assert outcome(won) is one.transport.protocol
    assert not two.begun
    assert not clock.getDelayedCalls()


def test_the_next_gets_its_turn_after_the_attempt_delay() -> None:
    one, two, three = endpoints = [FakeEndpoint() for _ in range(3)]
    clock, won = started(*endpoints)
    clock.advance(ATTEMPT_DELAY - 0.01)
    assert begun(*endpoints) == [True, False, False]
    clock.advance(0.01)
    assert begun(*endpoints) == [True, True, False]
    clock.advance(ATTEMPT_DELAY)
    assert begun(*endpoints) == [True, True, True]
    two.succeed()
    assert two.transport is not None
    assert outcome(won) is two.transport.protocol
    assert (one.cancelled, two.cancelled, three.cancelled) == (True, False, True)
    assert not clock.getDelayedCalls()


def test_the_next_begins_at_once_when_one_fails() -> None:
    """And with a whole delay of its own before the one after it."""
    endpoints = [FakeEndpoint() for _ in range(3)]
    clock, won = started(*endpoints)
    clock.advance(0.2)
    endpoints[0].fail()
    assert begun(*endpoints) == [True, True, False]
    clock.advance(0.2)
    assert begun(*endpoints) == [True, True, False]
    clock.advance(0.05)
    assert begun(*endpoints) == [True, True, True]
    won.addErrback(lambda _: None).cancel()


def test_failures_in_the_same_turn_are_no_wait() -> None:
    endpoints = [FakeEndpoint(at_once=FakeEndpoint.fail) for _ in range(16)]
    clock, won = started(*endpoints)
    with pytest.raises(AllFailed):
        outcome(won)
    assert not clock.getDelayedCalls()


def test_the_last_failure_ends_it_with_all_of_them_in_order() -> None:
    one, two = FakeEndpoint(), FakeEndpoint()
    clock, won = started(one, two)
    clock.advance(ATTEMPT_DELAY)
    two.fail(113)
    one.fail(111)
    with pytest.raises(AllFailed) as raised:
        outcome(won)
    assert [failed.osError for failed in raised.value.errors] == [111, 113]  # type: ignore[union-attr]  # each has one, by now
    assert not clock.getDelayedCalls()


def test_the_deadline_is_for_all_together() -> None:
    """Who had failed by then keeps his errno; who was not tried, has none."""
    endpoints = [FakeEndpoint(at_once=FakeEndpoint.fail), *(FakeEndpoint() for _ in range(80))]
    clock, won = started(*endpoints)
    clock.pump([0.05] * 299)
    assert not won.called
    clock.advance(0.05)
    with pytest.raises(AllFailed) as raised:
        outcome(won)
    errors = raised.value.errors
    assert isinstance(errors[0], error.ConnectError)
    assert isinstance(errors[1], error.TimeoutError)
    assert errors[80] is None
    assert not any(endpoint.pending for endpoint in endpoints)
    assert not clock.getDelayedCalls()


def test_cancelling_ends_every_attempt() -> None:
    one, two, three = endpoints = [FakeEndpoint() for _ in range(3)]
    clock, won = started(*endpoints)
    clock.advance(ATTEMPT_DELAY)
    won.cancel()
    with pytest.raises(CancelledError):
        outcome(won)
    assert (one.cancelled, two.cancelled, three.begun) == (True, True, False)
    assert not clock.getDelayedCalls()


def test_a_loser_that_connects_all_the_same_is_reset() -> None:
    one, two = FakeEndpoint(), FakeEndpoint()
    clock, won = started(one, two)
    one.connects_when_cancelled = True
    clock.advance(ATTEMPT_DELAY)
    two.succeed()
    assert one.transport is not None
    assert one.transport.gone == "reset"
    assert two.transport is not None
    assert two.transport.gone is None
    assert outcome(won) is two.transport.protocol


steps = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["succeed", "fail", "wait"])), max_size=25
)


@given(
    st.lists(
        st.sampled_from([None, FakeEndpoint.fail, FakeEndpoint.succeed]), min_size=1, max_size=6
    ),
    st.lists(st.booleans(), min_size=6, max_size=6),
    steps,
    st.booleans(),
)
def test_whatever_happens_at_most_one_connection_survives(
    kinds: list[object], stubborn: list[bool], happenings: list[tuple[int, str]], cancel: bool
) -> None:
    """And nothing is left on the clock, and no attempt under way."""
    endpoints = [FakeEndpoint(kind) for kind in kinds]  # type: ignore[arg-type]  # a word of the parameters
    for endpoint, connects in zip(endpoints, stubborn, strict=False):
        endpoint.connects_when_cancelled = connects
    clock, won = started(*endpoints)
    results: list[object] = []
    won.addBoth(results.append)
    for position, what in happenings:
        endpoint = endpoints[position % len(endpoints)]
        if what == "wait":
            clock.advance(0.1)
        elif endpoint.pending:
            getattr(endpoint, what)()
    if cancel:
        won.cancel()
    else:
        clock.pump([ATTEMPT_DELAY] * 60)
    (result,) = results
    survivors = [e.transport.protocol for e in endpoints if e.transport and not e.transport.gone]
    assert survivors == ([result] if IProtocol.providedBy(result) else [])
    assert not any(endpoint.pending for endpoint in endpoints)
    assert not clock.getDelayedCalls()

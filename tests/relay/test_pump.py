"""What the contract cannot time, or cannot put in order: every branch, by a clock."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.task import Clock
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

from socksd.interfaces import EndedBy, ICarrier, IRelay, Tally
from socksd.relay.pump import Pump, ThrottledPump
from socksd.relay.throttle import Budget
from socksd.server.ends import End
from tests.fakes import FakeTransport, ended, outcome

IDLE = 900.0
LINGER = 300.0
FULL = bytes(65537)  # one octet more than a transport takes without a word


@dataclass
class Joined:
    """A pump between two connections whose far sides are the test."""

    clock: Clock
    client: FakeTransport
    target: FakeTransport
    pump: Pump
    done: Deferred[Tally]

    @property
    def ended_by(self) -> EndedBy:
        ended_by: EndedBy = outcome(self.done).ended_by
        return ended_by

    def far(self, name: str) -> tuple[FakeTransport, FakeTransport]:
        """Give the named one, and the other."""
        pair = (self.client, self.target)
        return pair if name == "client" else (pair[1], pair[0])


def joined(early: bytes = b"", *, secure_client: bool = False) -> Joined:
    clock, client, target = Clock(), End(), End()
    ours, theirs = FakeTransport(client), FakeTransport(target)
    if secure_client:
        alsoProvides(ours, ISSLTransport)
    pump = Pump(client, target, clock, IDLE, LINGER)
    return Joined(clock, ours, theirs, pump, ended(pump, early))


@pytest.fixture
def relay() -> Joined:
    return joined()


both_ways = pytest.mark.parametrize("name", ["client", "target"])


def test_it_is_a_relay(relay: Joined) -> None:
    assert verifyObject(IRelay, relay.pump)
    assert verifyObject(ICarrier, relay.client.producer)
    assert verifyObject(IPushProducer, relay.client.producer)


# -- octets -------------------------------------------------------------------


def test_octets_are_carried_and_counted_each_way(relay: Joined) -> None:
    relay.client.receive(b"ask")
    relay.target.receive(b"answer")
    assert (relay.target.sent, relay.client.sent) == (b"ask", b"answer")
    assert (relay.pump.up, relay.pump.down) == (3, 6)


def test_early_octets_come_first_and_count() -> None:
    relay = joined(b"early ")
    relay.client.receive(b"late")
    assert relay.target.sent == b"early late"
    assert relay.pump.up == 10


def test_what_the_ends_have_kept_comes_behind_the_early_octets() -> None:
    client, target = End(), End()
    ours, theirs = FakeTransport(client), FakeTransport(target)
    ours.receive(b"kept")
    theirs.receive(b"banner")
    ended(Pump(client, target, Clock(), IDLE, LINGER), b"early ")
    assert (theirs.sent, ours.sent) == (b"early kept", b"banner")


def test_early_octets_that_fill_the_target_pause_the_client() -> None:
    client, target = End(), End()
    ours, theirs = FakeTransport(client), FakeTransport(target)
    theirs.stop_reading()
    ours.receive(b"kept")
    ended(Pump(client, target, Clock(), IDLE, LINGER), FULL)
    assert not ours.producing


@both_ways
def test_a_far_side_that_does_not_read_pauses_the_other(relay: Joined, name: str) -> None:
    slow, fast = relay.far(name)
    slow.stop_reading()
    fast.receive(FULL)
    assert not fast.producing
    assert slow.producing
    slow.start_reading()
    assert fast.producing
    assert slow.sent == FULL


# -- the end, in order --------------------------------------------------------


@both_ways
def test_fin_is_passed_on_and_the_other_direction_lives(relay: Joined, name: str) -> None:
    first, second = relay.far(name)
    first.receive_fin()
    assert second.fin
    second.receive(b"still here")
    assert first.sent == b"still here"
    assert first.gone is None
    assert not first.fin


@both_ways
def test_the_second_fin_closes_both(relay: Joined, name: str) -> None:
    first, second = relay.far(name)
    first.receive_fin()
    second.receive_fin()
    assert (first.gone, second.gone) == ("closed", "closed")
    assert relay.ended_by is EndedBy.BOTH
    assert not relay.clock.getDelayedCalls()


@both_ways
def test_fin_waits_for_the_octets_before_it(relay: Joined, name: str) -> None:
    """And a producer that was paused does not stand in its way."""
    first, second = relay.far(name)
    second.stop_reading()
    first.receive(FULL)
    first.receive_fin()  # TLS tells of it while paused
    assert not second.fin
    second.start_reading()
    assert second.fin
    assert second.sent == FULL
    assert first.gone is None


@both_ways
def test_the_last_octets_are_delivered_though_both_have_ended(relay: Joined, name: str) -> None:
    first, second = relay.far(name)
    second.stop_reading()
    first.receive(b"the last")
    second.receive_fin()
    first.receive_fin()
    assert first.gone == "closed"
    assert second.gone is None
    second.start_reading()
    assert second.sent == b"the last"
    assert relay.ended_by is EndedBy.BOTH


def test_a_half_closed_end_is_not_read_again_when_the_other_has_run_empty(relay: Joined) -> None:
    """Its FIN would be found a second time, and taken for the other's."""
    relay.target.stop_reading()
    relay.client.receive(FULL)
    relay.client.receive_fin()
    relay.target.start_reading()
    assert relay.target.gone is None
    assert not relay.client.producing


def test_the_tally_tells_what_was_carried(relay: Joined) -> None:
    relay.client.receive(b"ask")
    relay.target.receive(b"answer")
    relay.client.receive_fin()
    relay.target.receive_fin()
    assert outcome(relay.done) == Tally(3, 6, EndedBy.BOTH)


@both_ways
def test_a_close_without_fin_closes_the_other_in_order(relay: Joined, name: str) -> None:
    """TLS: close_notify ends both directions at once."""
    first, second = relay.far(name)
    second.stop_reading()
    first.receive(FULL)
    first.receive_close()
    assert second.gone is None
    second.start_reading()
    assert second.sent == FULL
    assert second.gone == "closed"
    assert relay.ended_by is EndedBy.BOTH


def test_octets_for_a_peer_that_is_gone_are_not_counted(relay: Joined) -> None:
    """TLS reads on, after loseConnection(), until the far side closes, too."""
    relay.target.stop_reading()
    relay.client.receive(b"not read yet")
    relay.client.receive_close()
    relay.target.protocol.dataReceived(b"to nobody")
    assert relay.pump.down == 0
    relay.clock.advance(LINGER)
    assert relay.target.gone == "reset"


def test_fin_is_told_to_a_client_over_tls_by_closing_its_direction() -> None:
    relay = joined(secure_client=True)
    relay.target.receive(b"the page")
    relay.target.receive_fin()
    assert relay.client.sent == b"the page"
    assert not relay.client.fin
    assert relay.client.gone == "closed"
    assert relay.ended_by is EndedBy.BOTH


def test_a_client_over_tls_is_carried_on_when_it_has_run_empty() -> None:
    relay = joined(secure_client=True)
    for _ in range(2):
        relay.client.stop_reading()
        relay.target.receive(FULL)
        assert not relay.target.producing
        relay.client.start_reading()
        assert relay.target.producing
    assert relay.client.sent == FULL * 2


# -- the end, by a reset ------------------------------------------------------


@both_ways
def test_a_reset_is_passed_on_as_a_reset(relay: Joined, name: str) -> None:
    first, second = relay.far(name)
    first.receive_reset()
    assert second.gone == "reset"
    assert relay.ended_by == name
    assert not relay.clock.getDelayedCalls()


@both_ways
def test_a_reset_is_passed_on_to_whom_was_paused(relay: Joined, name: str) -> None:
    first, second = relay.far(name)
    first.stop_reading()
    second.receive(FULL)
    first.receive_reset()
    assert second.gone == "reset"
    assert relay.ended_by == name


@both_ways
def test_a_reset_is_passed_on_over_what_could_not_be_sent(relay: Joined, name: str) -> None:
    first, second = relay.far(name)
    second.stop_reading()
    first.receive(FULL)
    first.receive_reset()
    assert second.gone == "reset"
    assert relay.ended_by == name


@both_ways
def test_a_reset_after_fin_stays_a_reset(relay: Joined, name: str) -> None:
    """Twisted stops the producer first: as a transport, it would close in order."""
    first, second = relay.far(name)
    first.receive_fin()
    first.receive_reset()
    assert second.gone == "reset"
    assert relay.ended_by == name


@both_ways
def test_a_reset_before_the_last_octets_were_read_is_told(relay: Joined, name: str) -> None:
    """Both have ended, but not all has arrived: that is no success."""
    first, second = relay.far(name)
    second.stop_reading()
    first.receive(b"the last")
    first.receive_fin()
    second.receive_fin()
    second.receive_reset()
    assert relay.ended_by == ("target" if name == "client" else "client")


def test_the_first_cause_is_told(relay: Joined) -> None:
    relay.target.stop_reading()
    relay.client.receive(b"unread")
    relay.client.receive_fin()
    relay.target.receive_fin()
    relay.clock.advance(LINGER)
    assert relay.ended_by is EndedBy.LINGER


def test_a_reset_is_the_cause_though_the_other_had_to_be_cut_off(relay: Joined) -> None:
    for far in (relay.client, relay.target):
        far.stop_reading()
    relay.client.receive(b"unread")
    relay.target.receive(b"unread")
    relay.client.receive_fin()
    relay.target.receive_fin()
    relay.client.receive_reset()
    assert relay.target.gone is None  # it has had FIN, and may read yet
    relay.clock.advance(LINGER)
    assert relay.target.gone == "reset"
    assert relay.ended_by is EndedBy.CLIENT


def test_abort_is_not_the_cause_of_what_had_lingered(relay: Joined) -> None:
    relay.target.stop_reading()
    relay.client.receive(FULL)
    relay.client.receive_fin()
    relay.clock.advance(LINGER)
    relay.pump.abort()
    assert relay.target.gone == "reset"
    assert relay.ended_by is EndedBy.LINGER


@both_ways
def test_an_end_that_was_lost_before_the_relay_began_takes_the_other_along(name: str) -> None:
    client, target = End(), End()
    ours, theirs = FakeTransport(client), FakeTransport(target)
    lost, other = (ours, theirs) if name == "client" else (theirs, ours)
    lost.receive_reset()
    clock = Clock()
    tally = outcome(ended(Pump(client, target, clock, IDLE, LINGER), b"early"))
    assert other.gone == "reset"
    assert tally.ended_by == name
    assert not clock.getDelayedCalls()


# -- the end, by us -----------------------------------------------------------


def test_abort_resets_both(relay: Joined) -> None:
    relay.pump.abort()
    assert (relay.client.gone, relay.target.gone) == ("reset", "reset")
    assert relay.ended_by is EndedBy.US
    assert not relay.clock.getDelayedCalls()


def test_abort_after_the_end_changes_nothing(relay: Joined) -> None:
    relay.client.receive_fin()
    relay.target.receive_fin()
    relay.pump.abort()
    assert relay.ended_by is EndedBy.BOTH


def test_abort_cuts_off_what_lingers(relay: Joined) -> None:
    relay.target.stop_reading()
    relay.client.receive(FULL)
    relay.client.receive_fin()
    relay.target.receive_fin()
    relay.pump.abort()
    assert relay.target.gone == "reset"
    assert relay.ended_by is EndedBy.US


# -- deadlines ----------------------------------------------------------------


def test_an_idle_relay_is_reset(relay: Joined) -> None:
    relay.clock.advance(IDLE - 1)
    assert not relay.done.called
    relay.clock.advance(1)
    assert (relay.client.gone, relay.target.gone) == ("reset", "reset")
    assert relay.ended_by is EndedBy.IDLE
    assert not relay.clock.getDelayedCalls()


def test_the_idle_time_counts_from_join() -> None:
    client, target, clock = End(), End(), Clock()
    transports = FakeTransport(client), FakeTransport(target)
    pump = Pump(client, target, clock, IDLE, LINGER)
    clock.advance(IDLE / 2)
    ended(pump)
    clock.advance(IDLE - 1)
    assert [transport.gone for transport in transports] == [None, None]
    clock.advance(1)
    assert [transport.gone for transport in transports] == ["reset", "reset"]


@both_ways
def test_octets_either_way_keep_a_relay_alive(relay: Joined, name: str) -> None:
    first, _ = relay.far(name)
    for _ in range(5):
        relay.clock.advance(IDLE - 1)
        first.receive(b".")
    relay.clock.advance(IDLE - 1)
    assert not relay.done.called
    relay.clock.advance(1)
    assert relay.ended_by is EndedBy.IDLE


def test_a_peer_that_reads_no_more_is_idle(relay: Joined) -> None:
    relay.client.stop_reading()
    relay.target.receive(FULL)
    relay.clock.advance(IDLE)
    assert relay.ended_by is EndedBy.IDLE


def test_a_peer_that_has_read_what_was_waiting_is_not_idle(relay: Joined) -> None:
    relay.client.stop_reading()
    relay.target.receive(FULL)
    relay.clock.advance(IDLE - 1)
    relay.client.start_reading()
    relay.clock.advance(IDLE - 1)
    assert not relay.done.called


def test_one_delayed_call_however_many_octets(relay: Joined) -> None:
    (call,) = relay.clock.getDelayedCalls()
    for _ in range(100):
        relay.client.receive(b".")
    assert relay.clock.getDelayedCalls() == [call]


@both_ways
def test_half_closed_the_linger_time_counts_from_fin(relay: Joined, name: str) -> None:
    """The one that has had its FIN keeps what is under way; the other is reset."""
    first, second = relay.far(name)
    relay.clock.advance(100)
    first.receive_fin()
    relay.clock.advance(LINGER - 1)
    assert not relay.done.called
    relay.clock.advance(1)
    assert (first.gone, second.gone) == ("reset", "closed")
    assert relay.ended_by is EndedBy.LINGER
    assert not relay.clock.getDelayedCalls()


@both_ways
def test_a_long_download_survives_a_half_close(relay: Joined, name: str) -> None:
    first, second = relay.far(name)
    first.receive_fin()
    for _ in range(12):
        relay.clock.advance(LINGER - 1)
        second.receive(b"more")
    assert not relay.done.called
    assert first.sent == b"more" * 12
    relay.clock.advance(LINGER)
    assert relay.ended_by is EndedBy.LINGER


@both_ways
def test_last_octets_that_nobody_reads_are_cut_off(relay: Joined, name: str) -> None:
    first, second = relay.far(name)
    second.stop_reading()
    first.receive(FULL)
    second.receive_fin()
    first.receive_fin()
    relay.clock.advance(LINGER - 1)
    assert second.gone is None
    relay.clock.advance(1)
    assert second.gone == "reset"
    assert relay.ended_by is EndedBy.LINGER


@both_ways
def test_a_flush_at_the_linger_deadline_has_that_time_once_more(relay: Joined, name: str) -> None:
    first, second = relay.far(name)
    second.stop_reading()
    first.receive(FULL)
    first.receive_fin()
    relay.clock.advance(LINGER)
    assert (first.gone, second.gone) == ("reset", None)
    relay.clock.advance(LINGER)
    assert second.gone == "reset"
    assert relay.ended_by is EndedBy.LINGER
    assert not relay.clock.getDelayedCalls()


@both_ways
def test_a_deadline_that_is_made_sooner_is_not_looked_for_among_all(
    relay: Joined, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10,000 relays that end at the same time each would search 10,000 calls."""

    def search(*_: object) -> None:
        raise AssertionError("reset() of Twisted's searches a list")

    monkeypatch.setattr(DelayedCall, "reset", search)
    relay.far(name)[0].receive_fin()
    (call,) = relay.clock.getDelayedCalls()
    assert call.getTime() == LINGER


# -- throttled: paused by two ---------------------------------------------------


RATE = 100_000


@pytest.fixture
def throttled() -> Joined:
    """A pump that has used up all it may carry from the target for a second."""
    clock, client, target = Clock(), End(), End()
    ours, theirs = FakeTransport(client), FakeTransport(target)
    budget = Budget(RATE, clock)
    budget.down.spend(RATE)
    pump = ThrottledPump(client, target, clock, IDLE, LINGER, budget)
    relay = Joined(clock, ours, theirs, pump, ended(pump))
    relay.target.receive(b"so far")
    assert not relay.target.producing
    return relay


def wait_for_a_turn(relay: Joined) -> None:
    for _ in range(20):
        relay.clock.advance(0.1)


def test_who_has_its_turn_is_read_again(throttled: Joined) -> None:
    wait_for_a_turn(throttled)
    assert throttled.target.producing
    assert throttled.client.producing, "the other direction has all it may"


def test_what_was_granted_is_used_before_anything_is_waited_for(throttled: Joined) -> None:
    clock = throttled.clock
    clock.advance(0.9)
    assert throttled.target.producing
    throttled.target.receive(bytes(6000))
    assert throttled.target.producing
    throttled.target.receive(bytes(6000))
    assert not throttled.target.producing


def test_whose_reader_is_slow_has_its_turn_and_stays_paused(throttled: Joined) -> None:
    throttled.client.producer.pauseProducing()
    wait_for_a_turn(throttled)
    assert not throttled.target.producing
    throttled.client.producer.resumeProducing()
    assert throttled.target.producing


def test_whose_reader_has_caught_up_still_waits_for_its_turn(throttled: Joined) -> None:
    throttled.client.producer.pauseProducing()
    throttled.client.producer.resumeProducing()
    assert not throttled.target.producing
    wait_for_a_turn(throttled)
    assert throttled.target.producing


def test_what_comes_after_the_end_is_not_paid_for(throttled: Joined) -> None:
    """TLS goes on reading until its peer closes."""
    throttled.client.stop_reading()
    throttled.client.write(b"the reply waits")
    side = throttled.client.producer
    side.close()
    before = throttled.pump.down
    side.data_received(FULL)
    assert throttled.pump.down == before
    wait_for_a_turn(throttled)
    assert not throttled.target.producing


@both_ways
def test_a_throttled_end_that_is_lost_waits_no_more(throttled: Joined, name: str) -> None:
    first, _ = throttled.far(name)
    first.receive_reset()
    assert throttled.ended_by == name
    assert not throttled.clock.getDelayedCalls()

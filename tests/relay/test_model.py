"""
Any relay, in any order of events, against a model of what each end must see.

The model is short: an end sees a beginning of what the other has sent; all of
it, and then FIN, unless somebody broke off; and never FIN before all of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from functools import partial

import pytest
import pytest_twisted
from greenlet import greenlet
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from socksd.interfaces import EndedBy, Tally
from tests.relay.test_contract import (  # the fixtures count descriptors, here, too
    BUFFER,
    LINGER,
    RELAYS,
    Far,
    Relayed,
    RelayFactory,
    _descriptors,
    _warm,
    noise,
    one_turn,
    relayed,
)

__all__ = ["_descriptors", "_warm"]

NAMES = ("client", "target")
PATIENCE = LINGER / 2  # what may pass before a relay has reason to end

# At the edges of what is chatter (16 KiB), a read, a quantum, and a pipe.
sizes = st.sampled_from([1, 2, 1447, 16_383, 16_384, 16_385, 65_536, 65_537, 300_001, 1_100_000])
names = st.sampled_from(NAMES)
OCTETS = noise(1, 1_100_000)


def other(name: str) -> str:
    return NAMES[name == "client"]


def wait_for(awaitable: Awaitable[object]) -> None:
    pytest_twisted.blockon(ensureDeferred(awaitable))  # type: ignore[arg-type]  # is a coroutine


def beside_the_reactor(run: Callable[[], object]) -> Deferred[None]:
    """Let *run*, which is no coroutine, wait for the reactor: tests are in its greenlet."""
    done: Deferred[None] = Deferred()

    def running() -> None:
        try:
            run()
        except BaseException:  # noqa: BLE001 -- the test's own, to be raised there
            tell = partial(done.errback, Failure())
        else:
            tell = partial(done.callback, None)
        reactor.callLater(0, tell)  # and not here, where the rest of the test would run on

    greenlet(running).switch()
    return done


class Machine(RuleBasedStateMachine):
    """
    One relay between two far sides; hypothesis says what they do, and when.

    Attributes:
        sent: What each has been told to send.
        finished: Who has been told to send FIN behind it.
        broken_by: Who broke off: a far side by a reset, or "us".
        passed: Seconds of the relay's clock.
        turns: How many turns it has had.
    """

    def __init__(self, relays: Callable[[], AbstractContextManager[RelayFactory]]) -> None:
        super().__init__()
        self.relays = relays
        self.around = ExitStack()
        self.connections = AsyncExitStack()
        self.sent = dict.fromkeys(NAMES, b"")
        self.finished: set[str] = set()
        self.broken_by: str | None = None
        self.passed = 0.0
        self.turns = 0

    @initialize(buffer=st.sampled_from([None, BUFFER]), early=st.sampled_from([0, 1, 60_000]))
    def join(self, buffer: int | None, early: int) -> None:
        factory = self.around.enter_context(self.relays())
        self.sent["client"] = OCTETS[:early]
        relaying = relayed(factory, OCTETS[:early], buffer)

        async def enter() -> None:
            self.relayed: Relayed = await self.connections.enter_async_context(relaying)

        wait_for(enter())

    def far(self, name: str) -> Far:
        return self.relayed.far(name)[0]

    # -- what may happen -------------------------------------------------------

    unbroken = precondition(lambda self: self.broken_by is None)

    @unbroken
    @rule(name=names, size=sizes)
    def send(self, name: str, size: int) -> None:
        if name not in self.finished:
            octets = OCTETS[:size]
            self.sent[name] += octets
            self.far(name).send(octets)

    @unbroken
    @rule(name=names, size=sizes)
    def send_to_who_does_not_read(self, name: str, size: int) -> None:
        self.far(other(name)).reading = False
        self.send(name, size)
        wait_for(self.relayed.settle())

    @rule(name=names)
    def read_on(self, name: str) -> None:
        self.far(name).reading = True

    @unbroken
    @rule(name=names)
    def half_close(self, name: str) -> None:
        self.finished.add(name)
        self.far(name).finish()

    @precondition(lambda self: self.broken_by is None and self.turns > 20)
    @rule(who=st.sampled_from([*NAMES, "us"]))
    def break_off(self, who: str) -> None:
        self.broken_by = who
        if who == "us":
            self.relayed.relay.abort()
        else:
            self.far(who).reset()

    @rule(turns=st.integers(1, 20))
    def turn(self, turns: int) -> None:
        self.turns += turns

        async def take() -> None:
            for _ in range(turns):
                await one_turn()
                self.relayed.client.turn()
                self.relayed.target.turn()

        wait_for(take())

    @unbroken
    @rule()
    def settle(self) -> None:
        """Left alone, whoever reads gets all that the other has sent, and its FIN."""
        reading = [name for name in NAMES if self.far(name).reading]

        def all_is_there() -> bool:
            return all(
                len(self.far(name).received) == len(self.sent[other(name)])
                and self.far(name).ended == (other(name) in self.finished)
                for name in reading
            )

        # Not a number of turns: the kernel may deliver late when the machine is busy.
        wait_for(self.relayed.until(all_is_there))

    @rule(seconds=st.floats(0.1, 60.0))
    def pause(self, seconds: float) -> None:
        if self.passed + seconds < PATIENCE:
            self.passed += seconds
            self.relayed.clock.advance(seconds)

    # -- what must be so -------------------------------------------------------

    @invariant()
    def each_sees_a_beginning_of_what_the_other_has_sent(self) -> None:
        for name in NAMES:
            assert self.sent[other(name)].startswith(self.far(name).received)

    @invariant()
    def whoever_sees_fin_has_seen_all(self) -> None:
        for name in NAMES:
            if self.far(name).ended and not self.far(name).error:  # recv() gives b"" behind one
                assert other(name) in self.finished
                assert self.far(name).received == self.sent[other(name)]

    @invariant()
    def the_counters_lie_between_what_was_sent_and_what_has_arrived(self) -> None:
        up, down = self.relayed.relay.up, self.relayed.relay.down
        assert len(self.relayed.target.received) <= up <= len(self.sent["client"])
        assert len(self.relayed.client.received) <= down <= len(self.sent["target"])

    @invariant()
    def it_goes_on_until_both_have_finished_or_one_has_broken_off(self) -> None:
        if self.broken_by is None and len(self.finished) < len(NAMES):
            assert not self.relayed.tallies

    def teardown(self) -> None:
        try:
            if hasattr(self, "relayed"):
                wait_for(self._to_its_end())
        finally:
            wait_for(self.connections.aclose())
            self.around.close()

    async def _to_its_end(self) -> None:
        r = self.relayed
        for name in NAMES:
            self.finished.add(name)
            self.far(name).reading = True
            self.far(name).finish()
        if self.broken_by in NAMES:
            await r.settle()
            r.clock.advance(LINGER)  # for a reset that nobody was there to hear
        await r.ended()
        await r.until(lambda: all(far.closed or far.left for far in (r.client, r.target)))
        self.each_sees_a_beginning_of_what_the_other_has_sent()
        self.the_counters_lie_between_what_was_sent_and_what_has_arrived()
        if self.broken_by is None:
            self.whoever_sees_fin_has_seen_all()
            assert r.client.ended
            assert r.target.ended
            ended = Tally(len(self.sent["client"]), len(self.sent["target"]), EndedBy.BOTH)
            assert r.tally == ended
        else:
            assert r.tally.ended_by in (self.broken_by, EndedBy.LINGER, EndedBy.BOTH)
        assert r.tally == Tally(r.relay.up, r.relay.down, r.tally.ended_by)
        r.check_closed()


@pytest.mark.parametrize("relays", RELAYS.values(), ids=RELAYS)
@pytest.mark.reactor_timeout(60)  # of which a second is used, unless a failure is shrunk
async def test_each_end_sees_what_the_model_says(
    relays: Callable[[], AbstractContextManager[RelayFactory]],
) -> None:
    await beside_the_reactor(
        lambda: run_state_machine_as_test(  # type: ignore[no-untyped-call]  # hypothesis's
            lambda: Machine(relays),
            settings=settings(
                max_examples=50,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    )

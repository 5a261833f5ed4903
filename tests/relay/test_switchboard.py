from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from select import EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import cast

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksd.interfaces import IActing, ISwitchboard, IWatched
from socksd.relay.pipes import Pipes
from socksd.relay.switchboard import Switchboard, unsent
from tests.relay.hand import HandReactor

MIB = 1 << 20


@pytest.fixture
def reactor() -> HandReactor:
    return HandReactor()


@pytest.fixture
def board(reactor: HandReactor) -> Iterator[Switchboard]:
    made = Switchboard(reactor)
    made.start()
    yield made
    made.stop()
    assert not reactor.readers
    assert not reactor.getDelayedCalls()


@pytest.fixture
def pairs() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    made: list[socket.socket] = []

    def pair() -> tuple[socket.socket, socket.socket]:
        near, far = socket.socketpair()
        made.extend((near, far))
        return near, far

    yield pair
    for sock in made:
        sock.close()


Pairs = Callable[[], tuple[socket.socket, socket.socket]]


@implementer(IWatched)
class Ear:
    """Somebody who listens to a socket, and may do something then."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.then = then
        self.heard: list[int] = []
        self.failures: list[Failure] = []

    def hear(self, events: int) -> None:
        self.heard.append(events)
        self.then()

    def fail(self, failure: Failure) -> None:
        self.failures.append(failure)


class Load:
    """Somebody who has so many octets to move."""

    def __init__(self, board: Switchboard, left: int, told: list[Load]) -> None:
        self.board = board
        self.left = left
        self.told = told
        board.haul(self)

    def fail(self, failure: Failure) -> None:
        self.failed = failure

    def haul(self, share: int) -> int:
        self.told.append(self)
        moved = min(share, self.left)
        self.left -= moved
        if self.left:
            self.board.haul(self)
        return moved


class Tunnel:
    """Somebody with a deadline."""

    def __init__(self, board: Switchboard, due: float) -> None:
        self.board = board
        self.due = due
        self.ended = False
        self.looks = 0
        board.add(self, due)

    def look(self, now: float) -> float:
        self.looks += 1
        if self.due <= now:
            self.abort()
        return self.due

    def abort(self) -> None:
        self.ended = True
        self.board.remove(self)


def test_how_to_wait_depends_on_what_was_moved(
    board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the rest of it waits for the next turn."""
    waits: list[bool] = []

    def wait(delay: float | None, *, bulk: bool) -> list[tuple[int, int]]:
        waits.append(bulk)
        return []

    monkeypatch.setattr(board._polling, "wait", wait)
    Load(board, 12 * MIB, [])  # two turns of it
    for _ in range(4):
        board.doRead()
    assert waits == [False, True, True, False]


def test_it_is_a_reader_of_the_reactor(board: Switchboard, reactor: HandReactor) -> None:
    assert verifyObject(IReadDescriptor, board)
    assert verifyObject(ISwitchboard, board)
    assert reactor.readers == {board}
    assert board.logPrefix() == "switchboard"


# -- sockets ------------------------------------------------------------------


def test_what_is_true_is_told_once_and_what_becomes_true_then(
    board: Switchboard, pairs: Pairs
) -> None:
    near, far = pairs()
    ear = Ear()
    board.watch(near.fileno(), ear)
    board.doRead()
    board.doRead()
    assert ear.heard == [EPOLLOUT]
    far.send(b"x")
    board.doRead()
    board.doRead()
    assert ear.heard[1:] == [EPOLLIN | EPOLLOUT]
    far.shutdown(socket.SHUT_WR)
    board.doRead()
    assert ear.heard[2:] == [EPOLLIN | EPOLLOUT | EPOLLRDHUP]


def test_that_there_is_something_to_read_is_told_for_as_long_as_there_is(
    board: Switchboard, pairs: Pairs
) -> None:
    near, far = pairs()
    ear = Ear()
    board.watch_reading(near.fileno(), ear)
    board.doRead()
    assert ear.heard == []  # there is room to write, which is nothing new
    far.send(b"x")
    board.doRead()
    board.doRead()
    assert ear.heard == [EPOLLIN, EPOLLIN]
    near.recv(1)
    board.doRead()
    assert len(ear.heard) == 2
    board.forget(near.fileno())
    far.send(b"x")
    board.doRead()
    assert len(ear.heard) == 2


def test_the_reactor_is_woken_by_any_of_them(board: Switchboard, pairs: Pairs) -> None:
    sockets = [pairs()[0] for _ in range(3)]
    assert not select.select([board], [], [], 0)[0]
    for sock in sockets:
        board.watch(sock.fileno(), Ear())
    assert select.select([board], [], [], 0)[0]
    board.doRead()
    assert not select.select([board], [], [], 0)[0]


def test_the_forgotten_hear_no_more(board: Switchboard, pairs: Pairs) -> None:
    near, far = pairs()
    ear = Ear()
    board.watch(near.fileno(), ear)
    board.forget(near.fileno())
    far.send(b"x")
    board.doRead()
    assert ear.heard == []


def test_the_forgotten_may_be_closed_already(board: Switchboard, pairs: Pairs) -> None:
    near, _ = pairs()
    descriptor = near.fileno()
    board.watch(descriptor, Ear())
    near.close()
    board.forget(descriptor)


def test_who_is_forgotten_in_a_turn_hears_nothing_of_that_turn(
    board: Switchboard, pairs: Pairs
) -> None:
    """Each would have forgotten the other: whoever comes first."""
    sockets = [pairs()[0] for _ in range(2)]
    ears = [Ear(), Ear()]
    for position, ear in enumerate(ears):
        other = sockets[1 - position].fileno()
        ear.then = lambda descriptor=other: board.forget(descriptor)  # type: ignore[misc]  # bound in the loop
        board.watch(sockets[position].fileno(), ear)
    board.doRead()
    assert sorted(len(ear.heard) for ear in ears) == [0, 1]


def test_a_bug_is_told_to_whom_it_belongs_and_the_others_go_on(
    board: Switchboard, pairs: Pairs
) -> None:
    ears = [Ear(lambda: 1 / 0), Ear()]
    for ear in ears:
        board.watch(pairs()[0].fileno(), ear)
    board.doRead()
    assert [len(ear.heard) for ear in ears] == [1, 1]
    assert [len(ear.failures) for ear in ears] == [1, 0]
    assert ears[0].failures[0].check(ZeroDivisionError)


def test_many_sockets_are_heard_in_a_few_turns(board: Switchboard, pairs: Pairs) -> None:
    """Each time so many that none waits long for all to be heard, and none twice."""
    ears = [Ear() for _ in range(600)]
    for ear in ears:
        board.watch(pairs()[0].fileno(), ear)
    heard = []
    for _ in range(10):
        board.doRead()
        heard.append(sum(len(ear.heard) for ear in ears))
    assert heard[0] == 64
    assert heard[-1] == 600
    assert all(ear.heard for ear in ears)


def test_a_new_socket_does_not_hear_what_became_true_of_the_last_with_its_number(
    board: Switchboard, pairs: Pairs
) -> None:
    """To a connection that is being made, "writable" would mean that it is."""
    (one, _), (other, _), (fresh, _) = pairs(), pairs(), pairs()
    ears = [Ear(), Ear()]
    late = Ear()

    def replace_the_other() -> None:
        for ear, sock in zip(ears, (one, other), strict=True):
            if not ear.heard:
                number = sock.fileno()
                board.forget(number)
                os.dup2(fresh.fileno(), number)
                board.watch(number, late)

    for ear, sock in zip(ears, (one, other), strict=True):
        ear.then = replace_the_other
        board.watch(sock.fileno(), ear)
    board.doRead()
    assert sorted(len(ear.heard) for ear in ears) == [0, 1]
    assert not late.heard
    board.doRead()
    assert late.heard == [EPOLLOUT]


def test_another_may_take_a_watch_over(board: Switchboard, pairs: Pairs) -> None:
    near, far = pairs()
    before, after = Ear(), Ear()
    board.watch(near.fileno(), before)
    board.doRead()
    board.hand_over(near.fileno(), after)
    far.send(b"x")
    board.doRead()
    assert (len(before.heard), len(after.heard)) == (1, 1)


def test_closing_a_socket_needs_no_more_than_a_word(board: Switchboard, pairs: Pairs) -> None:
    near, _ = pairs()
    ear = Ear()
    board.watch(near.fileno(), ear)
    board.closing(near.fileno())
    board.closing(near.fileno())
    board.doRead()
    assert not ear.heard


def test_soon_is_the_next_turn_and_once(
    board: Switchboard, reactor: HandReactor, pairs: Pairs
) -> None:
    ear = Ear()
    ear.then = lambda: board.soon(ear) if len(ear.heard) < 3 else None
    board.soon(ear)
    board.soon(ear)
    assert not ear.heard
    reactor.turn()
    assert ear.heard == [0]
    reactor.turn()
    reactor.turn()
    reactor.turn()
    assert ear.heard == [0, 0, 0]


# -- the end of a turn --------------------------------------------------------


@implementer(IActing)
class Actor:
    """Somebody who puts something off."""

    def __init__(self, told: list[object], then: Callable[[], object] = lambda: None) -> None:
        self.told = told
        self.then = then
        self.failures: list[Failure] = []

    def act(self) -> None:
        self.told.append(self)
        self.then()

    def fail(self, failure: Failure) -> None:
        self.failures.append(failure)


def test_what_is_put_off_is_done_when_all_was_heard(board: Switchboard, pairs: Pairs) -> None:
    told: list[object] = []
    ears = [Ear(), Ear()]
    actors = [Actor(told), Actor(told)]
    for ear, actor in zip(ears, actors, strict=True):
        ear.then = lambda actor=actor: (board.at_end(actor), told.append("heard"))
        near, _ = pairs()
        board.watch(near.fileno(), ear)
    board.doRead()
    assert told[:2] == ["heard", "heard"]
    assert set(told[2:]) == set(actors)
    board.doRead()
    assert len(told) == 4


def test_outside_of_a_turn_another_begins_at_once(board: Switchboard, reactor: HandReactor) -> None:
    told: list[object] = []
    actor = Actor(told)
    board.at_end(actor)
    assert not told
    reactor.turn()
    assert told == [actor]


def test_who_acts_may_make_others_act(board: Switchboard) -> None:
    told: list[object] = []
    second = Actor(told)
    first = Actor(told, lambda: board.at_end(second))
    board.at_end(first)
    board.doRead()
    assert told == [first, second]


def test_a_bug_in_an_act_is_its_own(board: Switchboard) -> None:
    told: list[object] = []
    broken, sound = Actor(told, lambda: 1 / 0), Actor(told)
    board.at_end(broken)
    board.at_end(sound)
    board.doRead()
    assert told == [broken, sound]
    assert [failure.type for failure in broken.failures] == [ZeroDivisionError]


def test_what_bulk_puts_off_is_done_in_its_turn(board: Switchboard) -> None:
    told: list[object] = []
    actor = Actor(told)
    load = Load(board, 1, [])
    load.haul = lambda share: board.at_end(actor) or 0  # type: ignore[method-assign]  # not as it was
    board.doRead()
    assert told == [actor]


def test_what_is_put_off_is_not_forgotten_at_the_end_of_all(board: Switchboard) -> None:
    told: list[object] = []
    before, after = Actor(told), Actor(told)
    board.at_end(before)
    board.stop()
    assert told == [before]
    board.at_end(after)
    assert told == [before, after]


# -- in front of the reactor --------------------------------------------------


@pytest.fixture
def epolls(pairs: Pairs) -> Iterator[EPollReactor]:
    """A reactor that has an epoll of its own; it is gone before its sockets are."""
    made = EPollReactor()
    yield made
    for reader in made.removeAll():
        reader.connectionLost(Failure(Exception()))
    for internal in made._internalReaders:
        internal.connectionLost(Failure(Exception()))
    made._poller.close()


class Reader:
    """A reader of the reactor's."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.read = b""

    def fileno(self) -> int:
        return self.sock.fileno()

    def doRead(self) -> None:
        self.read += self.sock.recv(100)

    def logPrefix(self) -> str:
        return "reader"

    def connectionLost(self, reason: Failure) -> None:
        pass


def test_in_front_of_the_reactor_one_wait_is_for_both(epolls: EPollReactor, pairs: Pairs) -> None:
    board = Switchboard(epolls)
    board.start()
    assert board not in epolls.getReaders()
    (near, _), (theirs, theirs_far) = pairs(), pairs()
    ear, reader = Ear(), Reader(theirs)
    epolls.addReader(reader)
    board.watch(near.fileno(), ear)
    epolls.doIteration(10)
    assert (ear.heard, reader.read) == ([EPOLLOUT], b"")
    theirs_far.send(b"x")
    epolls.doIteration(10)
    assert (len(ear.heard), reader.read) == (1, b"x")
    board.stop()
    theirs_far.send(b"y")
    epolls.doIteration(10)
    assert reader.read == b"xy"


def test_in_front_of_the_reactor_it_does_not_wait_while_there_is_work(
    epolls: EPollReactor,
) -> None:
    board = Switchboard(epolls)
    board.start()
    load = Load(board, 20 * MIB, [])
    ear = Ear()
    board.soon(ear)
    before = time.monotonic()
    for _ in range(3):
        epolls.doIteration(5)
    assert time.monotonic() - before < 5
    assert (load.left, ear.heard) == (0, [0])
    assert not epolls.getDelayedCalls()
    board.stop()


def test_what_the_reactor_does_may_end_it(epolls: EPollReactor, pairs: Pairs) -> None:
    board = Switchboard(epolls)
    board.start()
    theirs, far = pairs()
    reader = Reader(theirs)
    reader.doRead = board.stop  # type: ignore[method-assign]  # a reader that stops it all
    epolls.addReader(reader)
    far.send(b"x")
    epolls.doIteration(10)
    assert "doIteration" not in vars(epolls)


def test_only_one_is_in_front(epolls: EPollReactor, pairs: Pairs) -> None:
    first, second = Switchboard(epolls), Switchboard(epolls)
    first.start()
    second.start()
    assert second in epolls.getReaders()
    ear = Ear()
    second.watch(pairs()[0].fileno(), ear)
    epolls.doIteration(10)
    assert ear.heard == [EPOLLOUT]
    second.stop()
    first.stop()


# -- bulk ---------------------------------------------------------------------


def test_bulk_takes_turns(board: Switchboard, reactor: HandReactor) -> None:
    told: list[Load] = []
    loads = [Load(board, 3 * MIB, told) for _ in range(2)]
    board.doRead()
    assert told == loads * 3


def test_a_turn_is_bounded_and_the_rest_comes_in_the_next(
    board: Switchboard, reactor: HandReactor
) -> None:
    told: list[Load] = []
    loads = [Load(board, 100 * MIB, told) for _ in range(20)]
    board.doRead()
    assert sum(100 * MIB - load.left for load in loads) == 8 * MIB
    for turn in range(2, 5):
        reactor.turn()
        assert sum(100 * MIB - load.left for load in loads) == turn * 8 * MIB
    assert [load.left for load in loads[:12]] == [98 * MIB] * 12


@pytest.mark.parametrize(
    ("streams", "each"),
    [
        pytest.param(0, 0, id="none"),
        pytest.param(8, 0, id="a few are left to the kernel"),
        pytest.param(9, 1 * MIB, id="more than a few"),
        pytest.param(16, 1 * MIB, id="a power of two"),
        pytest.param(17, MIB // 2, id="more than that"),
        pytest.param(64, MIB // 4, id="many"),
        pytest.param(65, MIB // 8, id="very many"),
        pytest.param(100_000, MIB // 8, id="never less"),
    ],
)
def test_many_streams_share_what_may_wait_to_be_sent(streams: int, each: int) -> None:
    assert unsent(streams) == each


def test_how_many_streams_there_are_is_forgotten_slowly(board: Switchboard) -> None:
    """They come in different turns; the number must not jump with each."""
    for _ in range(64):
        Load(board, 1, [])
    board.doRead()
    assert board.unsent == MIB // 4
    for _ in range(20):
        Load(board, 1, [])
        board.doRead()
    assert board.unsent == MIB // 4
    for _ in range(200):
        Load(board, 1, [])
        board.doRead()
    assert board.unsent == 0


def test_whoever_chats_is_heard_between_two_turns_of_bulk(
    board: Switchboard, reactor: HandReactor, pairs: Pairs
) -> None:
    load = Load(board, 100 * MIB, [])
    board.doRead()
    near, _ = pairs()
    ear = Ear()
    board.watch(near.fileno(), ear)
    before = load.left
    ear.then = lambda: ear.heard.append(load.left)
    reactor.turn()
    assert ear.heard == [EPOLLOUT, before]


def test_a_bug_in_bulk_is_told_to_whom_it_belongs_and_the_others_go_on(
    board: Switchboard,
) -> None:
    told: list[Load] = []
    bad, good = (Load(board, MIB, told) for _ in range(2))
    bad.left = cast("int", None)
    board.doRead()
    assert bad.failed.check(TypeError)
    assert good.left == 0


def test_there_is_one_call_for_all_that_is_left(board: Switchboard, reactor: HandReactor) -> None:
    for _ in range(3):
        Load(board, 100 * MIB, [])
    board.doRead()
    board.doRead()
    assert len(reactor.getDelayedCalls()) == 1


# -- deadlines ----------------------------------------------------------------


def test_one_delayed_call_however_many_tunnels(board: Switchboard, reactor: HandReactor) -> None:
    tunnels = [Tunnel(board, 900.0 + n) for n in range(100)]
    assert len(reactor.getDelayedCalls()) == 1
    reactor.advance(899)
    assert tunnels[0].looks == 0
    reactor.advance(1)
    assert [tunnel.ended for tunnel in tunnels[:2]] == [True, False]
    assert len(reactor.getDelayedCalls()) == 1
    for _ in range(99):
        reactor.advance(1)
    assert all(tunnel.ended for tunnel in tunnels)
    assert not reactor.getDelayedCalls()


def test_who_is_due_sooner_is_looked_at_sooner(board: Switchboard, reactor: HandReactor) -> None:
    tunnel = Tunnel(board, 900.0)
    tunnel.due = 300.0
    board.due(300.0)
    board.due(600.0)
    reactor.advance(300)
    assert tunnel.ended


def test_of_many_a_thousandth_of_the_time_is_taken(
    board: Switchboard, reactor: HandReactor
) -> None:
    tunnels = [Tunnel(board, 10.0 + n / 1000) for n in range(1000)]
    for _ in range(1200):
        reactor.advance(0.01)
    assert all(tunnel.ended for tunnel in tunnels)
    assert tunnels[-1].looks <= 10


def test_it_goes_by_a_clock_of_its_own_if_given(reactor: HandReactor) -> None:
    clock = Clock()
    board = Switchboard(reactor, clock)
    board.start()
    tunnel = Tunnel(board, 5.0)
    reactor.advance(5)
    assert not tunnel.ended
    clock.advance(5)
    assert tunnel.ended
    board.stop()


# -- the end ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "connectionLost"])
def test_at_the_end_it_ends_what_is_left(reactor: HandReactor, how: str) -> None:
    board = Switchboard(reactor, pipes=Pipes(1))
    board.start()
    tunnel = Tunnel(board, 900.0)
    Load(board, 100 * MIB, [])
    board.doRead()
    pipe = board.pipes.take()
    assert pipe is not None
    board.pipes.give(pipe)
    if how == "stop":
        board.stop()
    else:
        board.connectionLost(Failure(Exception()))
    board.stop()  # for the service and for the reactor: both may
    assert tunnel.ended
    assert not reactor.readers
    assert not reactor.getDelayedCalls()
    assert board.pipes.take() is None


def test_one_that_has_not_begun_ends_without_a_word(reactor: HandReactor) -> None:
    Switchboard(reactor).stop()

"""
What a line promises beyond the contract of all relays: how little it holds.

Real sockets, turned by hand; see tests/relay/hand.py.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import random
import socket
import sys
import termios
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from select import select
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IPullProducer
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksd.interfaces import Ended, EndedBy, IActing, ICarrier, IRelay, IWatched, Tally
from socksd.relay import line as line_module
from tests.relay.hand import IDLE, LINGER, Board, Joined, board
from tests.relay.test_contract import BUFFER, MIB, both_ways, noise

CHATTER = 16 << 10


@pytest.fixture(params=[False, True], ids=["", "switched"])
def hand(request: pytest.FixtureRequest) -> Iterator[Board]:
    with board(switched=request.param) as made:
        yield made


@pytest.fixture
def without_pipes() -> Iterator[Board]:
    with board(pipes=0) as made:
        yield made


with_and_without_pipes = pytest.mark.parametrize("pipes", [4, 0])


def test_it_is_a_relay(hand: Board) -> None:
    joined = hand.join()
    assert verifyObject(IRelay, joined.line)
    for interface in (ICarrier, IWatched, IPullProducer):
        assert verifyObject(interface, joined.line._client)


# -- from the transports, and back --------------------------------------------


def test_the_reactor_knows_nothing_of_the_two_sockets(hand: Board) -> None:
    hand.join()
    assert hand.reactor.readers == {hand.switchboard}
    assert not hand.reactor.writers


def test_small_octets_do_not_wait_for_an_acknowledgement() -> None:
    """Who makes switched transports has seen to it already."""
    with board() as hand:
        for end in hand.join().ends:
            assert end.transport.getTcpNoDelay()


def test_what_was_written_before_leaves_first(hand: Board) -> None:
    client, client_far = hand.end()
    target, target_far = hand.end()
    client.transport.write(b"the reply, ")
    joined = Joined(hand, client, client_far, target, target_far)
    hand.joined.append(joined)
    joined.line.join(b"", joined.results.append)
    target_far.send(b"then the banner")
    hand.until(lambda: len(client_far.received) == 26)
    assert client_far.received == b"the reply, then the banner"
    assert (joined.line.up, joined.line.down) == (0, 15)


def flush(hand: Board) -> None:
    """Do what the reactor does with a transport that has something to write."""
    hand.turn()
    for writer in list(hand.reactor.writers):
        why = writer.doWrite()
        if why is not None:
            writer.connectionLost(Failure(why))


def stalled_before_it_is_joined(hand: Board) -> tuple[Joined, bytes]:
    client, client_far = hand.end(BUFFER)
    target, target_far = hand.end(BUFFER)
    reply = noise(1, 2 * MIB)
    client.transport.write(reply)
    client_far.reading = False
    joined = Joined(hand, client, client_far, target, target_far)
    hand.joined.append(joined)
    joined.line.join(b"early", joined.results.append)
    return joined, reply


def test_what_was_written_before_has_the_reactors_time_to_leave(hand: Board) -> None:
    joined, reply = stalled_before_it_is_joined(hand)
    joined.target.send(b" and the banner")
    assert hand.reactor.writers == (set() if hand.switched else {joined.ends[0].transport})
    assert hand.reactor.readers == {hand.switchboard}
    hand.until(lambda: joined.target.received == b"early")
    joined.client.reading = True
    for _ in range(1000):
        flush(hand)
        hand.turn()
    assert joined.client.received == reply + b" and the banner"
    assert not hand.reactor.writers


def test_who_breaks_off_before_it_has_left_ends_the_relay(hand: Board) -> None:
    joined, _ = stalled_before_it_is_joined(hand)
    joined.client.reset()
    flush(hand)
    assert joined.ended_by is EndedBy.CLIENT
    hand.until(lambda: joined.target.left)
    assert joined.target.error == errno.ECONNRESET


def test_who_has_broken_off_before_the_relay_began_ends_it(hand: Board) -> None:
    """The write finds out first; the switchboard has to find it, too."""
    client, client_far = hand.end()
    target, target_far = hand.end()
    client_far.reset()
    client.transport.write(b"the reply")
    joined = Joined(hand, client, client_far, target, target_far)
    hand.joined.append(joined)
    joined.line.join(b"", joined.results.append)
    hand.until(lambda: target_far.left)
    assert joined.ended_by is EndedBy.CLIENT
    assert target_far.error == errno.ECONNRESET


def test_what_the_ends_have_kept_comes_behind_the_early_octets(hand: Board) -> None:
    client, client_far = hand.end()
    target, target_far = hand.end()
    client_far.send(b"kept ")
    client_far.turn()
    client.transport.doRead()  # type: ignore[attr-defined]  # Twisted's transport has it, the interface has not
    joined = Joined(hand, client, client_far, target, target_far)
    hand.joined.append(joined)
    joined.line.join(b"early ", joined.results.append)
    assert joined.line.up == 11
    client_far.send(b"late")
    hand.until(lambda: len(target_far.received) == 15)
    assert target_far.received == b"early kept late"


def test_a_fin_that_came_before_is_passed_on(hand: Board) -> None:
    client, client_far = hand.end()
    target, target_far = hand.end()
    client_far.finish()
    client_far.turn()
    client.transport.stopReading()  # type: ignore[attr-defined]  # as the reactor does
    client.readConnectionLost()
    joined = Joined(hand, client, client_far, target, target_far)
    hand.joined.append(joined)
    joined.line.join(b"early", joined.results.append)
    hand.until(lambda: target_far.ended)
    assert target_far.received == b"early"
    target_far.send(b"answer")
    hand.until(lambda: client_far.received == b"answer")


def test_both_ends_hear_that_their_connection_is_gone(hand: Board) -> None:
    joined = hand.join()
    joined.client.finish()
    joined.target.finish()
    hand.until(lambda: joined.results)
    for end in joined.ends:
        assert end._loss is not None
        assert not end.transport.connected  # type: ignore[attr-defined]  # Twisted's transport has it, the interface has not


@both_ways
def test_a_transport_that_somebody_aborts_ends_the_relay(hand: Board, name: str) -> None:
    joined = hand.join()
    hand.settle()
    joined.ends[0 if name == "client" else 1].transport.abortConnection()
    hand.until(lambda: joined.client.left and joined.target.left)
    assert joined.ended_by == name


def test_abort_after_the_end_changes_nothing(hand: Board) -> None:
    joined = hand.join()
    joined.client.finish()
    joined.target.finish()
    hand.until(lambda: joined.results)
    joined.line.abort()
    assert joined.ended_by is EndedBy.BOTH


def test_a_bug_after_the_end_is_logged(hand: Board, logged_errors: list[Any]) -> None:
    """As one in who hears of the end, by whose call it comes about."""
    joined = hand.join()
    joined.client.finish()
    joined.target.finish()
    hand.until(lambda: joined.results)
    joined.line.fail(Failure(ZeroDivisionError()))
    assert joined.ended_by is EndedBy.BOTH
    assert [event["failure"].type for event in logged_errors] == [ZeroDivisionError]
    logged_errors.clear()


# -- what is held -------------------------------------------------------------


def test_chatter_takes_no_pipe_and_leaves_nothing(hand: Board) -> None:
    joined = hand.join()
    for size in (1, 64, CHATTER - 1):
        joined.client.received.clear()
        joined.client.send(bytes(size))
        hand.until(lambda: joined.target.received)
        joined.target.send(bytes(joined.target.received))
        joined.target.received.clear()
        hand.until(lambda n=size: len(joined.client.received) == n)
        assert (hand.pipes._made, hand.switchboard.kept) == (0, 0)


def test_bulk_that_flows_shares_one_pipe(hand: Board) -> None:
    streams = [hand.join() for _ in range(4)]
    pages = [noise(seed, 3 * MIB) for seed in range(4)]
    for joined, page in zip(streams, pages, strict=True):
        joined.target.send(page)
    hand.until(lambda: all(len(joined.client.received) == 3 * MIB for joined in streams))
    assert [bytes(joined.client.received) for joined in streams] == pages
    assert hand.switchboard.kept == 0
    assert hand.pipes._made == len(hand.pipes._idle)


@with_and_without_pipes
def test_however_many_do_not_read_what_they_leave_here_is_bounded(pipes: int) -> None:
    with board(pipes) as hand:
        stalled = [hand.join(BUFFER) for _ in range(12)]
        pages = [noise(seed, 2 * MIB) for seed in range(12)]
        for joined, page in zip(stalled, pages, strict=True):
            joined.client.reading = False
            joined.target.send(page)
        hand.settle()
        assert hand.pipes._made == pipes
        assert hand.switchboard.kept <= 12 * CHATTER
        if not pipes:
            assert hand.switchboard.kept == 0
        beside = hand.join()
        beside.client.send(b"ping")
        hand.until(lambda: beside.target.received == b"ping")
        big = noise(99, 2 * MIB)
        beside.target.send(big)
        hand.until(lambda: len(beside.client.received) == len(big))
        for joined in stalled:
            joined.client.reading = True
        hand.until(lambda: all(len(joined.client.received) == 2 * MIB for joined in stalled))
        assert [bytes(joined.client.received) for joined in stalled] == pages
        assert beside.client.received == big
        assert hand.pipes._made == len(hand.pipes._idle)


@with_and_without_pipes
def test_bulk_leaves_no_more_unsent_than_it_may(pipes: int) -> None:
    """Whoever does not read would have 4 MiB of the kernel's memory else."""

    def far_behind(may: int, monkeypatch: pytest.MonkeyPatch) -> int:
        monkeypatch.setattr("socksd.relay.switchboard.unsent", lambda streams: may)
        with board(pipes) as hand:
            joined = hand.join()
            joined.client.reading = False
            joined.target.send(bytes(16 * MIB))
            hand.settle()
            unread = fcntl.ioctl(joined.client.sock, termios.FIONREAD, bytes(4))
            sock = joined.ends[0].transport.getHandle()
            queued = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
            assert int.from_bytes(unread, sys.byteorder)
            return int.from_bytes(queued, sys.byteorder)

    with pytest.MonkeyPatch.context() as monkeypatch:
        assert far_behind(128 << 10, monkeypatch) < MIB // 2 < far_behind(0, monkeypatch)


def test_the_kernel_is_told_once_what_may_be_unsent(
    hand: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    leave = line_module._Side.leave_unsent

    def noted(side: line_module._Side, most: int) -> None:
        told.append(most)
        leave(side, most)

    monkeypatch.setattr(line_module._Side, "leave_unsent", noted)
    joined = hand.join()
    joined.target.send(bytes(2 * MIB))
    hand.until(lambda: len(joined.client.received) == 2 * MIB)
    assert told == []  # it is one of a few
    monkeypatch.setattr("socksd.relay.switchboard.unsent", lambda streams: MIB)
    joined.target.send(bytes(4 * MIB))
    hand.until(lambda: len(joined.client.received) == 6 * MIB)
    assert told == [MIB]
    sock = joined.ends[0].transport.getHandle()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == MIB


def put_off(hand: Board, then: Callable[[], object]) -> None:
    """Do something whenever something is put off to the end of the turn."""

    class Acting(list[IActing]):
        def append(self, acting: IActing) -> None:
            then()
            super().append(acting)

    hand.switchboard._acting = Acting()


def test_chatter_is_passed_on_when_all_was_heard(hand: Board) -> None:
    """Whoever is woken finds the octets of all, and is not woken for each."""
    one, other = hand.join(), hand.join()
    hand.settle()
    targets = [joined.target.sock for joined in (one, other)]
    for joined in (one, other):
        joined.client.sock.send(b"ping")
    arrived: list[int] = []
    put_off(hand, lambda: arrived.append(len(select(targets, [], [], 0)[0])))
    hand.switchboard.doRead()
    assert arrived == [0, 0]
    assert len(select(targets, [], [], 1)[0]) == 2


def test_chatter_that_is_not_read_is_kept_to_the_size_of_one_read(hand: Board) -> None:
    joined = hand.join(BUFFER)
    joined.client.reading = False
    message = noise(7, 1500)
    sent = 0
    while not hand.switchboard.kept:
        sent += 1
        joined.target.send(message)
        joined.target.turn()
        hand.switchboard.doRead()
    assert hand.switchboard.kept <= CHATTER
    joined.client.reading = True
    hand.until(lambda: len(joined.client.received) == sent * len(message))
    assert joined.client.received == message * sent
    assert hand.switchboard.kept == 0


def test_chatter_may_find_no_room_at_all(hand: Board) -> None:
    """Though epoll has said so: of another socket, which had the number."""
    client, client_far = hand.end(BUFFER)
    target, target_far = hand.end(BUFFER)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += target.transport.getHandle().send(bytes(1000))  # type: ignore[attr-defined]  # Twisted's transport has it, the interface has not
    target_far.reading = False
    joined = Joined(hand, client, client_far, target, target_far)
    hand.joined.append(joined)
    joined.line.join(b"", joined.results.append)
    hand.settle()
    joined.line._target.hear(line_module.EPOLLOUT)
    client_far.send(b"ping")
    hand.until(lambda: hand.switchboard.kept == 4)
    target_far.reading = True
    hand.until(lambda: len(target_far.received) == filled + 4)
    assert target_far.received[filled:] == b"ping"


def test_when_memory_is_crowded_no_more_is_kept(
    hand: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many do not read: octets stay where they are, in the kernel."""
    monkeypatch.setattr(line_module, "_CROWDED", -1)
    stalled = [hand.join(BUFFER) for _ in range(4)]
    message = noise(7, 1000)
    sent = 0
    for joined in stalled:
        joined.client.reading = False
    for _ in range(600):
        sent += 1
        for joined in stalled:
            joined.target.send(message)
            joined.target.turn()
        hand.turn()
        assert hand.switchboard.kept == 0
    for joined in stalled:
        joined.client.reading = True
    hand.until(lambda: all(len(joined.client.received) == sent * 1000 for joined in stalled))
    assert all(joined.client.received == message * sent for joined in stalled)


def test_when_memory_is_crowded_chatter_takes_no_pipe_either(
    hand: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "_CROWDED", -1)
    joined = hand.join()
    for count in range(1, 10):
        joined.client.send(b"ping")
        hand.until(lambda n=count: joined.target.received == b"ping" * n)
    assert hand.pipes._made == 0


def test_what_is_in_a_pipe_leaves_though_nothing_follows(hand: Board) -> None:
    joined = hand.join(BUFFER)
    joined.client.reading = False
    joined.target.send(bytes(4 * MIB))
    hand.settle()
    source = joined.line._target
    waiting, source.readable = source.piped, False  # as if that had been all
    assert waiting
    hand.reactor.advance(100)
    joined.client.reading = True
    joined.client.turn()
    hand.switchboard.doRead()
    assert source.piped < waiting
    assert joined.line.moved == 100


@both_ways
def test_a_pipe_with_octets_in_it_is_not_lent_to_the_next(hand: Board, name: str) -> None:
    joined = hand.join(BUFFER)
    slow, fast = joined.far(name)
    slow.reading = False
    fast.send(bytes(4 * MIB))
    hand.settle()
    assert hand.pipes._made == 1
    joined.line.abort()
    assert hand.pipes._made == 0


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_where_splice_is_forbidden_octets_are_copied(
    hand: Board, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def splice(*_: object, **__: object) -> int:
        raise OSError(number, "")

    monkeypatch.setattr(line_module, "splice", splice)
    joined = hand.join()
    page = noise(3, 4 * MIB)
    joined.target.send(page)
    joined.target.finish()
    hand.until(lambda: joined.client.ended)
    assert joined.client.received == page
    assert hand.pipes._made == 0


def test_without_descriptors_for_pipes_octets_are_copied(
    hand: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipe2(_: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(os, "pipe2", pipe2)
    joined = hand.join()
    page = noise(3, 4 * MIB)
    joined.target.send(page)
    hand.until(lambda: len(joined.client.received) == len(page))
    assert joined.client.received == page


def test_early_octets_leave_as_the_target_takes_them(hand: Board) -> None:
    early = noise(6, MIB)
    joined = hand.join(BUFFER, early)
    joined.target.reading = False
    hand.settle()
    assert 0 < hand.switchboard.kept < MIB
    joined.client.send(b"the rest")
    joined.target.reading = True
    hand.until(lambda: len(joined.target.received) == MIB + 8)
    assert joined.target.received == early + b"the rest"


def test_an_event_may_be_about_nothing(hand: Board) -> None:
    """Of another socket that had the number, or of what was found before it was told."""
    joined = hand.join(BUFFER, early=noise(6, MIB))
    joined.target.reading = False
    hand.settle()
    everything = line_module.READABLE | line_module.EPOLLOUT

    def nothing_happens(times: int) -> int:
        for _ in range(times):
            for side in (joined.line._client, joined.line._target):
                side.hear(everything)
        return hand.switchboard.kept

    waiting = nothing_happens(20)  # to the last octet that the kernel takes
    assert nothing_happens(1) == waiting > 0
    joined.target.reading = True
    hand.until(lambda: len(joined.target.received) == MIB)
    assert nothing_happens(1) == 0
    assert not joined.results


# -- fairness -----------------------------------------------------------------


@with_and_without_pipes
def test_a_stream_moves_one_share_before_it_is_anothers_turn(
    pipes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, share = 4096, 10_000
    monkeypatch.setattr(line_module, "_CHATTER", size)
    monkeypatch.setattr(line_module, "_BUFFER", memoryview(bytearray(size)))
    monkeypatch.setattr(line_module, "SIZE", size)
    monkeypatch.setattr("socksd.relay.switchboard._SHARE", share)
    moved: list[int] = []
    haul = line_module._Side.haul

    def hauled(side: line_module._Side, share: int) -> int:
        moved.append(haul(side, share))
        return moved[-1]

    monkeypatch.setattr(line_module._Side, "haul", hauled)
    with board(pipes) as hand:
        joined = hand.join()
        hand.settle()
        joined.target.send(bytes(MIB))
        hand.until(lambda: len(joined.client.received) == MIB)
    assert share <= max(moved) < share + size


# -- the end, by a reset ------------------------------------------------------


def test_fin_may_find_that_the_other_has_reset_meanwhile(hand: Board) -> None:
    joined = hand.join()
    hand.settle()
    joined.client.sock.shutdown(socket.SHUT_WR)
    put_off(hand, joined.target.reset)
    hand.switchboard.doRead()
    assert joined.ended_by is EndedBy.TARGET


def test_what_came_before_a_reset_is_passed_on(hand: Board) -> None:
    joined = hand.join()
    hand.settle()
    joined.client.send(b"famous last words")
    joined.client.turn()
    joined.client.reset()
    hand.switchboard.doRead()
    assert joined.tally == Tally(17, 0, EndedBy.CLIENT)
    joined.target.turn()
    assert joined.target.received == b"famous last words"
    assert joined.target.error == errno.ECONNRESET


def first_then(hand: Board, *steps: Callable[[], object]) -> None:
    """Let these happen in this order, and be heard in one turn."""
    hand.settle()
    for step in steps:
        step()
    hand.switchboard.doRead()


@both_ways
def test_a_reset_is_passed_on_though_nothing_else_can_be(hand: Board, name: str) -> None:
    """The other does not read, and has said nothing that could not be written now."""
    joined = hand.join(BUFFER)
    gone, other = joined.far(name)
    other.reading = False
    gone.send(bytes(4 * MIB))
    hand.settle()
    gone.reset()
    hand.settle()
    assert joined.ended_by == name
    assert other.error == errno.ECONNRESET


@both_ways
def test_a_reset_after_fin_is_passed_on_though_nobody_writes(hand: Board, name: str) -> None:
    joined = hand.join()
    gone, other = joined.far(name)
    gone.finish()
    hand.until(lambda: other.ended)
    gone.reset()
    hand.until(lambda: other.error)
    assert joined.ended_by == name
    assert other.error in (errno.EPIPE, errno.ECONNRESET)  # EPIPE: it has read FIN before


@both_ways
def test_octets_for_one_who_has_just_broken_off_end_the_relay(hand: Board, name: str) -> None:
    joined = hand.join()
    gone, other = joined.far(name)
    first_then(hand, lambda: other.send(b"hello?"), other.turn, gone.reset)
    assert joined.ended_by == name
    hand.until(lambda: other.left)
    assert other.error == errno.ECONNRESET


@both_ways
def test_fin_for_one_who_has_just_broken_off_ends_the_relay(hand: Board, name: str) -> None:
    joined = hand.join()
    gone, other = joined.far(name)
    first_then(hand, other.finish, other.turn, gone.reset)
    assert joined.ended_by == name


def when_bulk_is_about_to_move(hand: Board, action: Callable[[], object]) -> None:
    haul = hand.switchboard.haul

    def first_this(hauling: line_module._Side) -> None:
        action()
        haul(hauling)

    hand.switchboard.haul = first_this  # type: ignore[method-assign, assignment]  # to do it before


@with_and_without_pipes
@pytest.mark.parametrize("breaks", ["source", "sink"])
def test_a_reset_in_the_midst_of_bulk_is_found(pipes: int, breaks: str) -> None:
    with board(pipes) as hand:
        joined = hand.join()
        gone, name = (joined.target, "target") if breaks == "source" else (joined.client, "client")
        when_bulk_is_about_to_move(hand, lambda: gone.closed or gone.reset())
        joined.target.send(bytes(MIB))
        hand.until(lambda: joined.results)
        assert joined.ended_by == name
        assert hand.pipes._made == len(hand.pipes._idle)


@with_and_without_pipes
def test_a_fin_in_the_midst_of_bulk_is_passed_on(pipes: int) -> None:
    with board(pipes) as hand:
        joined = hand.join()
        page = noise(5, MIB)
        joined.target.send(page)
        joined.target.finish()
        hand.until(lambda: joined.client.ended)
        assert joined.client.received == page
        assert joined.line.down == MIB


@pytest.mark.parametrize("breaks", [False, True])
def test_copied_bulk_may_end_where_the_buffer_does(
    without_pipes: Board, breaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not show that this was all: the next look does."""
    monkeypatch.setattr(line_module, "_BUFFER", memoryview(bytearray(1000)))
    monkeypatch.setattr(line_module, "_CHATTER", 1000)
    joined = without_pipes.join()
    if breaks:
        when_bulk_is_about_to_move(
            without_pipes, lambda: joined.target.closed or joined.target.reset()
        )
    without_pipes.settle()
    joined.target.send(bytes(5000))
    without_pipes.until(lambda: len(joined.client.received) == 5000)
    without_pipes.settle()
    assert [tally.ended_by for tally in joined.results] == ["target"] * breaks


@both_ways
def test_a_reset_reaches_what_waits_in_a_pipe(hand: Board, name: str) -> None:
    """The one it waits for has broken off: the pipe is given back with it."""
    joined = hand.join(BUFFER)
    slow, fast = joined.far(name)
    slow.reading = False
    fast.send(bytes(4 * MIB))
    hand.settle()
    slow.reset()
    hand.until(lambda: joined.results)
    assert joined.ended_by == name
    assert hand.pipes._made == 0


def test_what_is_kept_for_one_who_has_broken_off_unheard_ends_the_relay(hand: Board) -> None:
    """Room to write is what epoll tells of a reset as well: the write tells the rest."""
    joined = hand.join(BUFFER, early=bytes(MIB))
    joined.target.reading = False
    hand.settle()
    joined.target.reset()
    joined.line._target.hear(line_module.EPOLLOUT)
    assert joined.ended_by is EndedBy.TARGET


@pytest.mark.parametrize("octets", [pytest.param(0, id="chatter"), pytest.param(MIB, id="bulk")])
def test_a_bug_ends_one_line_and_no_other(
    hand: Board, octets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = hand.join(), hand.join()
    hand.settle()
    read_ended = line_module.Line.read_ended

    def buggy(line: line_module.Line) -> None:
        if line is bad.line:
            raise ZeroDivisionError
        read_ended(line)

    monkeypatch.setattr(line_module.Line, "read_ended", buggy)
    bad.client.send(bytes(octets))
    bad.client.finish()
    hand.until(lambda: bad.results)
    assert bad.results[0].check(ZeroDivisionError)
    hand.until(lambda: bad.client.left and bad.target.left)
    good.client.send(b"still here")
    hand.until(lambda: good.target.received == b"still here")


# -- deadlines ----------------------------------------------------------------


def test_one_delayed_call_however_many_lines_and_octets(hand: Board) -> None:
    lines = [hand.join() for _ in range(5)]
    for joined in lines:
        joined.client.send(b"hello")
    hand.settle()
    assert len(hand.reactor.getDelayedCalls()) == 1


def test_a_slow_reader_keeps_a_line_alive(hand: Board) -> None:
    joined = hand.join(BUFFER)
    joined.client.reading = False
    joined.target.send(noise(1, 8 * MIB))
    hand.settle()
    for before, after in pairwise([0.0, 800.0, 1600.0, 2400.0]):
        hand.reactor.advance(after - before)
        joined.client.reading = True
        joined.client.turn()
        joined.client.reading = False
        hand.switchboard.doRead()
    assert not joined.results
    hand.reactor.advance(IDLE)
    assert joined.ended_by is EndedBy.IDLE


@both_ways
def test_whoever_was_sent_fin_is_closed_in_order_at_the_linger_deadline(
    hand: Board, name: str
) -> None:
    joined = hand.join()
    first, second = joined.far(name)
    first.finish()
    hand.until(lambda: second.ended)
    hand.reactor.advance(LINGER)
    assert joined.ended_by is EndedBy.LINGER
    hand.until(lambda: first.left)
    assert first.error == errno.ECONNRESET
    assert second.error == 0


def test_a_reset_does_not_take_from_the_other_what_it_was_sent(hand: Board) -> None:
    """Both have ended: what is in the kernel is complete, and FIN behind it."""
    joined = hand.join(BUFFER)
    joined.client.reading = False
    page = noise(2, BUFFER // 4)
    joined.target.send(page)
    joined.target.finish()
    hand.settle()
    slow = hand.join(BUFFER)
    slow.client.close()
    joined.client.finish()
    hand.until(lambda: joined.results)
    assert joined.ended_by is EndedBy.BOTH
    joined.client.reading = True
    hand.until(lambda: joined.client.ended)
    assert joined.client.received == page


# -- anything, in any order ----------------------------------------------------

LINES = range(3)
SIDES = st.sampled_from(["client", "target"])
STEPS = st.one_of(
    st.tuples(st.just("send"), SIDES, st.sampled_from([1, 1000, CHATTER, 70_000, 400_000])),
    st.tuples(st.just("stall"), SIDES, st.just(0)),
    st.tuples(st.just("turn"), SIDES, st.integers(1, 6)),
    st.tuples(st.just("fin"), SIDES, st.just(0)),
    st.tuples(st.just("reset"), SIDES, st.just(0)),
    st.tuples(st.just("abort"), SIDES, st.just(0)),
)
SCHEDULES = st.lists(st.tuples(st.sampled_from(LINES), STEPS), max_size=40)


class Model:
    """What the far sides of one line have done, and so must see."""

    def __init__(self, joined: Joined, seed: int) -> None:
        self.joined = joined
        self.noise = random.Random(seed)
        self.sent = {"client": b"", "target": b""}
        self.finished: set[str] = set()
        self.broken = False

    def do(self, action: str, name: str, count: int) -> None:
        far, _ = self.joined.far(name)
        match action:
            case _ if self.broken:
                return
            case "send" if name not in self.finished:
                octets = self.noise.randbytes(count)
                self.sent[name] += octets
                far.send(octets)
            case "stall":
                far.reading = not far.reading
            case "fin":
                self.finished.add(name)
                far.finish()
            case "reset":
                self.broken = True
                far.reset()
            case "abort":
                self.broken = True
                self.joined.line.abort()
            case "turn":
                for _ in range(count):
                    self.joined.board.turn()

    def end(self) -> None:
        for far in (self.joined.client, self.joined.target):
            far.reading = True
            if not self.broken:
                far.finish()

    def check(self) -> None:
        joined, tally = self.joined, self.joined.tally
        seen = {"client": bytes(joined.target.received), "target": bytes(joined.client.received)}
        if self.broken:
            for name, octets in seen.items():
                assert self.sent[name].startswith(octets)
            assert len(seen["client"]) <= tally.up <= len(self.sent["client"])
            assert len(seen["target"]) <= tally.down <= len(self.sent["target"])
        else:
            assert seen == self.sent
            assert tally == Tally(len(self.sent["client"]), len(self.sent["target"]), EndedBy.BOTH)


@settings(max_examples=40)
@given(SCHEDULES, st.integers(0, 2), st.booleans())
def test_any_schedule_ends_as_the_model_says(
    schedule: list[tuple[int, tuple[str, str, int]]], pipes: int, small: bool
) -> None:
    """Three lines that share a switchboard, and at most two pipes."""
    with board(pipes) as hand:
        models = [Model(hand.join(BUFFER if small else None), number) for number in LINES]
        for number, step in schedule:
            models[number].do(*step)
        for model in models:
            model.end()
        hand.until(lambda: all(model.broken or model.joined.results for model in models))
        hand.settle()
        hand.reactor.advance(IDLE)  # for a reset that nobody was there to hear
        for model in models:
            model.check()


def test_unix_sockets_are_carried_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """MSG_TRUNC drops nothing there, but what it reads was sent; and no option of TCP is known."""
    monkeypatch.setattr("socksd.relay.switchboard.unsent", lambda streams: MIB)
    with board(pipes=0) as hand:
        joined = hand.join(connect=socket.socketpair)
        page = noise(4, 2 * MIB)
        joined.target.send(page)
        joined.target.finish()
        hand.until(lambda: joined.client.ended)
        assert joined.client.received == page


def test_who_has_ended_in_a_walk_over_all_is_looked_at_without_harm(hand: Board) -> None:
    """By the end of another, say, whose session takes it along."""
    one, other = hand.join(), hand.join()

    def taking_along(each: Joined, another: Joined) -> Ended:
        return lambda tally: (each.results.append(tally), another.line.abort())

    one.line._ended, other.line._ended = taking_along(one, other), taking_along(other, one)
    hand.reactor.advance(IDLE)
    assert sorted([one.ended_by, other.ended_by]) == [EndedBy.IDLE, EndedBy.US]


def test_what_it_has_carried_is_known_in_the_end(hand: Board) -> None:
    joined = hand.join(early=b"early")
    joined.target.send(b"answer")
    hand.settle()
    joined.client.close()
    joined.target.close()
    hand.settle()
    assert (joined.line.up, joined.line.down) == (5, 6) == (joined.tally.up, joined.tally.down)


def test_a_tunnel_that_has_ended_leaves_nothing_for_the_collector(hand: Board) -> None:
    """A full collection over 10,000 live ones would be a pause of 0.1 s."""
    joined = hand.join(early=b"early")
    joined.target.send(b"answer")
    hand.settle()
    joined.client.close()
    joined.target.close()
    hand.settle()
    hand.joined.clear()

    class Idle(float):
        """What nothing else than the line has."""

    joined.line._idle = Idle()
    idle = weakref.ref(joined.line._idle)
    gc.collect()
    gc.disable()
    try:
        del joined
        assert idle() is None
    finally:
        gc.enable()

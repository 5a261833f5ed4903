"""
An end that is only a socket: what it does without a transport, and when it has one made.

On a real switchboard, which the test turns by hand.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from select import EPOLLIN, EPOLLOUT
from struct import pack
from typing import Any

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksd.address import parsed
from socksd.interfaces import IBareEnd, IWatched
from socksd.relay.line import Line, ThrottledLine
from socksd.relay.switchboard import Switchboard
from socksd.relay.throttle import Budget
from socksd.server.bare import BareEnd
from tests.relay.hand import HandReactor, pair
from tests.server.test_ends import Carrier

RESET = pack("ii", 1, 0)


class Relay(Carrier):
    """Takes a socket over."""

    heard = 0

    def hear(self, events: int) -> None:
        self.heard |= events

    def fail(self, failure: Failure) -> None:
        raise NotImplementedError


class Scene:
    """A bare end, who carries it, and the far side."""

    def __init__(self, buffer: int | None = None) -> None:
        self.reactor = HandReactor()
        self.board = Switchboard(self.reactor)
        self.board.start()
        near, self.far = pair(buffer)
        near.setblocking(False)
        self.near = socket.SocketType(near.family, near.type, 0, near.detach())
        self.near.setblocking(False)
        self.name = self.near.getpeername()
        self.end = BareEnd(self.board, self.near, self.name)
        self.carrier = Carrier()
        self.end.carried_by(self.carrier)

    def settle(self) -> None:
        for _ in range(20):
            self.board.doRead()
            self.reactor.turn()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    close(made)


def close(scene: Scene) -> None:
    scene.far.close()
    scene.end.abort()
    scene.reactor.advance(0)
    scene.settle()
    assert not scene.board._watched
    scene.board.stop()
    scene.reactor.turn()
    assert not scene.reactor.getDelayedCalls()


def test_it_is_an_end_without_a_transport(scene: Scene) -> None:
    assert scene.end.bare
    assert verifyObject(IWatched, scene.end)
    assert scene.end.bare
    assert verifyObject(IBareEnd, scene.end)  # which looks at its transport
    assert not scene.end.bare


def test_it_reads_and_sends_without_one(scene: Scene) -> None:
    scene.far.send(b"greeting")
    scene.settle()
    scene.far.send(b"request")
    scene.settle()
    scene.end.send(b"reply")
    assert scene.carrier.told == [b"greeting", b"request"]
    scene.settle()
    assert scene.far.recv(9) == b"reply"
    assert scene.end.bare


def test_what_it_sends_leaves_at_the_end_of_the_turn(scene: Scene) -> None:
    scene.far.setblocking(False)
    scene.end.send(b"two, ")
    scene.end.send(b"together")
    with pytest.raises(BlockingIOError):
        scene.far.recv(99)
    scene.board.doRead()
    assert scene.far.recv(99) == b"two, together"


def test_a_transport_that_is_made_before_the_end_of_the_turn_sends_it_first(scene: Scene) -> None:
    scene.end.send(b"one, ")
    scene.end.transport.write(b"two")
    scene.settle()
    assert scene.far.recv(99) == b"one, two"


def test_where_nothing_turns_any_more_it_is_sent_at_once() -> None:
    scene = Scene()
    scene.board.stop()
    scene.end.send(b"the last")
    with scene.far:
        assert scene.far.recv(9) == b"the last"
    scene.near.close()


def test_it_knows_both_sides_with_and_without_one(scene: Scene) -> None:
    for _ in range(2):
        assert scene.end.far() == (parsed("127.0.0.1"), scene.far.getsockname()[1])
        assert scene.end.near() == (parsed("127.0.0.1"), scene.far.getpeername()[1])
        assert scene.end.fileno() == scene.near.fileno()
        assert scene.end.transport.getPeer().port == scene.name[1]


def test_of_ipv6_too() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no ::1 here")
    scene = Scene()
    with listener, socket.create_connection(listener.getsockname()[:2]) as far:
        sock, name = listener.accept()
        sock.setblocking(False)
        end = BareEnd(scene.board, sock, name)
        assert end.far() == (parsed("::1"), far.getsockname()[1])
        assert end.near() == (parsed("::1"), listener.getsockname()[1])
        assert end.transport.getPeer().host == "::1"
        end.lose(connectionDone)
    close(scene)


def test_more_than_one_read_takes_comes_in_the_next_turns(scene: Scene) -> None:
    scene.far.send(bytes(10_000))
    scene.board.doRead()
    assert [len(octets) for octets in scene.carrier.told] == [4096]  # type: ignore[arg-type]  # bytes
    scene.settle()
    assert [len(octets) for octets in scene.carrier.told] == [4096, 4096, 1808]  # type: ignore[arg-type]  # bytes


def test_a_full_read_may_have_been_all(scene: Scene) -> None:
    scene.far.send(bytes(4096))
    scene.settle()
    scene.far.send(b"more")
    scene.settle()
    assert scene.carrier.told == [bytes(4096), b"more"]


def test_fin_behind_octets_is_told_once(scene: Scene) -> None:
    scene.far.send(b"last")
    scene.far.shutdown(socket.SHUT_WR)
    scene.settle()
    scene.end.hear(EPOLLOUT)
    assert scene.carrier.told == [b"last", "FIN"]
    scene.end.send(b"answer")
    scene.settle()
    assert scene.far.recv(9) == b"answer"


def test_a_transport_made_behind_fin_does_not_find_it_again(scene: Scene) -> None:
    scene.far.shutdown(socket.SHUT_WR)
    scene.settle()
    scene.end.transport.write(b"answer")
    scene.settle()
    assert scene.carrier.told == ["FIN"]
    assert scene.far.recv(9) == b"answer"
    scene.end.finish_writing()
    scene.settle()
    assert scene.far.recv(9) == b""


def test_a_reset_is_told(scene: Scene) -> None:
    scene.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    scene.far.close()
    scene.settle()
    assert scene.carrier.told == [ConnectionLost]


def test_paused_it_reads_on_when_it_is_resumed(scene: Scene) -> None:
    scene.end.transport.pauseProducing()
    scene.far.send(b"x")
    scene.settle()
    assert not scene.carrier.told
    scene.end.transport.resumeProducing()
    scene.settle()
    assert scene.carrier.told == [b"x"]


def test_paused_in_the_middle_the_rest_comes_when_it_is_resumed(scene: Scene) -> None:
    """What the end was to hear soon, the transport does."""
    scene.carrier._then = lambda: scene.end.transport.pauseProducing()
    scene.far.send(bytes(5000))
    scene.settle()
    assert scene.carrier.told == [bytes(4096)]
    scene.end.transport.resumeProducing()
    scene.settle()
    assert scene.carrier.told == [bytes(4096), bytes(904)]


def test_what_arrives_before_somebody_carries_it_is_kept(scene: Scene) -> None:
    sock, far = pair()
    sock.setblocking(False)
    end, carrier = BareEnd(scene.board, sock, sock.getpeername()), Carrier()
    far.send(b"early")
    scene.settle()
    end.carried_by(carrier)
    assert carrier.told == [b"early"]
    far.close()
    scene.settle()
    assert carrier.told == [b"early", "FIN"]
    end.lose(connectionDone)


def test_what_is_known_of_a_socket_is_not_told_again(scene: Scene) -> None:
    """A target may speak first, in the segment by which we learn that it is there."""
    sock, far = pair()
    with far:
        sock.setblocking(False)
        far.send(b"banner")
        first = Relay()
        scene.board.watch(sock.fileno(), first)
        scene.settle()
        carrier = Carrier()
        end = BareEnd(scene.board, sock, sock.getpeername(), first.heard)
        end.carried_by(carrier)
        scene.settle()
        assert carrier.told == [b"banner"]
        end.lose(connectionDone)


def test_what_is_known_need_not_be_more_than_that_it_is_there(scene: Scene) -> None:
    sock, far = pair()
    with far:
        sock.setblocking(False)
        first = Relay()
        scene.board.watch(sock.fileno(), first)
        scene.settle()
        assert first.heard == EPOLLOUT
        end, carrier = BareEnd(scene.board, sock, sock.getpeername(), first.heard), Carrier()
        end.carried_by(carrier)
        assert not scene.board._soon
        far.send(b"x")
        scene.settle()
        assert carrier.told == [b"x"]
        end.lose(connectionDone)


def test_a_turn_for_nothing_is_harmless(scene: Scene) -> None:
    scene.settle()
    scene.end.hear(EPOLLIN)
    assert not scene.carrier.told
    assert scene.end.bare


def test_what_the_kernel_does_not_take_is_sent_by_a_transport() -> None:
    scene = Scene(1 << 12)
    octets = bytes(range(250)) * 2000
    scene.end.send(octets)
    scene.board.doRead()
    scene.end.send(b"behind it")
    assert not scene.end.bare
    received = b""
    scene.far.setblocking(False)
    for _ in range(5000):
        scene.settle()
        try:
            received += scene.far.recv(1 << 16)
        except BlockingIOError:
            continue
        if received.endswith(b"behind it"):
            break
    assert received == octets + b"behind it"
    close(scene)


def test_what_finds_no_room_at_all_is_sent_by_a_transport() -> None:
    scene = Scene(1 << 12)
    full = 0
    with suppress(BlockingIOError):
        while True:
            full += scene.near.send(bytes(1 << 16))
    scene.end.send(b"behind it")
    scene.board.doRead()
    assert not scene.end.bare
    received = b""
    scene.far.setblocking(False)
    for _ in range(5000):
        scene.settle()
        with suppress(BlockingIOError):
            received += scene.far.recv(1 << 16)
        if len(received) > full:
            break
    assert received == bytes(full) + b"behind it"
    close(scene)


def test_it_cannot_send_to_who_has_left(scene: Scene) -> None:
    scene.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    scene.far.close()
    scene.end.send(b"x")
    scene.settle()
    assert scene.carrier.told[-1] is ConnectionLost


def test_aborted_it_resets_once(scene: Scene) -> None:
    scene.end.abort()
    scene.reactor.advance(0)
    scene.end.abort()
    assert scene.carrier.told == [ConnectionAborted]
    with pytest.raises(ConnectionResetError):
        scene.far.recv(1)


@pytest.mark.parametrize("told", [True, False], ids=["carried", "with its transport"])
def test_a_bug_of_the_carrier_ends_the_connection_and_is_logged(
    scene: Scene, told: bool, logged_errors: list[dict[str, Any]]
) -> None:
    if not told:
        scene.end.transport.resumeProducing()
    scene.carrier._then = lambda: 1 / 0
    scene.far.send(b"x")
    scene.settle()
    assert scene.carrier.told == [b"x", ZeroDivisionError]
    (event,) = logged_errors
    assert event["failure"].check(ZeroDivisionError)
    logged_errors.clear()
    scene.end.fail(Failure(ZeroDivisionError()))
    logged_errors.clear()
    assert scene.carrier.told == [b"x", ZeroDivisionError]


# -- a relay -----------------------------------------------------------------


def taken(scene: Scene) -> Relay:
    relay = Relay()
    scene.settle()
    assert scene.end.taken_over(relay) == (scene.near, EPOLLOUT, b"")
    return relay


def test_who_takes_over_sends_what_is_to_be_sent(scene: Scene) -> None:
    scene.settle()
    scene.end.send(b"reply")
    assert scene.end.taken_over(Relay()) == (scene.near, EPOLLOUT, b"reply")
    scene.end.act()
    scene.far.setblocking(False)
    with pytest.raises(BlockingIOError):
        scene.far.recv(9)


def test_who_takes_over_hears_the_rest(scene: Scene) -> None:
    relay = taken(scene)
    scene.far.send(b"x")
    scene.settle()
    assert relay.heard & EPOLLIN
    assert not scene.carrier.told
    scene.end.hear(EPOLLIN)  # as it may have been promised
    assert scene.near.recv(9) == b"x"


@pytest.mark.parametrize("throttled", [False, True])
def test_a_reply_leaves_before_what_the_target_says(scene: Scene, throttled: bool) -> None:
    """Who sends its banner with the segment by which it is there."""
    near, far = pair()
    near.setblocking(False)
    far.send(b"banner")
    first = Relay()
    scene.board.watch(near.fileno(), first)
    scene.settle()
    target = BareEnd(scene.board, near, near.getpeername(), first.heard)
    scene.end.send(b"reply, ")
    results: list[object] = []
    if throttled:
        budget = Budget(1 << 20, scene.reactor)
        line: Line = ThrottledLine(scene.board, scene.end, target, 900.0, 300.0, budget)
    else:
        line = Line(scene.board, scene.end, target, 900.0, 300.0)
    line.join(b"", results.append)
    scene.settle()
    assert scene.far.recv(99) == b"reply, banner"
    assert line.down == 6
    scene.far.close()
    far.close()
    scene.settle()
    assert results


@pytest.mark.parametrize(
    ("reason", "gone"), [(ConnectionDone(), False), (ConnectionAborted(), True)]
)
def test_who_has_taken_over_closes(scene: Scene, reason: Exception, gone: bool) -> None:
    relay = taken(scene)
    scene.end.hang_up(Failure(reason))
    scene.board.doRead()
    assert scene.near.fileno() == -1
    assert not relay.told, "it knows"
    if gone:
        with pytest.raises(ConnectionResetError):
            scene.far.recv(1)
    else:
        assert scene.far.recv(1) == b""
    later = Carrier()
    scene.end.carried_by(later)
    assert later.told == [type(reason)]
    scene.end.abort()
    with pytest.raises(RuntimeError, match="gone"):
        scene.end.transport  # noqa: B018 -- a property


def test_it_may_be_reset_when_it_is_to_be_aborted(scene: Scene) -> None:
    scene.far.close()
    scene.near.shutdown(socket.SHUT_WR)
    scene.settle()
    scene.end.taken_over(Relay())
    scene.end.hang_up(Failure(ConnectionAborted()))
    scene.board.doRead()
    assert scene.near.fileno() == -1


def test_a_relay_loses_the_socket_to_who_aborts(scene: Scene) -> None:
    """As a session does whose relay has met a bug."""
    relay = taken(scene)
    scene.end.abort()
    scene.reactor.advance(0)
    assert relay.told == [ConnectionAborted]

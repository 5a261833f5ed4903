"""
A transport on a switchboard.

The sockets are real, and turned by hand.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from select import EPOLLIN, EPOLLOUT
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksd.interfaces import IEndTransport, IWatched
from socksd.relay.switchboard import Switchboard
from socksd.relay.switched import Switched
from tests.relay.hand import HandReactor, pair


class Told(Protocol):
    """Remembers what it is told, and does something then."""

    def __init__(self) -> None:
        self.received = b""
        self.reads = 0
        self.lost: list[Failure] = []
        self.then: Any = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.reads += 1
        self.then()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason)


@implementer(IHalfCloseableProtocol)
class HalfClosing(Told):
    """One that wants to know of FIN."""

    read_ended = 0

    def readConnectionLost(self) -> None:
        self.read_ended += 1

    def writeConnectionLost(self) -> None:
        pass


class Scene:
    """A transport, its protocol, and the far side."""

    def __init__(self, protocol: Told, buffer: int | None = None) -> None:
        self.reactor = HandReactor()
        self.board = Switchboard(self.reactor)
        self.board.start()
        near, self.far = pair(buffer)
        self.protocol = protocol
        near.setblocking(False)
        self.transport = self.board.transport(near, protocol, near.getpeername())
        protocol.makeConnection(self.transport)

    def turn(self) -> None:
        self.board.doRead()
        self.reactor.turn()

    def settle(self) -> None:
        for _ in range(50):
            self.turn()


@pytest.fixture(params=[Told, HalfClosing])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    made = Scene(request.param())
    yield made
    close(made)


def close(scene: Scene) -> None:
    scene.far.close()
    scene.transport.connectionLost(connectionDone)
    scene.board.stop()
    assert not scene.board._watched
    scene.reactor.turn()
    assert not scene.reactor.getDelayedCalls()


def test_it_is_what_an_end_needs(scene: Scene) -> None:
    assert verifyObject(IEndTransport, scene.transport)
    assert verifyObject(IWatched, scene.transport)
    assert scene.transport.logPrefix() == "Switched"


def test_the_reactor_knows_nothing_of_it(scene: Scene) -> None:
    scene.transport.write(b"x")
    scene.far.send(b"y")
    scene.settle()
    assert scene.reactor.readers == {scene.board}
    assert not scene.reactor.writers
    assert (scene.protocol.received, scene.far.recv(9)) == (b"y", b"x")


def test_it_knows_both_sides(scene: Scene) -> None:
    peer, host = scene.transport.getPeer(), scene.transport.getHost()
    assert peer == IPv4Address("TCP", *scene.far.getsockname())
    assert host == IPv4Address("TCP", *scene.far.getpeername())


def test_of_ipv6_too(scene: Scene) -> None:
    near, far = socket.socketpair()
    with near, far:
        transport = Switched(scene.board, near, Told(), ("::1", 80, 0, 0))
        assert transport.getPeer() == IPv6Address("TCP", "::1", 80)
        given = IPv6Address("TCP", "::2", 80)
        scene.board.forget(near.fileno())
        assert Switched(scene.board, near, Told(), given).getPeer() is given
        scene.board.forget(near.fileno())


def test_what_arrives_while_it_is_paused_arrives_when_it_is_not(scene: Scene) -> None:
    scene.transport.pauseProducing()
    scene.far.send(b"x")
    scene.settle()
    assert scene.protocol.received == b""
    scene.transport.resumeProducing()
    scene.transport.resumeProducing()
    scene.settle()
    assert scene.protocol.received == b"x"


def test_resumed_with_nothing_there_it_waits(scene: Scene) -> None:
    scene.settle()
    scene.transport.pauseProducing()
    scene.transport.resumeProducing()
    scene.settle()
    assert scene.protocol.reads == 0
    scene.far.send(b"x")
    scene.settle()
    assert scene.protocol.received == b"x"


def test_a_turn_is_one_read_and_the_next_the_rest(scene: Scene) -> None:
    """However much has come: others have their turn between."""
    scene.transport.bufferSize = 10
    scene.far.send(bytes(25))
    scene.board.doRead()
    assert len(scene.protocol.received) == 10
    scene.board.doRead()
    assert len(scene.protocol.received) == 20
    scene.settle()
    assert scene.protocol.reads == 3


def test_a_full_read_may_have_been_the_last(scene: Scene) -> None:
    scene.transport.bufferSize = 10
    scene.far.send(bytes(10))
    scene.settle()
    scene.far.send(b"more")
    scene.settle()
    assert scene.protocol.received == bytes(10) + b"more"


def test_to_pause_and_resume_while_reading_does_not_make_it_read_more_often(scene: Scene) -> None:
    """As a relay does that has a slow reader: a queue of turns would grow with each."""

    def pause_and_resume() -> None:
        scene.transport.pauseProducing()
        scene.transport.resumeProducing()

    scene.transport.bufferSize = 1
    scene.protocol.then = pause_and_resume
    scene.far.send(bytes(30))
    for turn in range(1, 31):
        scene.board.doRead()
        assert scene.protocol.reads == turn


def test_fin_behind_octets_is_found(scene: Scene) -> None:
    scene.far.send(b"last")
    scene.far.shutdown(socket.SHUT_WR)
    scene.settle()
    assert scene.protocol.received == b"last"
    if isinstance(scene.protocol, HalfClosing):
        assert scene.protocol.read_ended == 1
        assert not scene.protocol.lost
        scene.transport.write(b"answer")
        scene.settle()
        assert scene.far.recv(10) == b"answer"
    else:
        assert scene.protocol.lost[0].check(ConnectionDone)


def test_a_reset_is_a_loss(scene: Scene) -> None:
    scene.settle()
    scene.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    scene.far.close()
    scene.settle()
    (reason,) = scene.protocol.lost
    assert reason.check(ConnectionLost)


def test_a_bug_of_the_protocol_ends_the_connection_and_is_logged(
    scene: Scene, logged_errors: list[dict[str, Any]]
) -> None:
    scene.protocol.then = lambda: 1 / 0
    scene.far.send(b"x")
    scene.settle()
    (reason,) = scene.protocol.lost
    assert reason.check(ZeroDivisionError)
    (event,) = logged_errors
    assert event["failure"].check(ZeroDivisionError)
    logged_errors.clear()


def test_what_is_closed_is_sent_first() -> None:
    """However slowly it is read, and the room to write comes back in between."""
    scene = Scene(Told(), buffer=1 << 12)
    scene.transport.write(bytes(300_000))
    scene.transport.loseConnection()
    received = b""
    scene.far.setblocking(False)
    for _ in range(2000):
        scene.turn()
        try:
            octets = scene.far.recv(1 << 16)
        except BlockingIOError:
            continue
        if not octets:
            break
        received += octets
    assert received == bytes(300_000)
    assert scene.protocol.lost[0].check(ConnectionDone)
    close(scene)


def test_more_than_is_sent_at_once_is_sent_in_the_next_turns() -> None:
    scene = Scene(Told())
    scene.transport.SEND_LIMIT = 10
    scene.transport.write(bytes(35))
    scene.board.doRead()
    scene.board.doRead()
    scene.far.setblocking(False)
    assert len(scene.far.recv(99)) < 35
    scene.settle()
    assert 0 < len(scene.far.recv(99)) < 35
    close(scene)


def test_it_cannot_write_to_who_has_left(scene: Scene) -> None:
    scene.transport.pauseProducing()
    scene.settle()
    scene.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    scene.far.close()
    scene.transport.write(b"x")
    scene.settle()
    (reason,) = scene.protocol.lost
    assert reason.check(ConnectionLost)


def test_what_has_arrived_comes_before_that_nobody_listens(scene: Scene) -> None:
    """Who has sent all and closed resets when it is answered, as TLS does while it reads."""
    scene.transport.bufferSize = 10
    scene.protocol.then = lambda: scene.transport.write(b"x")
    scene.far.send(bytes(95))
    scene.far.close()
    scene.settle()
    assert scene.protocol.received == bytes(95)
    (reason,) = scene.protocol.lost
    assert reason.check(ConnectionLost)


def test_half_closed_it_reads_on(scene: Scene) -> None:
    scene.transport.write(b"all")
    scene.transport.loseWriteConnection()
    scene.settle()
    assert (scene.far.recv(9), scene.far.recv(9)) == (b"all", b"")
    scene.far.send(b"x")
    scene.settle()
    assert scene.protocol.received == b"x"


def test_aborted_it_resets(scene: Scene) -> None:
    scene.transport.abortConnection()
    scene.settle()
    assert [reason.type for reason in scene.protocol.lost] == [ConnectionAborted]
    with pytest.raises(ConnectionResetError):
        scene.far.recv(1)


def test_lost_in_order_it_does_not(scene: Scene) -> None:
    scene.transport.connectionLost(connectionDone)
    scene.transport.connectionLost(connectionDone)
    assert len(scene.protocol.lost) == 1
    assert scene.far.recv(1) == b""


def test_its_producer_hears_of_the_end(scene: Scene) -> None:
    stopped: list[bool] = []

    @implementer(IPushProducer)
    class Producer:
        def stopProducing(self) -> None:
            stopped.append(True)

        def pauseProducing(self) -> None:
            raise NotImplementedError

        def resumeProducing(self) -> None:
            raise NotImplementedError

    scene.transport.registerProducer(Producer(), True)
    scene.transport.connectionLost(connectionDone)
    assert stopped == [True]


def test_who_takes_over_learns_what_is_true_and_hears_the_rest(scene: Scene) -> None:
    class Next:
        heard = 0

        def hear(self, events: int) -> None:
            self.heard = events

        def fail(self, failure: Failure) -> None:
            raise NotImplementedError

    scene.settle()
    later = Next()
    assert scene.transport.taken_over(later) == EPOLLOUT
    scene.transport.stopReading()
    scene.far.send(b"x")
    scene.settle()
    assert later.heard & EPOLLIN
    assert scene.protocol.received == b""


def test_a_turn_for_nothing_is_harmless(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was told once, all may have been read already."""
    scene.settle()
    scene.transport.hear(EPOLLIN)
    assert not scene.protocol.reads
    assert scene.transport.true == EPOLLOUT


def test_it_may_be_reset_when_it_is_to_be_aborted(scene: Scene) -> None:
    class Gone(socket.socket):
        def setsockopt(self, *_: Any) -> None:
            raise OSError(errno.EINVAL, "not connected")

    sock = scene.transport.socket
    scene.transport.socket = Gone(fileno=sock.detach())
    scene.transport.connectionLost(Failure(ConnectionAborted()))
    assert len(scene.protocol.lost) == 1

"""A listening port on a switchboard that the test turns by hand."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port
from zope.interface.verify import verifyObject

from socksd.interfaces import IWatched, SocketName
from socksd.relay.accepting import Accepting
from socksd.relay.switchboard import Switchboard
from tests.relay.hand import HandReactor


class Scene:
    """A port, and who has come to it."""

    def __init__(self) -> None:
        self.reactor = HandReactor()
        self.board = Switchboard(self.reactor)
        self.factory = Factory.forProtocol(Protocol)
        self.factory.noisy = False
        self.port = Port(0, self.factory, 50, "127.0.0.1", self.reactor)
        self.port.startListening()
        self.accepted: list[tuple[socket.SocketType, SocketName]] = []
        self.clients: list[socket.socket] = []
        self.started = False

    def start(self) -> None:
        self.board.start()
        self.started = True

    def accept(self, sock: socket.SocketType, name: SocketName) -> None:
        self.accepted.append((sock, name))

    def connect(self) -> socket.socket:
        self.clients.append(socket.create_connection(self.port.socket.getsockname()))
        return self.clients[-1]

    def turn(self) -> None:
        self.board.doRead()
        self.reactor.turn()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.port.stopListening()
    made.reactor.advance(0)
    if made.started:
        made.board.stop()
    for sock, _ in made.accepted:
        sock.close()
    for client in made.clients:
        client.close()
    assert not made.reactor.readers
    assert not made.reactor.getDelayedCalls()


@pytest.fixture
def listening(scene: Scene) -> Scene:
    scene.start()
    scene.board.listen(scene.port, scene.accept)
    return scene


def test_it_is_watched(scene: Scene) -> None:
    assert verifyObject(IWatched, Accepting(scene.board, scene.port, scene.accept))


def test_all_who_come_are_accepted_and_nobody_waits_for_them(listening: Scene) -> None:
    clients = [listening.connect() for _ in range(3)]
    listening.turn()
    assert [name for _, name in listening.accepted] == [each.getsockname() for each in clients]
    for sock, _ in listening.accepted:
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        assert sock.family == socket.AF_INET
    assert listening.reactor.readers == {listening.board}


def test_before_the_start_all_who_come_wait(scene: Scene) -> None:
    """In the kernel's queue: the process may have to fork first."""
    scene.board.listen(scene.port, scene.accept)
    assert not scene.reactor.readers
    scene.connect()
    scene.start()
    scene.turn()
    assert len(scene.accepted) == 1


def test_shut_they_wait_until_it_is_opened(listening: Scene) -> None:
    listening.port.stopReading()
    listening.port.stopReading()
    listening.connect()
    listening.turn()
    assert not listening.accepted
    listening.port.startReading()
    listening.port.startReading()
    listening.turn()
    assert len(listening.accepted) == 1


def test_shut_by_one_the_next_ones_wait(listening: Scene) -> None:
    def shut(sock: socket.SocketType, name: SocketName) -> None:
        scene.accept(sock, name)
        scene.port.stopReading()

    scene = listening
    scene.board.listen(scene.port, None)
    scene.board.listen(scene.port, shut)
    scene.connect()
    scene.connect()
    scene.turn()
    scene.turn()
    assert len(scene.accepted) == 1


def test_what_is_accepted_already_stays_so(listening: Scene) -> None:
    """A reload asks for it again, though the port may be shut."""
    listening.port.stopReading()
    listening.board.listen(listening.port, listening.accept)
    listening.connect()
    listening.turn()
    assert not listening.accepted


def test_a_turn_takes_so_many_and_the_next_the_rest(
    listening: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socksd.relay.accepting._MOST", 2)
    for _ in range(3):
        listening.connect()
    listening.turn()
    assert len(listening.accepted) == 2
    listening.turn()
    assert len(listening.accepted) == 3


@pytest.mark.parametrize("reads", [True, False])
def test_given_back_it_is_the_reactor_s(listening: Scene, reads: bool) -> None:
    if not reads:
        listening.port.stopReading()
    listening.board.listen(listening.port, None)
    listening.board.listen(listening.port, None)
    assert (listening.port in listening.reactor.readers) is reads
    listening.connect()
    listening.turn()
    assert not listening.accepted
    listening.port.stopReading()


def test_stopped_it_is_given_back(listening: Scene) -> None:
    listening.board.stop()
    assert listening.reactor.readers == {listening.port}
    listening.port.stopReading()


def test_what_goes_wrong_is_for_twisted_to_deal_with(
    listening: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has gone before it is accepted, or no descriptor left: it knows which is which."""

    class Refusing:
        def _accept(self) -> None:
            raise OSError(errno.EMFILE, "too many")

        def __getattr__(self, name: str) -> Any:
            return getattr(sock, name)

    asked: list[bool] = []
    listening.connect()
    sock = listening.port.socket
    monkeypatch.setattr(listening.port, "socket", Refusing())
    monkeypatch.setattr(listening.port, "doRead", lambda: asked.append(True))
    listening.turn()
    assert asked == [True]
    assert not listening.accepted


def test_a_bug_is_logged_and_the_next_one_accepted(
    listening: Scene, logged_errors: list[dict[str, Any]]
) -> None:
    def accept(sock: socket.SocketType, name: SocketName) -> None:
        listening.accept(sock, name)
        if len(listening.accepted) == 1:
            raise ZeroDivisionError

    listening.board.listen(listening.port, None)
    listening.board.listen(listening.port, accept)
    listening.connect()
    listening.connect()
    listening.turn()
    listening.turn()
    assert len(listening.accepted) == 2
    (event,) = logged_errors
    assert event["failure"].check(ZeroDivisionError)
    logged_errors.clear()

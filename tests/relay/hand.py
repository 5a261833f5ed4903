"""
A switchboard that the test turns by hand, between real sockets.

What a line does is all said to the kernel, so there is nothing to stand in
for it. But nothing waits, nothing is left to the reactor, and time is a Clock's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from zope.interface import implementer

from socksd.interfaces import EndedBy, Tally
from socksd.relay.line import Line
from socksd.relay.pipes import Pipes
from socksd.relay.switchboard import Switchboard
from socksd.server.ends import End
from tests.relay.test_contract import Far

Connect = Callable[[], tuple[socket.socket, socket.socket]]

IDLE = 900.0
LINGER = 300.0


@implementer(IReactorFDSet, IReactorTime)
class HandReactor(Clock):
    """A reactor that knows whom it would have to listen to, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def turn(self) -> None:
        """Make the calls that are due; those they make in turn wait, as for a reactor."""
        for call in [call for call in self.calls if call.getTime() <= self.seconds()]:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def removeAll(self) -> list[Any]:
        raise NotImplementedError

    def getReaders(self) -> list[Any]:
        return list(self.readers)

    def getWriters(self) -> list[Any]:
        return list(self.writers)


def pair(buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Give both sides of a TCP connection; *buffer* sizes the kernel's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        near = socket.socket()
        if buffer is not None:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        near.connect(listener.getsockname())
        return near, listener.accept()[0]


class Board:
    """A switchboard, and the lines on it."""

    def __init__(self, pipes: int = 4, *, switched: bool = False) -> None:
        self.switched = switched
        self.reactor = HandReactor()
        self.pipes = Pipes(pipes)
        self.switchboard = Switchboard(self.reactor, pipes=self.pipes)
        self.switchboard.start()
        self.joined: list[Joined] = []

    def end(self, buffer: int | None = None, connect: Connect | None = None) -> tuple[End, Far]:
        """Give an end, and its far side."""
        near, far = connect() if connect else pair(buffer)
        end = End()
        peer = "127.0.0.1", 1
        if self.switched:
            near.setblocking(False)
            end.makeConnection(self.switchboard.transport(near, end, peer))
            self.switchboard.doRead()  # it knows what is true
        else:
            transport = Server(near, end, peer, None, 0, self.reactor)  # type: ignore[arg-type]  # as adoptStreamConnection() has it
            end.makeConnection(transport)
        return end, Far(far)

    def join(
        self, buffer: int | None = None, early: bytes = b"", connect: Connect | None = None
    ) -> Joined:
        """Join a client and a target."""
        client, client_far = self.end(buffer, connect)
        target, target_far = self.end(buffer, connect)
        joined = Joined(self, client, client_far, target, target_far)
        self.joined.append(joined)
        joined.line.join(early, joined.results.append)
        return joined

    def turn(self) -> None:
        """Take a turn of the reactor."""
        for joined in self.joined:
            joined.client.turn()
            joined.target.turn()
        self.switchboard.doRead()
        self.reactor.turn()

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(5000):
            if condition():
                return
            self.turn()
        raise AssertionError("it has not come about")

    def settle(self) -> None:
        for _ in range(50):
            self.turn()


class Joined:
    """A line between two far sides."""

    def __init__(
        self, board: Board, client_end: End, client: Far, target_end: End, target: Far
    ) -> None:
        self.board = board
        self.ends = client_end, target_end
        self.client = client
        self.target = target
        self.line = Line(board.switchboard, client_end, target_end, IDLE, LINGER)
        self.results: list[Any] = []

    @property
    def tally(self) -> Tally:
        (tally,) = self.results
        assert isinstance(tally, Tally)
        return tally

    @property
    def ended_by(self) -> EndedBy:
        return self.tally.ended_by

    def far(self, name: str) -> tuple[Far, Far]:
        """Give the named one, and the other."""
        sides = (self.client, self.target)
        return sides if name == "client" else (sides[1], sides[0])


@contextmanager
def board(pipes: int = 4, *, switched: bool = False) -> Iterator[Board]:
    """A switchboard of which nothing is left; *switched*: the transports are its own."""
    made = Board(pipes, switched=switched)
    try:
        yield made
    finally:
        made.switchboard.stop()
        for joined in made.joined:
            for far in (joined.client, joined.target):
                with suppress(OSError):
                    far.close()
        assert not made.reactor.readers
        assert not made.reactor.writers
        assert not made.reactor.getDelayedCalls()
        assert made.switchboard.kept == 0
        assert made.pipes._made == 0

"""
Connecting beside the reactor.

The sockets are real, and turned by hand; what they connect to is here.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any, cast

import pytest
from attr import astuple
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Server
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksd.egress.dial import DialEndpoint
from socksd.interfaces import IActing, ISwitchboard, IWatched
from tests.egress.fakes import Target, TargetFactory
from tests.fakes import outcome
from tests.relay.hand import HandReactor


@implementer(ISwitchboard)
class FakeBoard:
    """A switchboard where something happens when the test says so."""

    def __init__(self) -> None:
        self.watched: dict[int, IWatched] = {}
        self.made: list[tuple[int, int | None]] = []  # the sockets of transports; what is true
        self.turning = False
        self.acting: list[IActing] = []

    def watch(self, descriptor: int, watched: IWatched) -> None:
        assert descriptor not in self.watched
        self.watched[descriptor] = watched

    def forget(self, descriptor: int) -> None:
        os.fstat(descriptor)  # is still open
        del self.watched[descriptor]

    def transport(
        self, sock: socket.SocketType, protocol: IProtocol, peer: Any, true: int | None = None
    ) -> Server:
        self.watched.pop(sock.fileno(), None)
        self.made.append((sock.fileno(), true))
        name = astuple(peer)[1:]
        return Server(sock, protocol, name, None, 0, HandReactor())  # type: ignore[arg-type]  # as adoptStreamConnection() has it

    def hand_over(self, descriptor: int, watched: IWatched) -> None:
        assert descriptor in self.watched
        self.watched[descriptor] = watched

    def soon(self, watched: IWatched) -> None:
        raise NotImplementedError  # nothing here has anything to read

    def closing(self, descriptor: int) -> None:
        os.fstat(descriptor)  # is still open
        self.watched.pop(descriptor, None)

    def at_end(self, acting: IActing) -> None:
        if self.turning:
            self.acting.append(acting)
        else:
            acting.act()

    def listen(self, *_: object) -> None:
        raise NotImplementedError  # nor accepted

    def tell(self, events: int = EPOLLOUT) -> None:
        for watched in list(self.watched.values()):
            watched.hear(events)


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial by the socket class of Python's, whose methods a test can replace."""
    monkeypatch.setattr("socksd.egress.dial.SocketType", socket.socket)


@pytest.fixture
def board() -> Iterator[FakeBoard]:
    made = FakeBoard()
    yield made
    assert not made.watched


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


Connect = Callable[..., Deferred[IProtocol]]


@pytest.fixture
def connect(board: FakeBoard, listener: socket.socket) -> Iterator[Connect]:
    """Connect to the listener, or to another port."""
    made: list[Deferred[IProtocol]] = []

    def connect_(
        factory: IProtocolFactory | None = None,
        port: int = listener.getsockname()[1],
        address: str = "127.0.0.1",
        source: str | None = None,
    ) -> Deferred[IProtocol]:
        bound = ip_address(source) if source else None
        endpoint = DialEndpoint(board, ip_address(address), port, bound)
        made.append(endpoint.connect(factory or TargetFactory()))
        return made[-1]

    yield connect_
    for deferred in made:
        deferred.addCallback(lambda protocol: protocol and protocol.transport.connectionLost(GONE))
        deferred.addErrback(lambda _: None)


GONE = Failure(error.ConnectionDone())


def transport_of(connected: Deferred[IProtocol]) -> Server:
    kept: list[IProtocol] = []
    connected.addCallback(lambda protocol: kept.append(protocol) or protocol)
    (protocol,) = kept
    assert isinstance(protocol, Target)
    transport = protocol.transport
    assert isinstance(transport, Server)
    return transport


def test_it_is_an_endpoint(board: FakeBoard) -> None:
    endpoint = DialEndpoint(board, ip_address("127.0.0.1"), 1)
    assert verifyObject(IStreamClientEndpoint, endpoint)


def test_it_tells_when_it_is_connected_and_not_before(
    connect: Connect, board: FakeBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event may be about a socket that had the same number."""
    connecting = connect()
    (attempt,) = board.watched.values()
    assert verifyObject(IWatched, attempt)
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect_ex", lambda *_: errno.EALREADY)
        board.tell(0)
        assert not connecting.called
    board.tell()
    assert transport_of(connecting).connected


def test_it_asks_where_more_is_told_than_that_it_may_write(
    connect: Connect, board: FakeBoard
) -> None:
    """A target that speaks first, or has said all already."""
    connecting = connect()
    board.tell(EPOLLIN | EPOLLOUT)
    assert transport_of(connecting).connected
    assert board.made[0][1] == EPOLLIN | EPOLLOUT


def test_its_watcher_is_replaced_by_the_transport_which_learns_what_is_true(
    connect: Connect, board: FakeBoard
) -> None:
    connecting = connect()
    (descriptor,) = board.watched
    board.tell()
    assert board.made == [(descriptor, EPOLLOUT)]
    transport_of(connecting)


def test_the_result_is_the_connected_protocol_of_the_factory(
    connect: Connect, board: FakeBoard, listener: socket.socket
) -> None:
    connecting = connect()
    board.tell()
    transport = transport_of(connecting)
    there, _ = listener.accept()
    with there:
        for interface in (ITCPTransport, IConsumer, IPushProducer):
            assert verifyObject(interface, transport)
        peer, host = transport.getPeer(), transport.getHost()
        assert (peer.host, peer.port) == listener.getsockname()
        assert (host.host, host.port) == there.getpeername()
        assert transport.protocol is outcome(connecting)
        assert transport.getTcpNoDelay()


def test_connected_at_once_it_needs_nobody_to_watch(
    connect: Connect, board: FakeBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(sock: socket.socket, address: Any) -> int:
        sock.setblocking(True)
        sock.connect(address)
        return 0

    monkeypatch.setattr(socket.socket, "connect_ex", at_once)
    assert transport_of(connect()).connected
    assert not board.watched
    assert board.made[0][1] is None


def test_ipv6_is_dialled_as_such(connect: Connect, board: FakeBoard) -> None:
    try:
        there = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no ::1 here")
    with there:
        connecting = connect(port=there.getsockname()[1], address="::1")
        board.tell()
        transport = transport_of(connecting)
        assert transport.getPeer().host == transport.getHost().host == "::1"
        assert type(transport.getHost()) is type(transport.getPeer())


# -- from where ---------------------------------------------------------------


def test_it_comes_from_the_source_it_was_given(connect: Connect, board: FakeBoard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connecting = connect(port=listener.getsockname()[1], source="127.0.0.9")
        board.tell()
        assert transport_of(connecting).getHost().host == "127.0.0.9"
        there, (host, _) = listener.accept()
        with there:
            assert host == "127.0.0.9"


def test_its_port_is_left_to_connect(
    connect: Connect, board: FakeBoard, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound to one at once it would be taken from the connections to everywhere else."""
    ports: list[int] = []
    bind = socket.socket.bind

    def binding(sock: socket.socket, address: Any) -> None:
        bind(sock, address)
        ports.append(sock.getsockname()[1])

    monkeypatch.setattr(socket.socket, "bind", binding)
    connecting = connect(source="127.0.0.9")
    board.tell()
    assert ports == [0]
    assert transport_of(connecting).getHost().port > 0


def test_a_source_of_ipv6_leaves_its_port_too(connect: Connect, board: FakeBoard) -> None:
    try:
        there = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no ::1 here")
    with there:
        connecting = connect(port=there.getsockname()[1], address="::1", source="::1")
        board.tell()
        assert transport_of(connecting).getHost().host == "::1"


def test_a_source_that_is_not_ours_fails_with_that_errno(connect: Connect) -> None:
    before = len(os.listdir("/proc/self/fd"))
    failed = failure_of(connect(source="192.0.2.1"))
    assert isinstance(failed, error.ConnectBindError)
    assert failed.osError == errno.EADDRNOTAVAIL
    assert len(os.listdir("/proc/self/fd")) == before


# -- what fails ---------------------------------------------------------------


def failure_of(connecting: Deferred[IProtocol]) -> BaseException:
    with pytest.raises(Exception) as raised:
        outcome(connecting)
    return raised.value


def test_a_refused_connection_has_its_errno(connect: Connect, board: FakeBoard) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        connecting = connect(port=probe.getsockname()[1])
        board.tell(EPOLLOUT | EPOLLERR | EPOLLHUP)
    failed = failure_of(connecting)
    assert isinstance(failed, error.ConnectionRefusedError)
    assert failed.osError == errno.ECONNREFUSED


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES])
def test_what_fails_at_once_has_its_errno(
    connect: Connect, board: FakeBoard, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: number)
    failed = failure_of(connect())
    assert isinstance(failed, error.ConnectError)
    assert failed.osError == number


def test_without_a_descriptor_it_fails_with_that_errno(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_socket(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("socksd.egress.dial.SocketType", no_socket)
    failed = failure_of(connect())
    assert isinstance(failed, error.ConnectBindError)
    assert failed.osError == errno.EMFILE


def test_cancelling_leaves_nothing(
    connect: Connect, board: FakeBoard, listener: socket.socket
) -> None:
    connecting = connect()
    (descriptor,) = board.watched
    connecting.cancel()
    assert isinstance(failure_of(connecting), error.ConnectingCancelledError)
    assert not board.watched
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_cancelled_in_the_same_turn_it_never_connects(
    connect: Connect, board: FakeBoard, listener: socket.socket
) -> None:
    board.turning = True
    connecting = connect()
    assert not board.watched
    connecting.cancel()
    assert isinstance(failure_of(connecting), error.ConnectingCancelledError)
    for acting in board.acting:
        acting.act()
    assert not board.watched
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


class Nobody(Factory[Protocol]):
    def buildProtocol(self, addr: object) -> None:
        return None


def test_a_factory_may_make_no_protocol(
    connect: Connect, board: FakeBoard, listener: socket.socket
) -> None:
    connecting = connect(Nobody())
    board.tell()
    assert isinstance(failure_of(connecting), error.NoProtocol)
    there, _ = listener.accept()
    with there:
        assert there.recv(1) == b""


def test_a_factory_may_make_no_protocol_at_once(
    connect: Connect, board: FakeBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: 0)
    assert isinstance(failure_of(connect(Nobody())), error.NoProtocol)


def test_a_bug_is_told_to_whom_waits(connect: Connect, board: FakeBoard) -> None:
    """Of the factory, say; the switchboard has caught it."""
    connecting = connect()
    ((descriptor, attempt),) = board.watched.items()
    board.forget(descriptor)
    attempt.fail(Failure(ZeroDivisionError()))
    attempt.fail(Failure(ZeroDivisionError()))
    assert isinstance(failure_of(connecting), ZeroDivisionError)
    with pytest.raises(OSError):
        os.fstat(descriptor)


class Bare(Factory[Protocol]):
    """Makes do without a transport."""

    def __init__(self) -> None:
        self.made: list[tuple[object, ...]] = []

    def bare(self, *given: object) -> Protocol:
        self.made.append(given)
        return Protocol()


def test_a_factory_may_make_do_with_the_socket(
    connect: Connect, board: FakeBoard, listener: socket.socket
) -> None:
    """It is given what is known of it, and makes whom the switchboard tells from now on."""
    factory = Bare()
    connecting = connect(factory)
    ((descriptor, _),) = board.watched.items()
    board.tell(EPOLLIN | EPOLLOUT)
    ((given, sock, name, true),) = cast("Any", factory.made)
    assert (given, name, true) == (board, listener.getsockname(), EPOLLIN | EPOLLOUT)
    assert sock.fileno() == descriptor
    assert not board.made
    connecting.addCallback(lambda _: None)  # it has no transport to be closed
    board.forget(descriptor)
    sock.close()

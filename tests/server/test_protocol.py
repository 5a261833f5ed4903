"""Listeners make sessions of connections."""

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.address import IPv4Address

from socksd.address import parsed
from socksd.events import SessionClosed
from socksd.relay.switchboard import Switchboard
from socksd.server.door import Door
from socksd.server.protocol import Sessions, SocksProtocol
from tests.relay.hand import HandReactor, pair
from tests.server.world import PlentyOfDescriptors, World


def test_a_connection_becomes_a_session_of_its_listener() -> None:
    world = World()
    first, second = world.connect(), world.connect()
    assert sorted(session.number for session in world.sessions) == [1, 2]
    assert {session.facts.listener for session in world.sessions} == {"office"}
    assert isinstance(first.protocol, SocksProtocol)
    first.receive_reset()
    assert len(world.sessions) == 1
    second.receive_reset()
    assert len(world.sessions) == 0


def test_where_there_is_no_room_the_connection_is_closed() -> None:
    """Twisted closes a connection whose factory gives no protocol."""
    world = World()
    world.sessions.door.overrun = True
    assert world.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 40000)) is None


def test_who_leaves_makes_room() -> None:
    world = World()
    world.sessions.door = Door(world.clock, most=1, descriptors=PlentyOfDescriptors())
    first = world.connect()
    assert world.factory.buildProtocol(first.peer) is None
    first.receive_reset()
    world.connect().receive_reset()


def test_a_session_is_of_the_time_of_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """One time for all its questions, and for its line in the log: a decision can be repeated."""
    monkeypatch.setattr("time.time", lambda: 1234.5)
    world = World()
    transport = world.connect()
    (session,) = world.sessions
    transport.receive_reset()
    (closed,) = world.events.of(SessionClosed)
    assert session.facts.time == closed.started == 1234.5


@pytest.fixture
def board() -> Iterator[Switchboard]:
    made = Switchboard(HandReactor())
    made.start()
    yield made
    assert not made._watched
    made.stop()


def accepted() -> tuple[socket.socket, socket.socket]:
    near, far = pair()
    near.setblocking(False)
    return near, far


def test_an_accepted_socket_becomes_a_session_without_a_transport(board: Switchboard) -> None:
    world = World()
    near, far = accepted()
    with far:
        world.factory.accept(board, near, far.getsockname())
        (session,) = world.sessions
        assert session.facts.client == parsed("127.0.0.1")
        assert (session.client_port, session.facts.listener) == (far.getsockname()[1], "office")
        assert session.end.bare  # type: ignore[attr-defined]  # which it is
        far.send(b"\x05\x01\x00")
        board.doRead()
        assert far.recv(9) == b"\x05\x00"
        assert session.end.bare  # type: ignore[attr-defined]  # still
    for _ in range(3):
        board.doRead()
        board.reactor.turn()  # type: ignore[attr-defined]  # a HandReactor
    assert len(world.sessions) == 0


def test_where_there_is_no_room_an_accepted_socket_is_closed(board: Switchboard) -> None:
    world = World()
    world.sessions.door.overrun = True
    near, far = accepted()
    with far:
        world.factory.accept(board, near, far.getsockname())
        assert near.fileno() == -1
        assert far.recv(1) == b""
    assert len(world.sessions) == 0


def test_the_door_goes_by_the_number_of_an_accepted_socket(board: Switchboard) -> None:
    world = World()
    seen: list[object] = []
    world.sessions.door.entered = (  # type: ignore[method-assign]  # to see it told
        lambda live, transport: seen.append(transport.fileno())  # type: ignore[attr-defined]  # an end
    )
    near, far = accepted()
    with far:
        world.factory.accept(board, near, far.getsockname())
        assert seen == [near.fileno()]
    for _ in range(3):
        board.doRead()
        board.reactor.turn()  # type: ignore[attr-defined]  # a HandReactor


def test_one_process_of_several_numbers_its_sessions_from_where_it_is_told() -> None:
    world = World()
    world.sessions.begun = world.sessions.before = 3 * 10**9
    for number in (3_000_000_001, 3_000_000_002):
        world.connect().receive_reset()
        assert world.events.of(SessionClosed)[-1].session == number
    assert [Sessions(world.sessions.door).begun, Sessions(world.sessions.door, 7).begun] == [0, 7]

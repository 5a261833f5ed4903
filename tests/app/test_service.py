"""The gateway listens, and ends everything when it stops."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.internet.unix import Port as UNIXPort
from zope.interface import implementer

from socksd.app.config import Config, Limits, Server
from socksd.app.service import (
    CannotStart,
    Entrance,
    Gateway,
    Generation,
    Part,
    go_by_monotonic_time,
    written,
)
from socksd.errors import ConfigError
from socksd.events import Outcome, SessionClosed
from socksd.server.front import Front, Preface
from socksd.server.protocol import SocksProtocol
from tests.fakes import FakeTransport, outcome
from tests.server.world import World


class FakePort:
    def __init__(self) -> None:
        self.listening = True

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 1080)

    def stopListening(self) -> Deferred[None]:
        self.listening = False
        return succeed(None)

    def startReading(self) -> None: ...

    def stopReading(self) -> None: ...


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    def __init__(self, result: Any) -> None:
        self.result = result

    def listen(self, factory: object) -> Deferred[Any]:
        return self.result() if callable(self.result) else succeed(self.result)


class Scene:
    """A gateway with one listener, "office"."""

    def __init__(self, result: Any, parts: Sequence[Part] = ()) -> None:
        self.world = World()
        self.clock = self.world.clock
        self.gateway = Gateway(
            self.generation({"office": result}, parts), self.world.sessions, self.clock
        )

    def generation(
        self,
        entrances: Mapping[str, Any],
        parts: Sequence[Part] = (),
        sessions: int | None = None,
        drain: float = 0.0,
    ) -> Generation:
        """What a configuration with these listeners has become; "name at" is an endpoint at."""
        return Generation(
            config=Config(limits=Limits(sessions=sessions), server=Server(drain)),
            rules=(),
            entrances=tuple(
                Entrance(name.split()[0], name.split()[-1], FakeEndpoint(result))
                for name, result in entrances.items()
            ),
            runtime=replace(self.world.runtime),
            parts=tuple(parts),
        )

    def connect(self, listener: int = 0) -> FakeTransport:
        """Let a client come to a listener."""
        protocol = self.gateway.listeners[listener].factory.buildProtocol(None)
        assert protocol is not None
        return FakeTransport(protocol)


def test_starting_listens_and_stopping_ends_every_session() -> None:
    heard: list[str] = []
    port = FakePort()
    first = Part(lambda: heard.append("start 1"), lambda: heard.append("stop 1"))
    second = Part(stop=lambda: heard.append("stop 2"))
    third = Part(start=lambda: heard.append("start 3"))
    scene = Scene(port, [first, second, third])
    scene.gateway.startService()
    assert heard == ["start 1", "start 3"]
    client = scene.world.connect()
    stopped = scene.gateway.stopService()
    assert not port.listening
    assert client.gone == "reset"
    outcome(stopped)
    assert heard[2:] == ["stop 2", "stop 1"], "in reverse, once the last session has ended"
    (closed,) = scene.world.events.of(SessionClosed)
    assert closed.outcome is Outcome.STOPPED
    assert scene.clock.getDelayedCalls() == []


class Options:
    """A socket, as far as options are set."""

    def __init__(self) -> None:
        self.options: set[tuple[int, int, int]] = set()

    def setsockopt(self, *option: int) -> None:
        self.options.add(option)  # type: ignore[arg-type]  # three

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 1080


@pytest.mark.parametrize(
    ("kind", "wrapped", "switched"),
    [
        pytest.param(Port, False, True, id="plain TCP"),
        pytest.param(Port, True, False, id="TLS or a PROXY header before us"),
        pytest.param(UNIXPort, False, False, id="a unix socket"),
    ],
)
def test_what_comes_to_a_plain_port_is_watched_by_the_switchboard(
    kind: type[Port], wrapped: bool, switched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what TLS or a PROXY header stands before is the reactor's, from one to the next."""

    class Endpoint:
        def listen(self, factory: Any) -> Deferred[Any]:
            self.port = kind.__new__(kind)
            self.port.factory = Factory() if wrapped else factory
            self.port.socket = cast("Any", Options())
            self.port.getHost = lambda: IPv4Address("TCP", "127.0.0.1", 1080)  # type: ignore[method-assign]  # a port that does not listen
            self.port.stopListening = lambda: succeed(None)  # type: ignore[method-assign]  # a port that does not listen
            return succeed(self.port)

    scene, endpoint, board = Scene(FakePort()), Endpoint(), cast("Any", SimpleNamespace())
    listened: list[Any] = []
    board.listen = lambda port, accept: listened.append((port, accept))
    entrance = Entrance("office", "tcp:1080", cast("Any", endpoint))
    generation = replace(scene.gateway.generation, entrances=(entrance,), board=board)
    scene.gateway.generation = generation
    scene.gateway.privilegedStartService()
    if switched:
        for front in (Front(security=cast("Any", object())), None):
            scene.gateway.adopt(
                replace(generation, entrances=(replace(entrance, front=front),), parts=())
            )
        scene.gateway.adopt(replace(generation, entrances=(), parts=()))
        assert [port for port, _ in listened] == [endpoint.port] * 4
        assert listened.pop()[1] is None, "closed, it is forgotten"
        (_, first), (_, between), (_, last) = listened
        assert between is None
        assert first.func == last.func == cast("Any", endpoint.port.factory).accept
        assert first.args == last.args == (board,)
    else:
        assert not listened
    no_delay = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert (no_delay in cast("Any", endpoint.port.socket).options) is switched
    outcome(scene.gateway.stopService())


def test_stopping_waits_for_sessions_whose_end_comes_later() -> None:
    """A real abortConnection() tells of the loss in the next turn of the reactor."""
    heard: list[str] = []
    scene = Scene(FakePort(), [Part(stop=lambda: heard.append("stop"))])
    scene.gateway.startService()
    client = scene.world.connect()
    client.abortConnection = lambda: scene.clock.callLater(0, client.receive_reset)  # type: ignore[method-assign]  # a reset takes a turn
    stopped = scene.gateway.stopService()
    assert heard == []
    scene.clock.pump([0, 0])
    outcome(stopped)
    assert heard == ["stop"]


def draining(*, seconds: float = 60.0) -> tuple[Scene, FakeTransport, list[str], Deferred[None]]:
    """Give a service that has begun to stop, one of its clients, and what it has said."""
    heard: list[str] = []
    scene = Scene(None)
    port = FakePort()
    parts = [Part(stop=lambda: heard.append("stop"))]
    scene.gateway.generation = scene.generation({"office": port}, parts, drain=seconds)
    scene.gateway._live = [scene.gateway.generation]
    scene.gateway.ends.append(lambda seconds: heard.append(f"ends in {seconds:g}"))
    scene.gateway.startService()
    client = scene.connect()
    stopped = scene.gateway.stopService()
    assert not port.listening
    return scene, client, heard, stopped


def test_sessions_may_end_by_themselves() -> None:
    scene, client, heard, stopped = draining()
    assert heard == ["ends in 60"]
    assert client.gone is None
    assert scene.gateway.status() == "stopping, 1 sessions are left"
    scene.clock.advance(1.0)
    client.receive_reset()
    assert heard == ["ends in 60"], "not from within the session's own end"
    scene.clock.advance(0)
    outcome(stopped)
    assert heard == ["ends in 60", "stop"]
    assert scene.clock.getDelayedCalls() == []


def test_what_has_not_ended_in_time_is_ended() -> None:
    scene, client, heard, stopped = draining(seconds=9.0)
    scene.clock.advance(8.9)
    assert client.gone is None
    scene.clock.advance(0.1)
    outcome(stopped)
    assert client.gone == "reset"
    (closed,) = scene.world.events.of(SessionClosed)
    assert closed.outcome is Outcome.STOPPED
    assert heard == ["ends in 9", "stop"]


def test_who_insists_does_not_wait() -> None:
    scene, client, _, stopped = draining()
    scene.gateway.hurry()
    outcome(stopped)
    assert client.gone == "reset"
    assert scene.clock.getDelayedCalls() == []


def test_who_asks_for_the_end_says_how_long_sessions_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process is told to end a turn later: by then who has asked is answered."""
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    scene, told = Scene(FakePort()), []
    heard: list[float] = []
    scene.gateway.ends.append(heard.append)
    scene.gateway.leave = lambda: told.append(scene.gateway.stopService())
    scene.gateway.startService()
    client = scene.connect()
    assert scene.gateway.draining_until is None
    scene.gateway.drain(5.0)
    scene.gateway.drain(500.0)
    assert scene.gateway.draining_until == 1005.0
    assert not told
    scene.clock.advance(0)
    assert heard == [5.0]
    scene.clock.advance(4.9)
    assert client.gone is None
    scene.clock.advance(0.1)
    (stopped,) = told
    outcome(stopped)
    assert client.gone == "reset"


def test_without_a_time_of_its_own_it_is_the_configured_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    scene = Scene(FakePort())
    scene.gateway.generation = scene.generation({"office": FakePort()}, drain=60.0)
    scene.gateway.startService()
    scene.gateway.drain()
    assert scene.gateway.draining_until == 1060.0
    scene.clock.advance(0)
    assert not scene.gateway.running
    other = Scene(FakePort())
    other.gateway.startService()
    other.gateway.stopService()
    assert other.gateway.draining_until == 1000.0, "a signal counts, too"


def test_a_service_says_what_it_does() -> None:
    scene = Scene(FakePort())
    scene.gateway.startService()
    assert scene.gateway.status() == "0 sessions, 1 listeners"
    client = scene.connect()
    assert scene.gateway.status() == "1 sessions, 1 listeners"
    client.receive_reset()
    outcome(scene.gateway.stopService())


def test_stopping_does_not_wait_for_ever() -> None:
    scene = Scene(FakePort())
    scene.gateway.startService()
    client = scene.world.connect()
    client.abortConnection = lambda: None  # type: ignore[method-assign]  # one that does not end
    stopped = scene.gateway.stopService()
    scene.clock.pump([0] * 101)
    outcome(stopped)
    client.receive_reset()


def test_privileged_ports_are_bound_before_privileges_are_dropped() -> None:
    scene = Scene(FakePort())
    calls: list[int] = []
    scene.gateway.generation = scene.generation({"office": lambda: counted(calls)})
    scene.gateway.privilegedStartService()
    scene.gateway.startService()
    assert len(calls) == 1
    outcome(scene.gateway.stopService())


def counted(calls: list[int]) -> Deferred[FakePort]:
    calls.append(1)
    return succeed(FakePort())


@pytest.mark.parametrize(
    ("result", "said"),
    [
        pytest.param(
            lambda: fail(CannotListenError("", 1080, OSError(98, "Address already in use"))),
            "listener 'office' cannot listen on *:1080: Address already in use",
            id="port in use",
        ),
        pytest.param(lambda: fail(ValueError("odd")), "cannot listen: odd", id="anything else"),
        pytest.param(lambda: fail(ZeroDivisionError()), "ZeroDivisionError", id="without words"),
        pytest.param(lambda: Deferred(), "does not get ready", id="never"),
    ],
)
def test_a_port_that_cannot_be_had_ends_the_process_with_one_line(result: Any, said: str) -> None:
    """As a SystemExit for the interpreter and as an Exception for twistd's clean-up."""
    scene = Scene(result)
    with pytest.raises(CannotStart) as caught:
        scene.gateway.privilegedStartService()
    assert said in str(caught.value.code)
    assert "\n" not in str(caught.value.code)
    assert isinstance(caught.value, Exception)
    assert isinstance(caught.value, SystemExit)


def test_a_part_that_cannot_start_ends_the_process_with_one_line() -> None:
    def start() -> None:
        raise OSError(None, "control socket /run/s: another server listens there")

    scene = Scene(FakePort(), [Part(start)])
    with pytest.raises(CannotStart, match="another server listens there"):
        scene.gateway.startService()
    outcome(scene.gateway.stopService())


# -- adopting another configuration ------------------------------------------


def heard_part(heard: list[str], name: str) -> Part:
    return Part(lambda: heard.append(f"start {name}"), lambda: heard.append(f"stop {name}"))


def test_a_listener_whose_endpoint_is_as_before_is_not_bound_anew() -> None:
    """Even where it is called by another name; new sessions know it by that."""
    scene = Scene(FakePort())
    scene.gateway.startService()
    (before,) = scene.gateway.listeners
    new = scene.generation({"home office": lambda: pytest.fail("bound anew")})
    scene.gateway.adopt(new)
    (listener,) = scene.gateway.listeners
    assert listener is before
    assert listener.factory.runtime is new.runtime
    assert listener.factory.listener == "home"
    outcome(scene.gateway.stopService())


def test_listeners_come_and_go() -> None:
    old, fresh = FakePort(), FakePort()
    scene = Scene(old)
    scene.gateway.startService()
    scene.gateway.adopt(scene.generation({"home": fresh}))
    assert (old.listening, fresh.listening) == (False, True)
    assert [each.factory.listener for each in scene.gateway.listeners] == ["home"]
    outcome(scene.gateway.stopService())
    assert not fresh.listening


def test_of_two_listeners_at_equal_endpoints_each_keeps_its_name() -> None:
    one, two = FakePort(), FakePort()
    scene = Scene(FakePort())
    scene.gateway.generation = scene.generation({"a tcp:0": one, "b tcp:0": two})
    scene.gateway.startService()
    scene.gateway.adopt(scene.generation({"b tcp:0": None}))
    (listener,) = scene.gateway.listeners
    assert listener.port is two
    assert (one.listening, two.listening) == (False, True)
    outcome(scene.gateway.stopService())


def test_all_listeners_that_cannot_listen_are_said_and_nothing_has_changed() -> None:
    heard: list[str] = []
    kept, fresh = FakePort(), FakePort()
    scene = Scene(kept)
    scene.gateway.startService()
    generation, listeners = scene.gateway.generation, list(scene.gateway.listeners)
    new = scene.generation(
        {
            "good": fresh,
            "bad": lambda: fail(CannotListenError("", 1, OSError(98, "Address already in use"))),
            "worse": lambda: Deferred(),
        },
        [heard_part(heard, "new")],
    )
    with pytest.raises(ConfigError) as caught:
        scene.gateway.adopt(new)
    assert [str(problem) for problem in caught.value.problems] == [
        "listener 'bad' cannot listen on *:1: Address already in use",
        "listener 'worse' does not get ready",
    ]
    assert (kept.listening, fresh.listening) == (True, False)
    assert scene.gateway.generation is generation
    assert scene.gateway.listeners == listeners
    assert listeners[0].factory.runtime is generation.runtime
    assert heard == []
    outcome(scene.gateway.stopService())


def test_a_part_that_cannot_start_leaves_everything_as_it_was() -> None:
    heard: list[str] = []
    fresh, shared = FakePort(), heard_part(heard, "shared")

    def start() -> None:
        raise OSError(13, "Permission denied")

    scene = Scene(FakePort(), [shared])
    scene.gateway.startService()
    before = scene.gateway.generation
    with pytest.raises(ConfigError, match="Permission denied"):
        scene.gateway.adopt(
            scene.generation({"new": fresh}, [shared, heard_part(heard, "new"), Part(start)])
        )
    assert heard == ["start shared", "start new", "stop new"]
    assert not fresh.listening
    assert scene.gateway.generation is before
    outcome(scene.gateway.stopService())


def test_sessions_keep_what_they_began_with_and_parts_stop_behind_the_last_one() -> None:
    heard: list[str] = []
    shared = heard_part(heard, "shared")
    scene = Scene(FakePort(), [shared, heard_part(heard, "old")])
    scene.gateway.startService()
    old = scene.gateway.generation.runtime
    first, second = scene.connect(), scene.connect()
    scene.gateway.adopt(scene.generation({"office": None}, [shared, heard_part(heard, "new")]))
    third = scene.connect()
    assert [s.runtime is old for s in sorted(scene.world.sessions, key=lambda s: s.number)] == [
        True,
        True,
        False,
    ]
    assert heard == ["start shared", "start old", "start new"]
    first.receive_reset()
    third.receive_reset()
    assert heard[3:] == []
    second.receive_reset()
    assert heard[3:] == ["stop old"]
    outcome(scene.gateway.stopService())
    assert heard[4:] == ["stop new", "stop shared"]


def test_a_configuration_that_nobody_keeps_is_gone_at_once() -> None:
    """A thousand reloads leave one."""
    heard: list[str] = []
    scene = Scene(FakePort(), [heard_part(heard, "0")])
    scene.gateway.startService()
    for number in range(1, 3):
        scene.gateway.adopt(scene.generation({"office": None}, [heard_part(heard, str(number))]))
    assert heard == ["start 0", "start 1", "stop 0", "start 2", "stop 1"]
    assert len(scene.gateway.parts()) == 1
    outcome(scene.gateway.stopService())


def test_the_bound_on_sessions_is_that_of_the_new_configuration() -> None:
    scene = Scene(FakePort())
    scene.gateway.startService()
    scene.gateway.adopt(scene.generation({"office": None}, sessions=1))
    client = scene.connect()
    assert scene.world.sessions.door.overrun
    client.receive_reset()
    outcome(scene.gateway.stopService())


def test_a_shut_door_stays_shut_for_listeners_that_go_on() -> None:
    """Who reads a port may be another one from now on."""
    port = FakePort()
    scene = Scene(port)
    scene.gateway.startService()
    scene.gateway.adopt(scene.generation({"office": None}, sessions=1))
    client = scene.connect()
    stopped: list[bool] = []
    port.stopReading = lambda: stopped.append(True)  # type: ignore[method-assign]  # to see it called
    scene.gateway.adopt(scene.generation({"office": None}, sessions=1))
    assert stopped
    client.receive_reset()
    outcome(scene.gateway.stopService())


def test_what_does_not_stop_is_said_and_stops_nothing_else(
    logged_errors: list[dict[str, Any]],
) -> None:
    heard: list[str] = []

    def stop() -> None:
        raise ZeroDivisionError

    scene = Scene(FakePort(), [heard_part(heard, "one"), Part(stop=stop)])
    scene.gateway.startService()
    outcome(scene.gateway.stopService())
    assert heard == ["start one", "stop one"]
    assert [event["log_failure"].type for event in logged_errors] == [ZeroDivisionError]
    logged_errors.clear()


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (IPv4Address("TCP", "127.0.0.1", 1080), "127.0.0.1:1080"),
        (IPv6Address("TCP", "::1", 1080), "[::1]:1080"),
        (UNIXAddress(b"/run/s"), "unix:/run/s"),
        (UNIXAddress(None), "UNIXAddress(None)"),
    ],
)
def test_where_it_listens_is_written_as_one_would(address: Any, text: str) -> None:
    assert written(address) == text


def test_deadlines_do_not_follow_the_wall_clock() -> None:
    clock = Clock()
    go_by_monotonic_time(clock)
    assert clock.seconds is time.monotonic  # type: ignore[comparison-overlap]  # mypy knows the stub, we ask for the method


def test_what_is_scheduled_by_the_old_time_is_left_at_it() -> None:
    clock = Clock()
    call = clock.callLater(1, lambda: None)
    go_by_monotonic_time(clock)
    assert clock.seconds() == 0
    call.cancel()


def test_a_reload_swaps_what_comes_before_a_session() -> None:
    """Certificates, and whose PROXY headers are taken; the port stays open."""
    scene = Scene(FakePort())
    scene.gateway.startService()
    assert isinstance(scene.connect().protocol, SocksProtocol)
    fronted = scene.generation({"office": FakePort()})
    (entrance,) = fronted.entrances
    front = Front((ip_network("127.0.0.1"),))
    scene.gateway.adopt(replace(fronted, entrances=(replace(entrance, front=front),)))
    waiting = scene.connect()
    assert isinstance(waiting.protocol, Preface)
    outcome_of_it = scene.gateway.stopService()
    assert waiting.gone == "reset"
    outcome(outcome_of_it)

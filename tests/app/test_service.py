"""The gateway listens, and ends everything when it stops."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from socksd.app.service import CannotStart, Gateway, Part, go_by_monotonic_time, written
from socksd.events import Outcome, SessionClosed
from tests.fakes import outcome
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
    def __init__(self, result: Any, parts: Sequence[Part] = ()) -> None:
        self.world = World()
        self.clock = self.world.clock
        self.gateway = Gateway(
            [(self.world.factory, FakeEndpoint(result))], self.world.sessions, parts, self.clock
        )


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


def test_stopping_waits_for_sessions_whose_end_comes_later() -> None:
    """A real abortConnection() tells of the loss in the next turn of the reactor."""
    heard: list[str] = []
    scene = Scene(FakePort(), [Part(stop=lambda: heard.append("stop"))])
    scene.gateway.startService()
    client = scene.world.connect()
    client.abortConnection = lambda: scene.clock.callLater(0, client.receive_reset)  # type: ignore[method-assign]
    stopped = scene.gateway.stopService()
    assert heard == []
    scene.clock.pump([0, 0])
    outcome(stopped)
    assert heard == ["stop"]


def test_stopping_does_not_wait_for_ever() -> None:
    scene = Scene(FakePort())
    scene.gateway.startService()
    client = scene.world.connect()
    client.abortConnection = lambda: None  # type: ignore[method-assign]
    stopped = scene.gateway.stopService()
    scene.clock.pump([0] * 101)
    outcome(stopped)
    client.receive_reset()


def test_privileged_ports_are_bound_before_privileges_are_dropped() -> None:
    scene = Scene(FakePort())
    calls: list[int] = []
    scene.gateway.factories = [(scene.world.factory, FakeEndpoint(lambda: counted(calls)))]
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
            "listener 'office' cannot listen: Address already in use",
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
    assert clock.seconds is time.monotonic  # type: ignore[comparison-overlap]


def test_what_is_scheduled_by_the_old_time_is_left_at_it() -> None:
    clock = Clock()
    call = clock.callLater(1, lambda: None)
    go_by_monotonic_time(clock)
    assert clock.seconds() == 0
    call.cancel()

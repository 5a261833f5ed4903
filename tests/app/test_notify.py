"""The service manager hears what it has to, and nobody waits for it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent

from socksd.app.notify import EVERY, Manager, Notifier, manager

PID = 4711


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Listening:
    """A service manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """Everything since it was last asked."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listening]:
    path = str(tmp_path / "notify")
    found = Listening(path if request.param == "path" else "\0socksd-test" + path)
    yield found
    found.socket.close()


class Scene:
    def __init__(self, address: str, clock: Clock, watchdog: float | None = None) -> None:
        self.status = "0 sessions"
        self.notifier = Notifier(Manager(address, watchdog), lambda: self.status, clock)
        self.notifier.start()


def test_without_the_variable_there_is_nobody_to_tell() -> None:
    environment = {"WATCHDOG_USEC": "1000000", "HOME": "/"}
    assert manager(environment, PID) is None
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"NOTIFY_SOCKET": "/run/notify"}, Manager("/run/notify", None)),
        ({"NOTIFY_SOCKET": "@notify@1"}, Manager("\0notify@1", None)),
        (
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)},
            Manager("/n", 30.0),
        ),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000"}, Manager("/n", 30.0)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, Manager("/n", None)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, Manager("/n", None)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, Manager("/n", None)),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, None),
    ],
)
def test_who_wants_to_hear_is_read_once(
    variables: dict[str, str], expected: Manager | None
) -> None:
    """No child of ours shall speak for us."""
    assert manager(variables, PID) == expected
    assert variables == {}


def test_it_is_told_that_we_are_ready_when_the_reactor_turns(
    listening: Listening, clock: Clock
) -> None:
    scene = Scene(listening.address, clock)
    assert listening.heard() == []
    clock.advance(0)
    assert listening.heard() == ["READY=1", "STATUS=0 sessions"]
    scene.notifier.stop()
    assert clock.getDelayedCalls() == []


def test_the_status_is_told_where_it_has_changed(listening: Listening, clock: Clock) -> None:
    scene = Scene(listening.address, clock)
    clock.advance(0)
    listening.heard()
    clock.advance(EVERY)
    assert listening.heard() == []
    scene.status = "7 sessions"
    clock.advance(EVERY)
    assert listening.heard() == ["STATUS=7 sessions"]
    scene.notifier.stop()


def test_a_reload_begins_and_ends(
    listening: Listening, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(listening.address, clock)
    clock.advance(0)
    listening.heard()
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5_000_999)
    scene.notifier.reloading()
    scene.notifier.ready()
    assert listening.heard() == ["RELOADING=1\nMONOTONIC_USEC=5000", "READY=1"]
    scene.notifier.stop()


def test_stopping_is_told_with_the_time_it_may_take(listening: Listening, clock: Clock) -> None:
    scene = Scene(listening.address, clock)
    clock.advance(0)
    listening.heard()
    scene.notifier.stopping(60.0)
    assert listening.heard() == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=75000000"]
    scene.notifier.stop()


@pytest.mark.parametrize(("watchdog", "times"), [(3.0, 4), (30.0, 2)])
def test_the_watchdog_hears_from_the_reactor_at_half_its_time_or_sooner(
    listening: Listening, clock: Clock, watchdog: float, times: int
) -> None:
    scene = Scene(listening.address, clock, watchdog)
    clock.advance(0)
    assert listening.heard()[1] == "WATCHDOG=1\nSTATUS=0 sessions"
    clock.pump([0.5] * int(6.0 / 0.5 if times == 4 else EVERY * 2 / 0.5))
    assert listening.heard() == ["WATCHDOG=1"] * times
    scene.notifier.stop()


def test_a_manager_that_is_busy_hears_of_a_change_later(listening: Listening, clock: Clock) -> None:
    scene = Scene(listening.address, clock)
    clock.advance(0)
    for _ in range(100_000):  # until its queue is full
        scene.notifier.reloading()
        if scene.notifier._owed:
            break
    scene.notifier.ready()
    assert listening.heard()[-1].startswith("RELOADING")
    clock.advance(EVERY)
    heard = listening.heard()
    assert heard[0].startswith("RELOADING")
    assert heard[-1] == "READY=1"
    scene.notifier.stop()


def test_a_manager_that_is_gone_is_said_once(tmp_path: Path, clock: Clock) -> None:
    with capturedLogs() as captured:
        scene = Scene(str(tmp_path / "nobody"), clock)
        clock.pump([EVERY] * 3)
        scene.notifier.stop()
    events: list[LogEvent] = list(captured)  # type: ignore[arg-type]  # LogEvent is a dict
    assert [formatEvent(event) for event in events] == [
        "cannot tell the service manager: No such file or directory"
    ]


def test_what_is_said_after_the_end_reaches_nobody(listening: Listening, clock: Clock) -> None:
    scene = Scene(listening.address, clock)
    scene.notifier.stop()
    scene.notifier.stop()
    scene.notifier.ready()
    assert listening.heard() == []
    assert clock.getDelayedCalls() == []

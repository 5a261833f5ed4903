"""Accept no more before descriptors run out; accept again when they are back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from socksd.server.door import Descriptors, Door


class FakePort:
    def __init__(self) -> None:
        self.reading = True

    def startReading(self) -> None:
        self.reading = True

    def stopReading(self) -> None:
        self.reading = False


class FakeDescriptors(Descriptors):
    def __init__(self, limit: int = 256) -> None:
        self.of = limit
        self.used = 10

    def limit(self) -> int:
        return self.of

    def lowest_free(self) -> int:
        return min(self.used, self.of)


class FakeSocket:
    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


class Scene:
    def __init__(self, most: int | None = None) -> None:
        self.clock = Clock()
        self.descriptors = FakeDescriptors()
        self.port = FakePort()
        self.door = Door(self.clock, most, self.descriptors)
        self.door.guard(self.port)
        self.door.start()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    seen: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "socksd":
            seen.append(event["log_format"])

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


def test_the_port_is_shut_at_the_high_water_mark() -> None:
    """A quarter of the limit stays for the lookups and connections of who is in."""
    scene = Scene()
    scene.door.entered(90, FakeSocket(191))
    assert scene.port.reading
    scene.door.entered(91, FakeSocket(192))
    assert not scene.port.reading
    assert not scene.door.overrun, "who was accepted in the same turn is still served"


def test_what_the_same_turn_accepts_beyond_half_of_the_reserve_is_closed() -> None:
    scene = Scene()
    scene.door.entered(91, FakeSocket(224))
    assert scene.door.overrun


def test_the_port_opens_again_once_some_have_left() -> None:
    scene = Scene()
    scene.descriptors.used = 200
    scene.door.entered(95, FakeSocket(200))
    scene.descriptors.used = 190
    scene.door.left(90)
    assert not scene.port.reading, "not at the very mark, or the door would flap"
    scene.descriptors.used = 183
    scene.door.left(87)
    assert scene.port.reading
    assert not scene.door.overrun


def test_relief_that_no_session_brings_is_noticed_within_a_second() -> None:
    """Descriptors that others gave back, or a limit that prlimit has raised."""
    scene = Scene()
    scene.door.entered(91, FakeSocket(192))
    scene.descriptors.used = 192
    scene.clock.pump([0.1] * 9)
    assert not scene.port.reading
    scene.descriptors.of = 1024
    scene.clock.pump([0.1] * 9)
    assert scene.port.reading


def test_a_limit_lowered_from_outside_is_noticed_within_a_second() -> None:
    scene = Scene()
    scene.descriptors.used = 100
    scene.descriptors.of = 110
    scene.clock.pump([0.1] * 9)
    assert not scene.port.reading


def test_a_limit_of_sessions_is_kept_to_the_letter() -> None:
    scene = Scene(most=2)
    scene.door.entered(1, FakeSocket(20))
    assert scene.port.reading
    scene.door.entered(2, FakeSocket(22))
    assert not scene.port.reading
    assert scene.door.overrun
    scene.door.left(1)
    assert scene.port.reading
    assert not scene.door.overrun


def test_a_transport_without_a_descriptor_is_counted_by_what_is_free() -> None:
    scene = Scene()
    scene.descriptors.used = 200
    scene.door.entered(1, object())
    assert not scene.port.reading


def test_a_port_that_comes_while_the_door_is_shut_is_shut() -> None:
    scene = Scene()
    scene.door.entered(91, FakeSocket(192))
    late = FakePort()
    scene.door.guard(late)
    assert not late.reading


def test_shutting_is_said_but_not_each_time(warnings: list[str]) -> None:
    scene = Scene()
    for _ in range(50):
        scene.door.entered(91, FakeSocket(192))
        scene.door.left(10)
    assert len(warnings) == 1
    scene.clock.advance(11)
    scene.door.entered(91, FakeSocket(192))
    assert len(warnings) == 2


def test_a_stopped_door_leaves_its_ports_alone() -> None:
    """A port that has stopped listening must not be read again."""
    scene = Scene()
    scene.door.entered(91, FakeSocket(192))
    scene.door.stop()
    scene.door.stop()
    scene.door.left(0)
    assert not scene.port.reading
    assert scene.clock.getDelayedCalls() == []


def test_the_lowest_free_descriptor_is_the_next_one_opened() -> None:
    free = Descriptors().lowest_free()
    opened = os.open(os.devnull, os.O_RDONLY)
    os.close(opened)
    assert free == opened
    assert Descriptors().limit() > free


def test_without_a_free_descriptor_all_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", fail)
    assert Descriptors().lowest_free() == Descriptors().limit()


def test_a_port_that_is_forgotten_is_left_alone() -> None:
    scene = Scene(most=1)
    scene.door.forget(scene.port)
    scene.door.entered(1, object())
    assert scene.port.reading

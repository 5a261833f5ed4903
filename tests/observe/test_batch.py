from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from socksd.events import SessionClosed
from socksd.observe.batch import DELAY, LINES, Batch
from tests.observe.closed import SERVED


class Scene:
    """A batch, and what it has written."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.written: list[Sequence[str]] = []
        self.batch = Batch(self.clock, self.line, self.written.append)

    @staticmethod
    def line(event: SessionClosed) -> str:
        return f"1/{event.session:.1f}={1 / event.session:.1f}"

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self.batch.add(replace(SERVED, session=number))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_lines_are_written_together_a_moment_after_the_first(scene: Scene) -> None:
    scene.end(1)
    scene.clock.advance(DELAY / 2)
    scene.end(2)
    assert scene.written == []
    scene.clock.advance(DELAY / 2)
    assert scene.written == [["1/1.0=1.0", "1/2.0=0.5"]]
    assert not scene.clock.getDelayedCalls()


def test_the_next_ones_wait_for_a_moment_of_their_own(scene: Scene) -> None:
    scene.end(1)
    scene.clock.advance(DELAY)
    scene.clock.advance(DELAY * 10)
    scene.end(2)
    assert len(scene.written) == 1
    scene.clock.advance(DELAY)
    assert len(scene.written) == 2


def test_no_more_than_so_many_wait(scene: Scene) -> None:
    scene.end(*range(1, 2 * LINES + 2))
    assert [len(lines) for lines in scene.written] == [LINES, LINES]
    scene.clock.advance(DELAY)
    assert [len(lines) for lines in scene.written] == [LINES, LINES, 1]


def test_nothing_is_written_where_the_last_were_just_too_many(scene: Scene) -> None:
    scene.end(*range(1, LINES + 1))
    scene.clock.advance(DELAY)
    assert [len(lines) for lines in scene.written] == [LINES]


def test_flushing_writes_what_waits_and_leaves_nothing(scene: Scene) -> None:
    scene.batch.flush()
    assert scene.written == []
    scene.end(1)
    scene.batch.flush()
    assert scene.written == [["1/1.0=1.0"]]
    assert not scene.clock.getDelayedCalls()


def test_a_session_without_a_line_costs_no_other_its_own(
    scene: Scene, logged_errors: list[dict[str, Any]]
) -> None:
    """Which would be a bug; whoever can cause it shall not make the log blind."""
    scene.end(1, 0, 2, 0)
    scene.clock.advance(DELAY)
    assert scene.written == [["1/1.0=1.0", "1/2.0=0.5"]]
    (error,) = logged_errors
    assert "failed on SessionClosed" in formatEvent(error)
    assert error["log_failure"].check(ZeroDivisionError)
    logged_errors.clear()


def test_a_moment_of_nothing_but_bugs_writes_nothing(
    scene: Scene, logged_errors: list[dict[str, Any]]
) -> None:
    scene.end(0)
    scene.clock.advance(DELAY)
    assert scene.written == []
    logged_errors.clear()

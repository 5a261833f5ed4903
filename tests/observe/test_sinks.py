"""Nobody who reads the standard output, or does not, holds anything up."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from socksd.observe import sinks
from socksd.observe.access import record
from socksd.observe.sinks import AGAIN, Outflow, OutputLog
from tests.observe.closed import DENIED, SERVED

LINE = "x" * 99 + "\n"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    with capturedLogs() as captured:
        yield cast("list[LogEvent]", captured)


class Pipe:
    """A pipe or a socket of which the test reads the far side."""

    def __init__(self, kind: str) -> None:
        if kind == "pipe":
            self.far, self.near = os.pipe()
        else:
            far, near = socket.socketpair()
            self.far, self.near = far.detach(), near.detach()
        os.set_blocking(self.far, False)

    def read(self) -> str:
        """All that is there."""
        found = b""
        try:
            while more := os.read(self.far, 1 << 16):
                found += more
        except BlockingIOError:
            pass
        return found.decode()

    def close(self) -> None:
        for each in (self.far, self.near):
            if each >= 0:
                os.close(each)


@pytest.fixture(params=["pipe", "socket"])
def pipe(request: pytest.FixtureRequest) -> Iterator[Pipe]:
    pipe = Pipe(request.param)
    yield pipe
    pipe.close()


def test_a_line_is_there_at_once(pipe: Pipe, clock: Clock) -> None:
    out = Outflow(pipe.near, clock)
    assert out.write(LINE) == len(LINE)
    out.flush()
    assert pipe.read() == LINE
    out.close()
    assert clock.getDelayedCalls() == []


def test_who_shares_the_descriptor_still_waits(pipe: Pipe, clock: Clock) -> None:
    """A shell whose terminal became non-blocking would be confused."""
    out = Outflow(pipe.near, clock)
    out.write(LINE)
    assert os.get_blocking(pipe.near)
    out.close()
    assert os.get_blocking(pipe.near), "and it is not closed"


def test_what_nobody_reads_is_kept_and_in_order(
    pipe: Pipe, clock: Clock, events: list[LogEvent]
) -> None:
    out = Outflow(pipe.near, clock)
    lines = [f"{number:0>99}\n" for number in range(5000)]
    for line in lines:
        out.write(line)
    found = pipe.read()
    assert len(found) < len(lines) * 100
    for _ in range(100):
        clock.advance(AGAIN)
        found += pipe.read()
    assert found == "".join(lines)
    assert (out.lost, events) == (0, [])
    assert clock.getDelayedCalls() == []
    out.close()


def test_what_others_write_there_comes_between_lines(clock: Clock) -> None:
    """A pipe takes up to PIPE_BUF octets whole or not at all."""
    pipe = Pipe("pipe")
    one, other = Outflow(pipe.near, clock), Outflow(pipe.near, clock)
    for _ in range(1500):
        one.write("1" * 298 + "\n")
    found = pipe.read()
    for _ in range(10):
        clock.advance(AGAIN)
        found += pipe.read()
        other.write("2" * 298 + "\n")
    found += pipe.read()
    assert found.count("2\n") == 10
    assert set(found.splitlines()) == {"1" * 298, "2" * 298}
    for out in (one, other):
        out.close()
    pipe.close()


def test_too_much_is_counted_and_said_once_and_once_more_at_the_end(
    pipe: Pipe, clock: Clock, events: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "BACKLOG", 10_000)
    out = Outflow(pipe.near, clock)
    for _ in range(10_000):
        out.write(LINE)
    clock.advance(AGAIN)
    lost = out.lost
    assert lost > 0
    (event,) = events
    assert event["log_level"] is LogLevel.error
    assert formatEvent(event) == (
        "standard output: nobody reads it; lines are lost until it can be written again"
    )
    found = pipe.read()
    clock.advance(AGAIN)
    found += pipe.read()
    assert found == LINE * (10_000 - lost)
    assert formatEvent(events[1]) == f"standard output: written again; lines lost so far: {lost}"
    out.write(LINE)
    assert len(events) == 2
    out.close()


def test_a_reader_that_is_gone_costs_lines_and_nothing_else(
    pipe: Pipe, clock: Clock, events: list[LogEvent]
) -> None:
    os.close(pipe.far)
    pipe.far = -1
    out = Outflow(pipe.near, clock)
    out.write(LINE + LINE)
    out.write(LINE)
    assert out.lost == 3
    (event,) = events
    assert "Broken pipe" in formatEvent(event)
    out.close()


def test_what_waits_at_the_end_is_offered_once_more(pipe: Pipe, clock: Clock) -> None:
    out = Outflow(pipe.near, clock)
    for _ in range(5000):
        out.write(LINE)
    before = len(pipe.read())
    out.close()
    assert len(pipe.read()) > 0 < before
    assert out.lost > 0
    assert clock.getDelayedCalls() == []


def test_the_log_for_people_may_be_what_is_stuck(
    pipe: Pipe, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be said of it comes back to itself."""
    monkeypatch.setattr(sinks, "BACKLOG", 1000)
    out = Outflow(pipe.near, clock)
    said: list[str] = []

    class Back:
        def error(self, text: str, **values: object) -> None:
            said.append(text)
            out.write(text + "\n")

        info = error

    monkeypatch.setattr(sinks, "_log", Back())
    for _ in range(10_000):
        out.write(LINE)
    pipe.read()
    clock.advance(AGAIN)
    assert len(said) == 2
    assert "written again" in pipe.read()
    out.close()


def test_a_file_is_written_where_others_write_it(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "out"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    out = Outflow(descriptor, clock)
    os.write(descriptor, b"before\n")
    out.write("between\n")
    os.write(descriptor, b"behind\n")
    out.close()
    os.close(descriptor)
    assert path.read_text() == "before\nbetween\nbehind\n"


def test_a_full_disk_is_said_by_its_name(clock: Clock, events: list[LogEvent]) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    out = Outflow(descriptor, clock)
    out.write(LINE)
    assert out.lost == 1
    assert "No space left on device" in formatEvent(events[0])
    out.close()
    os.close(descriptor)


def test_a_descriptor_that_is_closed_is_trouble_like_any_other(
    clock: Clock, events: list[LogEvent]
) -> None:
    out = Outflow(1 << 20, clock)
    out.write(LINE)
    assert out.lost == 1
    assert "Bad file descriptor" in formatEvent(events[0])
    out.close()


def test_nothing_is_held_before_there_is_something_to_say(pipe: Pipe, clock: Clock) -> None:
    """A daemon to be must not keep the terminal open that it will leave."""
    held = len(os.listdir("/proc/self/fd"))
    out = Outflow(pipe.near, clock)
    assert len(os.listdir("/proc/self/fd")) == held
    out.write(LINE)
    assert len(os.listdir("/proc/self/fd")) == held + 1
    out.close()
    assert len(os.listdir("/proc/self/fd")) == held
    Outflow(pipe.near, clock).close()


def test_what_is_no_unicode_is_written_all_the_same(pipe: Pipe, clock: Clock) -> None:
    out = Outflow(pipe.near, clock)
    out.write("\udcff\n")
    assert pipe.read() == "\\udcff\n"
    out.close()


def test_sessions_are_lines_of_the_standard_output(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    log = OutputLog(clock, record)
    log(SERVED)
    assert log.lost == 0
    log.close()
    log.open()
    log(replace(SERVED, session=1))
    log(DENIED)
    log(replace(SERVED, session=2, logged=False))
    log(replace(SERVED, session=3))
    log.close()
    out = capfd.readouterr().out
    assert [json.loads(line)["session"] for line in out.splitlines()] == [1, 3]
    assert log.lost == 0
    os.fstat(1)

"""What workers write becomes lines of the parent's log."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import (
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    formatEvent,
    textFileLogObserver,
)

from socksd.app.workers.said import LINE, Said, shares_standard_output
from socksd.observe.sinks import Outflow


def heard(*pieces: bytes) -> list[LogEvent]:
    events: list[LogEvent] = []
    said = Said(LogPublisher(events.append))
    for piece in pieces:
        said(piece)
    return events


@pytest.mark.parametrize(
    ("line", "namespace", "level", "text"),
    [
        ("2026-11-22T11:58:02+0000 [socksd#warn] denied", "socksd", LogLevel.warn, "denied"),
        ("2026-11-22T11:58:02+0000 [-] Port closed", "-", LogLevel.info, "Port closed"),
        ("2026-11-22T11:58:02+0000 [x#odd] {a} b", "x", LogLevel.info, "{a} b"),
        ("\tTraceback (most recent call last):", "socksd", LogLevel.info, None),
        ("Segmentation fault \xff", "socksd", LogLevel.info, "Segmentation fault \ufffd"),
    ],
    ids=["ours", "Twisted's", "no level of ours", "a traceback", "no line of a log"],
)
def test_a_line_is_what_it_was(line: str, namespace: str, level: Any, text: str | None) -> None:
    (event,) = heard(line.encode("latin-1") + b"\n")
    assert (event["log_namespace"], event["log_level"]) == (namespace, level)
    assert formatEvent(event) == (line if text is None else text)


def test_it_is_taken_apart_by_lines_and_not_by_pieces() -> None:
    events = heard(b"on", b"e\ntwo\nth", b"ree\n")
    assert [formatEvent(event) for event in events] == ["one", "two", "three"]


def test_a_line_without_an_end_does_not_fill_memory() -> None:
    events = heard(b"x" * LINE, b"x", b"y\n")
    assert [len(formatEvent(event)) for event in events] == [LINE + 1, 1]


def test_what_is_formatted_again_is_the_same() -> None:
    file = io.StringIO()
    Logger("socksd", observer=textFileLogObserver(file)).warn("a {b} [c#d]", b="{b}")
    again = io.StringIO()
    Said(cast("LogPublisher", textFileLogObserver(again)))(file.getvalue().encode())
    assert again.getvalue().partition(" ")[2] == file.getvalue().partition(" ")[2]


def test_only_a_log_on_the_standard_output_alone_is_shared() -> None:
    outflow = textFileLogObserver(cast("Any", Outflow(1, Clock())))
    file = textFileLogObserver(io.StringIO())
    assert shares_standard_output(LogPublisher(outflow))
    for observers in ([], [file], [outflow, file], [lambda event: None]):
        assert not shares_standard_output(LogPublisher(*observers))

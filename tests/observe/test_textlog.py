from __future__ import annotations

import errno
import io
from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.logger import (
    FileLogObserver,
    LogEvent,
    Logger,
    LogPublisher,
    capturedLogs,
    formatEventAsClassicLogText,
    jsonFileLogObserver,
    textFileLogObserver,
)

from socksd.observe.textlog import TextLog


class File(io.StringIO):
    """A file that counts what is written to it, and shows it when it is flushed."""

    writes = 0
    shown = ""

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)

    def flush(self) -> None:
        self.shown = self.getvalue()


class Scene:
    """A process with its log."""

    def __init__(self, observer: Callable[[Any], Any] = textFileLogObserver) -> None:
        self.file = File()
        self.now = 1_700_000_000.25
        self.publisher = LogPublisher(observer(self.file))
        self.log = TextLog(self.publisher, lambda: self.now)

    def usual(self, line: str) -> str:
        """What the line looks like by way of twisted.logger."""
        events: list[LogEvent] = []
        Logger("socksd", observer=cast("Any", events.append)).info("{line}", line=line)
        return formatEventAsClassicLogText({**events[0], "log_time": self.now}) or ""


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_lines_are_as_they_would_have_been_in_one_write(scene: Scene) -> None:
    scene.log.info(["session 1", "session 2"])
    assert scene.file.shown == scene.usual("session 1") + scene.usual("session 2")
    assert scene.file.writes == 1


def test_each_has_the_second_it_was_said_in(scene: Scene) -> None:
    before = scene.usual("one")
    scene.log.info(["one"])
    scene.now += 1
    scene.log.info(["two"])
    assert scene.file.shown == before + scene.usual("two")
    assert before[:19] != scene.usual("two")[:19]


def written_in_octets(file: File) -> FileLogObserver:
    """An observer of a file opened as twistd opens one."""

    class Binary(io.BytesIO):
        def write(self, octets: Any) -> int:
            file.write(octets.decode())
            return len(octets)

        def flush(self) -> None:
            file.flush()

    return textFileLogObserver(cast("Any", Binary()))


def test_a_binary_file_gets_octets() -> None:
    scene = Scene(written_in_octets)
    scene.log.info(["one"])
    assert scene.file.shown == scene.usual("one")


@pytest.mark.parametrize(
    "observer",
    [
        pytest.param(jsonFileLogObserver, id="JSON"),
        pytest.param(lambda file: lambda event: file.write("x"), id="no file"),
        pytest.param(lambda file: textFileLogObserver(file, None), id="text of another kind"),
    ],
)
def test_where_the_log_is_another_it_goes_the_usual_way(
    observer: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(observer)
    with capturedLogs() as events:
        scene.log.info(["{session} 1"])
    (event,) = events
    assert event["log_namespace"] == "socksd"
    assert formatEventAsClassicLogText(event) == (
        formatEventAsClassicLogText({**event, "log_format": "{line}", "line": "{session} 1"})
    )


def test_while_somebody_else_listens_it_goes_the_usual_way_and_loses_nothing(
    scene: Scene,
) -> None:
    scene.log.info(["one"])
    scene.publisher.addObserver(lambda event: None)
    scene.now += 1
    with capturedLogs() as events:
        scene.log.info(["two"])
    assert len(events) == 1
    assert scene.file.shown.count("one") == 1
    assert scene.file.shown.count("\n") == 1


def test_a_full_disk_stops_nothing_and_is_told_when_it_is_over(scene: Scene) -> None:
    """Lines that could not be written are counted, and said to be missing once."""
    write = File.write

    def full(file: File, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(File, "write", full)
        scene.log.info(["session 0", "session 1"])
        scene.log.info(["session 2"])
    assert File.write is write
    with capturedLogs() as events:
        scene.log.info(["session 3"])
        scene.log.info(["session 4"])
    said = [event for event in events if "lost" in event]
    assert [event["lost"] for event in said] == [3]
    assert "session 4" in scene.file.shown

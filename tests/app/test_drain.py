"""Watching a server until it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from socksd.admin.client import Unreachable
from socksd.app import drain

NOON = 1795348800.0


class Draining:
    """A server that drains, a clock, and what follows each look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[Any] = []
        self.seconds = 0.0
        self.sleep: Callable[[float], object] = self.wait
        monkeypatch.setattr(drain, "ask", self.ask)
        monkeypatch.setattr("time.time", lambda: NOON + self.seconds)
        monkeypatch.setattr("time.monotonic", lambda: self.seconds)
        monkeypatch.setattr("time.sleep", lambda seconds: self.sleep(seconds))

    def ask(self, socket: str, method: str, path: str) -> tuple[int, Any]:
        assert (socket, method, path) == ("/run/s", "GET", "/v1/status")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, tuple) else (200, answer)

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


def left(sessions: int) -> dict[str, Any]:
    return {"sessions": sessions, "draining_until": NOON + 60}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Draining:
    return Draining(monkeypatch)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(Unreachable("gone"), id="nobody answers"),
        pytest.param({"sessions": 0, "draining_until": None}, id="another one serves"),
        pytest.param({"sessions": 0}, id="an older one serves"),
        pytest.param((503, {"error": "?"}), id="something else answers"),
    ],
)
def test_what_is_left_is_said_whenever_it_changes(
    server: Draining, capsys: pytest.CaptureFixture[str], end: Any
) -> None:
    server.answers = [left(2), left(2), left(1), left(1), end]
    drain.follow("/run/s")
    assert capsys.readouterr().out.splitlines() == [
        "draining: 2 sessions are left, cut at 2026-11-22 12:01:00Z",
        "draining: 1 sessions are left, cut at 2026-11-22 12:01:00Z",
        "ended",
    ]
    assert server.seconds == 4 * drain.EVERY


def test_it_does_not_watch_for_ever(server: Draining) -> None:
    server.answers = [left(1)]
    with pytest.raises(SystemExit, match="should have ended by now"):
        drain.follow("/run/s")
    assert 60 + drain.GRACE < server.seconds < 61 + drain.GRACE


def test_who_stops_watching_stops_nothing_else(
    server: Draining, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [left(1)]

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    server.sleep = interrupted
    with pytest.raises(SystemExit) as caught:
        drain.follow("/run/s")
    assert caught.value.code == 130
    assert capsys.readouterr().out.splitlines()[1:] == ["the server goes on draining"]

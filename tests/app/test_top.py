"""The live view."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from rich.console import Console

from socksd.admin.client import Unreachable
from socksd.app import top
from socksd.app.main import main

STATUS = {"version": "1", "reloads": 2, "unconfirmed_until": None}


def session(number: int, up: int, **more: object) -> dict[str, Any]:
    return {
        "session": number,
        "client": "192.0.2.1",
        "user": None,
        "state": "relaying",
        "command": "connect",
        "destination": f"host{number}.example:443",
        "rule": "staff",
        "seconds": 90061.0,
        "up": up,
        "down": 0,
        **more,
    }


def drawn(what: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=140, color_system=None)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_rates_are_what_has_moved_since_the_last_look() -> None:
    rates = top.Rates()
    assert rates.look([session(1, 1000)], 10.0) == {1: 0.0}
    assert rates.look([session(1, 3000), session(2, 9999)], 12.0) == {1: 1000.0, 2: 0.0}
    assert rates.look([session(2, 9999)], 13.0) == {2: 0.0}


def test_what_moves_most_is_first() -> None:
    sessions = [session(1, 0), session(2, 0, user="al\x1b[2J", destination=None, state="open")]
    head, columns, first, second = drawn(
        top.frame(STATUS, {"count": 7, "sessions": sessions}, {1: 0.0, 2: 2048.0}, "rate")
    )
    assert head.strip() == "socksd 1  7 sessions  2.0 KiB/s  2 reloads"
    assert columns.split()[0] == "SESSION"
    assert first.split()[0] == "2"
    assert first.rstrip().endswith("2.0 KiB/s")
    assert "\\u001b" in first, "a user name cannot steer the terminal"
    assert "host1.example:443" in second
    assert "1 d 1 h" in second


def test_another_order_is_the_servers() -> None:
    sessions = [session(1, 0), session(2, 0)]
    lines = drawn(top.frame(STATUS, {"count": 2, "sessions": sessions}, {1: 0.0, 2: 1.0}, "octets"))
    assert [line.split()[0] for line in lines[2:]] == ["1", "2"]


def test_a_trial_is_not_overlooked() -> None:
    answer = {"count": 0, "sessions": []}
    assert (
        "on trial" in drawn(top.frame({**STATUS, "unconfirmed_until": 5.0}, answer, {}, "rate"))[0]
    )


def test_a_worker_that_does_not_answer_is_not_overlooked() -> None:
    (head, _) = drawn(top.frame(STATUS, {"count": 0, "sessions": [], "missing": [3]}, {}, "rate"))
    assert head.rstrip().endswith("worker 3 does not answer")


def test_it_looks_as_often_as_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    slept: list[float] = []

    def ask(path: str, method: str, at: str, body: Any = None) -> tuple[int, Any]:
        asked.append((at, body))
        return 200, STATUS if at == "/v1/status" else {"count": 1, "sessions": [session(1, 5)]}

    monkeypatch.setattr(top, "ask", ask)
    monkeypatch.setattr(top.time, "sleep", slept.append)
    main(["top", "--times", "2", "--every", "3", "--socket", "/run/x", "--sort", "seconds"])
    assert asked[1::2] == [("/v1/sessions", {"sort": "-seconds", "limit": 200})] * 2
    assert slept == [3.0]
    assert "host1" in capsys.readouterr().out


def test_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(top, "ask", ask)
    main(["top"])


def test_no_server_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(*_: object) -> Any:
        raise Unreachable("no server listens at /run/x")

    monkeypatch.setattr(top, "ask", ask)
    with pytest.raises(SystemExit) as caught:
        main(["top"])
    assert caught.value.code == 3
    assert capsys.readouterr().err == "socksd: no server listens at /run/x\n"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(SystemExit, match=r"pip install 'socksd\[tui\]'"):
        main(["top"])


@pytest.mark.parametrize("seconds", ["0", "fast", "1e9", "nan"])
def test_a_pace_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    with pytest.raises(SystemExit):
        main(["top", "--every", seconds])
    assert "is not 0.1 to 3600 seconds" in capsys.readouterr().err

"""The commands that ask a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from socksd.admin.client import Unreachable
from socksd.app import remote
from socksd.app.main import main


class Server:
    """Stands in for the one that would be asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answer: tuple[int, Any] = 200, {"rules": []}
        self.error: Exception | None = None

    def ask(self, *arguments: Any) -> tuple[int, Any]:
        self.asked.append(arguments)
        if self.error:
            raise self.error
        return self.answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(remote, "ask", server.ask)
    return server


RELOADED = {"refused_sessions": {"count": 0, "fate": "kept"}, "unconfirmed_until": None}


@pytest.mark.parametrize(
    ("words", "asked", "answer"),
    [
        (["reload"], ("POST", "/v1/reload", None), RELOADED),
        (["reload", "--confirm", "5m"], ("POST", "/v1/reload", {"confirm": 300.0}), RELOADED),
        (["confirm"], ("POST", "/v1/confirm", None), {}),
        (["rules"], ("GET", "/v1/rules", None), {"rules": []}),
        (["leaks"], ("GET", "/v1/leaks", None), {"clients": 0, "leaks": []}),
        (["config"], ("GET", "/v1/config", None), {"config": {"version": 1}}),
        (["sessions"], ("GET", "/v1/sessions", None), {"count": 0, "sessions": []}),
        (
            ["sessions", "--to", ".example", "--sort=-up", "--limit", "5"],
            ("GET", "/v1/sessions", {"to": ".example", "sort": "-up", "limit": 5}),
            {"count": 0, "sessions": []},
        ),
        (["kill", "7", "9"], ("POST", "/v1/kill", {"session": [7, 9]}), {"killed": 2}),
        (
            ["kill", "--user", "a", "--client", "10.0.0.0/8", "--rule", "r", "--listener", "l"],
            (
                "POST",
                "/v1/kill",
                {"client": "10.0.0.0/8", "user": "a", "rule": "r", "listener": "l"},
            ),
            {"killed": 2},
        ),
    ],
    ids=[
        "reload",
        "on trial",
        "confirm",
        "rules",
        "leaks",
        "config",
        "sessions",
        "some sessions",
        "kill by number",
        "kill by what they are",
    ],
)
def test_each_command_is_one_question(
    server: Server,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    asked: tuple[Any, ...],
    answer: Any,
) -> None:
    server.answer = 200, answer
    main(words)
    assert server.asked == [("/run/socksd/control.sock", *asked)]
    written = capsys.readouterr()
    assert written.out
    assert not written.err
    main([*words, "--json"])
    assert json.loads(capsys.readouterr().out) == answer


def test_the_socket_is_named_or_found_in_the_configuration(server: Server, tmp_path: Path) -> None:
    """However broken the rest of it is: a reload is there to say so."""
    file = tmp_path / "socksd.toml"
    file.write_text('nonsense = 1\n[control]\nsocket = "/run/here"\n')
    main(["rules", "--socket", "/run/there"])
    main(["rules", "--config", str(file)])
    assert [asked[0] for asked in server.asked] == ["/run/there", "/run/here"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(None, "cannot read {}: No such file or directory", id="no file"),
        pytest.param("= 1", "cannot read {}: ", id="no TOML"),
        pytest.param("", "{} names no [control] socket", id="no table"),
        pytest.param("control = 1", "{} names no [control] socket", id="no table but a key"),
        pytest.param('[control]\nsocket = ""', "{} names no [control] socket", id="none"),
    ],
)
def test_a_configuration_that_names_no_socket_is_one_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    file = tmp_path / "socksd.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as caught:
        main(["rules", "--config", str(file)])
    assert caught.value.code == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("socksd: " + said.format(file))
    assert server.asked == []


def test_what_the_server_refuses_is_a_line_for_each_problem(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [{"path": "a", "message": "x"}, {"path": "", "message": "y"}]
    server.answer = 422, {"error": "not loaded", "problems": problems}
    with pytest.raises(SystemExit) as caught:
        main(["reload"])
    assert caught.value.code == 1
    assert capsys.readouterr().err == "socksd: a: x\nsocksd: y\n"
    with pytest.raises(SystemExit) as caught:
        main(["reload", "--json"])
    assert caught.value.code == 1
    assert json.loads(capsys.readouterr().out)["problems"] == problems


def test_an_answer_without_some_workers_says_so(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = 200, {"killed": 2, "missing": [3]}
    main(["kill", "7"])
    said = capsys.readouterr()
    assert said.out == "2 sessions ended\n"
    assert said.err == "socksd: worker 3 does not answer\n"


def test_no_server_has_a_status_of_its_own(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.error = Unreachable("no server listens at /run/s")
    with pytest.raises(SystemExit) as caught:
        main(["status"])
    assert caught.value.code == 3
    assert capsys.readouterr().err == "socksd: no server listens at /run/s\n"


def test_a_drain_is_asked_for_and_watched(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watched: list[str] = []
    monkeypatch.setattr("socksd.app.drain.follow", watched.append)
    server.answer = 200, {"sessions": 2, "draining_until": 0.0}
    main(["drain", "--within", "5m", "--socket", "/run/s"])
    assert server.asked == [("/run/s", "POST", "/v1/drain", {"seconds": 300.0})]
    assert watched == ["/run/s"]
    assert capsys.readouterr().out == ""
    main(["drain", "--within", "0s", "--json"])
    assert server.asked[1:] == [("/run/socksd/control.sock", "POST", "/v1/drain", {"seconds": 0.0})]
    assert json.loads(capsys.readouterr().out)["sessions"] == 2
    assert len(watched) == 1, "a program is not kept waiting"


def test_a_drain_that_is_refused_is_not_watched(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socksd.app.drain.follow", pytest.fail)
    server.answer = 409, {"error": "it is draining already"}
    with pytest.raises(SystemExit) as caught:
        main(["drain", "--within", "5m"])
    assert caught.value.code == 1


def test_a_time_that_is_none_is_said(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["reload", "--confirm", "5"])
    assert caught.value.code == 2
    assert "'5' is not a duration" in capsys.readouterr().err
    assert server.asked == []

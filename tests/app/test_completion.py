"""What a shell completes is what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from socksd.admin.client import Unreachable
from socksd.app import completion
from socksd.app.completion import FILE, NOTHING, TEXT, Argument, Command, commands_of
from socksd.app.main import main, whole_parser

SHIPPED = Path(__file__).parent.parent.parent / "etc" / "completion"
COMMANDS = {command.name: command for command in commands_of(whole_parser())}


@pytest.mark.parametrize(
    ("shell", "path"),
    [("bash", "bash/socksd"), ("fish", "fish/socksd.fish"), ("zsh", "zsh/_socksd")],
)
def test_what_is_shipped_is_what_it_writes(
    shell: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """To put it right: socksd completion SHELL > etc/completion/..."""
    main(["completion", shell])
    written = capsys.readouterr().out
    assert (SHIPPED / path).read_text() == written
    assert "%(" not in written


def kinds(command: str) -> dict[str, str]:
    return {flag: each.kind for each in COMMANDS[command].options() for flag in each.flags}


def test_each_option_completes_what_it_takes() -> None:
    assert kinds("check") == {
        "-h": NOTHING,
        "--help": NOTHING,
        "--log": FILE,
        "--strict": NOTHING,
        "--json": NOTHING,
    }
    assert COMMANDS["check"].operands() == [Argument((), FILE, "")]
    sessions = kinds("sessions")
    assert (sessions["--rule"], sessions["--listener"]) == ("rule", "listener")
    assert (sessions["--user"], sessions["--socket"]) == (TEXT, FILE)
    assert kinds("explain")["--listener"] == TEXT, "there is no server to ask"
    assert kinds("top")["--sort"] == "rate octets seconds session"
    assert [each.kind for each in COMMANDS["kill"].operands()] == ["session"]
    assert [each.kind for each in COMMANDS["explain"].operands()] == ["bind connect udp", TEXT]
    assert [each.kind for each in COMMANDS["passwd"].operands()] == [FILE, TEXT]


def test_to_run_it_takes_what_twistd_takes() -> None:
    options = {flag: option for option in COMMANDS["run"].options() for flag in option.flags}
    assert options["-c"] is options["--config"]
    assert options["--config"].kind == FILE
    assert options["--listen"].kind == TEXT
    assert options["--listen"].help.startswith("Listen on this Twisted endpoint")
    assert options["--check"].kind == NOTHING


def test_what_is_said_of_an_option_is_no_syntax() -> None:
    nasty = (Command("x", "it's", (Argument(("--it",), TEXT, "it's [a] b:c \\"),)),)
    assert "'*--it=[it'\"'\"'s \\[a\\] b\\:c \\\\]:value: '" in completion.zsh(nasty)
    assert r"-l it -x -d 'it\'s [a] b:c \\'" in completion.fish(nasty)


@pytest.mark.parametrize(
    ("what", "path", "answer"),
    [
        ("rule", "/v1/rules", {"rules": [{"id": "one"}, {"id": "two"}]}),
        ("listener", "/v1/status", {"listeners": [{"name": "one"}, {"name": "two"}]}),
        ("session", "/v1/sessions", {"sessions": [{"session": "one"}, {"session": "two"}]}),
    ],
)
def test_what_a_running_server_has_is_a_line_each(
    what: str,
    path: str,
    answer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[tuple[Any, ...]] = []

    def ask(*words: Any, seconds: float) -> tuple[int, Any]:
        asked.append((*words, seconds))
        return 200, answer

    monkeypatch.setattr(completion, "ask", ask)
    main(["completion", "--live", what, "--socket", "/run/s"])
    assert asked == [("/run/s", "GET", path, completion.SECONDS)]
    assert capsys.readouterr().out == "one\ntwo\n"


def test_who_does_not_answer_has_nothing_to_complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["completion", "--live", "rule", "--socket", "/nowhere"])
    monkeypatch.setattr(completion, "ask", lambda *_, seconds: (409, {"error": "no"}))
    main(["completion", "--live", "rule"])
    monkeypatch.setattr("socksd.app.remote.socket_of", refuse)
    main(["completion", "--live", "rule", "--config", "/nowhere"])
    written = capsys.readouterr()
    assert (written.out, written.err) == ("", "")


def refuse(_: str) -> str:
    raise Unreachable("it names no socket")


@pytest.mark.parametrize("words", [[], ["bash", "--live", "rule"], ["tcsh"]])
def test_one_thing_at_a_time(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["completion", *words])
    assert caught.value.code == 2

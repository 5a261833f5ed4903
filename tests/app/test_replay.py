"""``socksd replay``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from socksd.app.main import main
from tests.policy.test_propose import ALICE, BOB, visit
from tests.policy.test_replay import ALL, Visit, log
from tests.policy.test_rules import policy

NEW = """
version = 1
[guard]
never = "nothing"
private = "open"
[[rule]]
id = "no-mail"
action = "deny"
ports = [25]
[[rule]]
id = "all"
action = "allow"
"""
SESSION = "as session 1 of 10.1.0.1 at 2026-01-01T00:00:00.500000Z"
MAIL = visit("mail.example", BOB, port=25)


@pytest.fixture
def new(tmp_path: Path) -> str:
    path = tmp_path / "new.toml"
    path.write_text(NEW)
    return str(path)


@pytest.fixture
def access(tmp_path: Path) -> str:
    """Three sessions, of which NEW denies one."""
    return written(tmp_path / "access.jsonl", visit("a.example", ALICE), MAIL, visit("::1", BOB))


def written(path: Path, *visits: Visit) -> str:
    path.write_text("".join(log(policy(ALL), *visits)))
    return str(path)


def test_what_changes_is_listed_with_an_example(
    new: str, access: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["replay", new, "--log", access])
    assert capsys.readouterr().out.splitlines() == [
        "1 of 3 sessions would change; 0 more would be decided by another rule",
        "",
        "allow by all -> deny by no-mail: 1",
        f"          1  bob  mail.example:25  {SESSION}",
    ]


def test_everything_is_there_for_programs(
    new: str, access: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(access).open("a") as file:
        file.write("{torn\n")
    main(["replay", new, "--log", access, "--json"])
    assert json.loads(capsys.readouterr().out) == {
        "sessions": 3,
        "changed": 1,
        "other_rule": 0,
        "unused": {"torn": 1},
        "groups": [
            {
                "before": {"verdict": "allow", "rule": "all"},
                "after": {"verdict": "deny", "rule": "no-mail"},
                "user": "bob",
                "destination": "mail.example:25",
                "count": 1,
                "example": {
                    "time": "2026-01-01T00:00:00.500000Z",
                    "session": "1",
                    "client": "10.1.0.1",
                },
            }
        ],
    }


@pytest.mark.parametrize(("over", "fails"), [("0", True), ("1", False), (None, False)])
def test_status_1_means_more_changes_than_are_to_be(
    new: str, access: str, over: str | None, fails: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["replay", new, "--log", access]
    arguments += [] if over is None else ["--fail-over", over]
    if fails:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 1
    else:
        main(arguments)
    assert "1 of 3" in capsys.readouterr().out


@pytest.mark.parametrize("over", ["-1", "few"])
def test_a_bad_number_is_a_mistake_on_the_command_line(new: str, access: str, over: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["replay", new, "--log", access, "--fail-over", over])
    assert caught.value.code == 2


def test_another_rule_is_information_and_no_failure(
    tmp_path: Path, new: str, access: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(new).write_text(NEW.replace("no-mail", "mail").replace('"deny"', '"allow"'))
    main(["replay", new, "--log", access, "--fail-over", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 of 3 sessions would change; 1 more would be decided by another rule"
    assert lines[2] == "allow, by mail instead of all: 1"


def test_a_configuration_takes_the_place_of_the_logs_verdicts(
    new: str, access: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["replay", new, "--log", access, "--old", new])
    assert capsys.readouterr().out.startswith("0 of 3 sessions would change; 0 more")


def test_of_many_the_most_frequent_are_shown(
    tmp_path: Path, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [visit(f"{n:02}.example", BOB, port=25) for n in range(12)]
    access = written(tmp_path / "log", *many, many[7], many[11], many[11])
    main(["replay", new, "--log", access])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "allow by all -> deny by no-mail: 15"
    assert [line.split()[:3] for line in lines[3:6]] == [
        ["3", "bob", "11.example:25"],
        ["2", "bob", "07.example:25"],
        ["1", "bob", "00.example:25"],
    ]
    assert lines[13:] == ["          2  of 2 others"]


def test_what_the_log_cannot_know_is_explained(
    tmp_path: Path, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    path.write_text("".join(log(policy(), visit("a.example"))))
    main(["replay", new, "--log", str(path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == [
        "deny by default -> defer: 1",
        f"          1  -  -  {SESSION}",
    ]
    assert lines[-1].startswith("defer: ")


def test_lines_that_say_nothing_are_counted(
    new: str, access: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(access).open("a") as file:
        file.write('{"time":\n{}\n{}\n')
    main(["replay", new, "--log", access])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == [
        "not used: 1 line torn, or no JSON objects",
        "not used: 2 lines without what a decision uses, as older versions wrote them",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"user": "\x1b[2J"}, id="user"),
        pytest.param({"host": "\x1b[2J"}, id="host"),
        pytest.param({"time": "\x1b[2J"}, id="time"),
        pytest.param({"session": "\x1b[2J \u202e"}, id="session"),
        pytest.param({"rule": "\x1b[2J"}, id="rule"),
    ],
)
def test_nothing_in_a_log_commands_the_terminal(
    tmp_path: Path, new: str, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    path.write_text(json.dumps(json.loads(log(policy(ALL), MAIL)[0]) | changes) + "\n")
    main(["replay", new, "--log", str(path)])
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert r"\u001b[2J" in out


def test_what_is_wrong_with_a_configuration_is_said(tmp_path: Path, access: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("version = 1\n[[rule]]\nid = 'x'\n[[rule]]\nid = 'y'\n")
    with pytest.raises(SystemExit) as caught:
        main(["replay", str(path), "--log", access])
    assert (
        caught.value.code
        == "socksd: rule[0].action: is missing\nsocksd: rule[1].action: is missing"
    )

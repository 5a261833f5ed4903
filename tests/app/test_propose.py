"""``socksd propose``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from socksd.app.config import parse_config
from socksd.app.main import main
from socksd.policy.cases import failures
from socksd.policy.replay import replay
from tests.app.test_replay import written
from tests.policy.test_propose import ALICE, BOB, CAROL, visit
from tests.policy.test_replay import ALL, log
from tests.policy.test_rules import policy

VISITS = [
    *(visit(f"{letter}.d.example", who) for letter in "abc" for who in (ALICE, BOB)),
    visit("db.example", ALICE, "10.7.0.4", port=5432),
]


@pytest.fixture
def access(tmp_path: Path) -> str:
    return written(tmp_path / "access.jsonl", *VISITS)


def proposed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    main(["propose", *arguments])
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_proposal_is_a_configuration_with_tests(
    access: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = proposed(capsys, "--log", access)
    assert err == ""
    assert out == (
        "# Allows 7 sessions by 2 rules.\n"
        "# For each host seen a suffix or a network holds 1 unseen at most.\n"
        "version = 1\n"
        "\n"
        "# Decides 6 sessions; is for 3 hosts and holds 2 more.\n"
        "[[rule]]\n"
        'id = "seen-1"\n'
        'action = "allow"\n'
        'user = ["alice", "bob"]\n'
        'command = "connect"\n'
        'to = [".d.example"]\n'
        "ports = [443]\n"
        "\n"
        "# Decides 1 session; is for 1 host.\n"
        "[[rule]]\n"
        'id = "seen-2"\n'
        'action = "allow"\n'
        'user = ["alice"]\n'
        'command = "connect"\n'
        'to = ["db.example"]\n'
        'resolves_to = ["10.7.0.4"]\n'
        "ports = [5432]\n"
        "\n"
        "[[test]]\n"
        'as = { from = "10.1.0.1", user = "alice", connect = "a.d.example:443" }\n'
        'resolves = ["192.0.2.1"]\n'
        'expect = { action = "allow", rule = "seen-1" }\n'
        "\n"
        "[[test]]\n"
        'as = { from = "10.1.0.1", user = "alice", connect = "db.example:5432" }\n'
        'resolves = ["10.7.0.4"]\n'
        'expect = { action = "allow", rule = "seen-2" }\n'
    )


def test_the_proposal_allows_the_log_it_was_made_of(
    access: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = proposed(capsys, "--log", access)
    config = parse_config(out, "the proposal")
    assert config.test
    assert list(failures(config.policy(), config.test)) == []
    replayed = replay(log(policy(ALL), *VISITS), config.policy())
    assert (replayed.sessions, replayed.changed) == (7, 0)


def test_the_bound_can_be_none_at_all(access: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = proposed(capsys, "--log", access, "--bound", "0")
    assert 'to = ["a.d.example", "b.d.example", "c.d.example"]' in out


@pytest.mark.parametrize("bound", ["-1", "inf", "nan", "much"])
def test_a_bad_bound_is_a_mistake_on_the_command_line(access: str, bound: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["propose", "--log", access, f"--bound={bound}"])
    assert caught.value.code == 2


def test_what_is_left_out_is_said(access: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Path(access).open("a") as file:
        file.write("{}\n")
    _, err = proposed(capsys, "--log", access, "--user", "bob")
    assert err == (
        "socksd: left out: 4 sessions that were of others\n"
        "socksd: not used: 1 line without what a decision uses, as older versions wrote them\n"
    )


def test_a_groups_rules_come_with_the_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    access = written(tmp_path / "log", visit("a.example", BOB), visit("b.example", CAROL))
    config = tmp_path / "socksd.toml"
    config.write_text('version = 1\n[groups]\nops = ["bob"]\n')
    out, _ = proposed(capsys, "--log", access, "--config", str(config), "--group", "ops")
    assert parse_config(out, "the proposal").groups["ops"].users == {"bob"}
    (rule,) = tomllib.loads(out)["rule"]
    assert (rule["group"], rule["to"]) == ("ops", ["a.example", "b.example"])


def test_a_group_may_be_known_to_the_authenticator_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    access = written(tmp_path / "log", visit("b.example", CAROL))
    out, _ = proposed(capsys, "--log", access, "--group", "ops")
    assert tomllib.loads(out)["groups"] == {"ops": []}
    assert tomllib.loads(out)["test"][0]["as"]["group"] == "ops"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(["--group", "o p s"], "socksd: groups", id="group"),
        pytest.param(["--config", "no-such-file"], "socksd: cannot read", id="configuration"),
    ],
)
def test_what_is_wrong_is_said(access: str, arguments: list[str], problem: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["propose", "--log", access, *arguments])
    assert str(caught.value.code).startswith(problem)


def test_the_guard_is_that_of_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    access = written(tmp_path / "log", visit("127.0.0.1"))
    out, err = proposed(capsys, "--log", access)
    assert "rule" not in tomllib.loads(out)
    assert "left out: 1 session that led where the guard" in err
    config = tmp_path / "socksd.toml"
    config.write_text('version = 1\n[guard]\nnever = ["link-local"]\n')
    out, _ = proposed(capsys, "--log", access, "--config", str(config))
    assert tomllib.loads(out)["rule"][0]["to"] == ["127.0.0.1"]


@pytest.mark.parametrize("user", ["CORP\\alice", 'a "b"', "zoë", "\U0001f600", "a.b", "x" * 200])
def test_whatever_a_user_is_called_stands_in_the_proposal(
    tmp_path: Path, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from socksd.facts import Principal

    access = written(tmp_path / "log", visit("a.example", Principal(user)))
    out, _ = proposed(capsys, "--log", access)
    tables: dict[str, Any] = tomllib.loads(out)
    assert tables["rule"][0]["user"] == [user]
    assert tables["test"][0]["as"]["user"] == user
    parse_config(out, "the proposal")


def test_a_long_list_has_a_line_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = [f"host.{letter * 20}.example" for letter in "abcd"]
    access = written(tmp_path / "log", *(visit(host) for host in hosts))
    out, _ = proposed(capsys, "--log", access)
    assert f'to = [\n    "{hosts[0]}",\n    "{hosts[1]}",\n' in out
    assert tomllib.loads(out)["rule"][0]["to"] == hosts

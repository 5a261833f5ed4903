"""``socksd check``."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from socksd.address import Destination
from socksd.app.main import main
from socksd.codes import Command
from socksd.observe.access import record
from tests.observe.closed import SERVED

GOOD = """
[[rule]]
id = "web"
action = "allow"
user = "@any"
ports = [80, 443]
[[test]]
as = { from = "192.0.2.7", user = "alice", connect = "198.51.100.1:80" }
expect = { action = "allow", rule = "web" }
"""
SHADOWED = GOOD + '[[rule]]\nid = "x"\naction = "deny"\nuser = "@any"\nports = 80\n'
FAILING = GOOD.replace(":80", ":81")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "socksd.toml"


def check(*arguments: object) -> int | str | None:
    """Give the status, or what would be told on stderr."""
    try:
        main(["check", *map(str, arguments)])
    except SystemExit as error:
        return error.code
    return 0


def written(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_good_configuration_is_called_good(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(GOOD)
    assert check(file, "--strict") == 0
    assert capsys.readouterr().out == "socksd: the configuration is good\n"


def test_without_rules_there_is_nothing_to_warn_of(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("")
    assert check(file, "--strict") == 0


def test_all_problems_are_told_with_status_1(file: Path) -> None:
    file.write_text(FAILING + '[resolver]\nvia = "carrier pigeon"\n')
    told = str(check(file))
    assert [line.partition(": ")[2].partition(":")[0] for line in told.splitlines()] == [
        "resolver.via",
        "test[0]",
    ]
    assert (
        "socksd: test[0]: expected allow by 'web', but it is denied by 'default';"
        " 'web' has ports = 80, 443, and this is 81" in told
    )


def test_problems_that_need_no_running_are_told_alike(file: Path) -> None:
    file.write_text(GOOD + "[limits]\nsesions = 1\n[[test]]\n")
    assert str(check(file)).splitlines() == [
        "socksd: limits.sesions: there is no such key; did you mean 'sessions'?",
        "socksd: test[1].as: is missing",
        "socksd: test[1].expect: is missing",
    ]


def test_warnings_count_only_where_that_was_asked_for(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(SHADOWED)
    assert check(file) == 0
    assert capsys.readouterr().out == (
        "warning: rule 'x' can never match: 'web' before it takes all that it would"
        " [unreachable]\nsocksd: the configuration is good\n"
    )
    assert check(file, "--strict") == 2


def test_json_has_the_shape_that_is_documented(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(SHADOWED)
    assert check(file, "--json", "--strict") == 2
    assert written(capsys) == {
        "good": True,
        "tests": 1,
        "problems": [],
        "warnings": [
            {
                "code": "unreachable",
                "rule": "x",
                "message": "can never match: 'web' before it takes all that it would",
                "because": ["web"],
            }
        ],
    }
    file.write_text("version = 2")
    assert check(file, "--json") == 1
    assert written(capsys) == {
        "good": False,
        "tests": 0,
        "problems": [{"path": "version", "message": "must be 1, not 2"}],
        "warnings": [],
    }


def test_a_log_tells_who_sends_addresses(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(GOOD + '[[rule]]\nid = "ads"\naction = "deny"\nto = "ads.example"\n')
    literal = replace(
        SERVED,
        command=Command.CONNECT,
        destination=Destination(ip_address("192.0.2.1"), 443),
        address=None,
    )
    log = tmp_path / "access.jsonl"
    log.write_text(record(literal) + "\n" + record(literal)[:40] + "\ncaf\xe9\n", "latin-1")
    assert check(file, "--log", log, "--json") == 0
    codes = [each["code"] for each in written(capsys)["warnings"]]
    assert codes == ["addresses-sent"]
    assert check(file, "--log", tmp_path / "none") == (
        f"socksd: cannot read {tmp_path}/none: No such file or directory"
    )


def test_start_and_check_refuse_a_policy_that_fails_its_tests(file: Path) -> None:
    from socksd.app.tap import Options

    file.write_text(FAILING)
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions([f"--config={file}"])
    assert "test[0]: expected allow" in str(caught.value.code)

"""``socksd explain``."""

from __future__ import annotations

import io
import json
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from socksd.address import Destination
from socksd.app.main import main
from socksd.codes import Command
from socksd.events import Asked
from socksd.observe.access import record
from tests.observe.closed import SERVED

POLICY = """
[[listener]]
name = "office"
endpoint = "tcp:0:interface=127.0.0.1"
[[listener]]
name = "lab"
endpoint = "tcp:0:interface=127.0.0.1"
[groups]
dba = ["alice"]
[[rule]]
id = "no-mail"
action = "deny"
ports = 25
log = false
text = "Mail goes through mail.example.com."
[[rule]]
id = "trial"
action = "deny"
mode = "report"
to = ".example"
[[rule]]
id = "db"
action = "allow"
group = "dba"
to = ".example"
resolves_to = "10.1.0.0/16"
ports = 5432
when = "mon-fri 07:00-20:00 Europe/Berlin"
[[rule]]
id = "web"
action = "allow"
user = "@any"
ports = 80
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "socksd.toml"
    path.write_text(POLICY)
    return str(path)


@pytest.fixture
def explain(config: str, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> str:
        main(["explain", "--config", config, *arguments])
        return capsys.readouterr().out

    return run


DB = ["--from", "10.1.0.1", "--user", "alice", "connect", "db.example:5432"]


def test_every_rule_is_shown_with_the_first_condition_that_failed(explain: Any) -> None:
    out = explain(*DB, "--at", "tue 10:00", "--resolves", "10.2.0.7")
    assert out == (
        "alice, from 10.1.0.1 at office, tue 10:00 Europe/Berlin: connect db.example:5432\n"
        "\n"
        "first octets: defer by no-mail\n"
        "request: defer by db\n"
        "address 10.2.0.7: deny by default, trial would deny\n"
        "\n"
        "   deny   no-mail  ports = 25; this is 5432\n"
        "   deny   trial    matches, on trial\n"
        "   allow  db       resolves_to = 10.1.0.0/16; this is 10.2.0.7\n"
        "   allow  web      ports = 80; this is 5432\n"
        "=> deny   default  matches\n"
        "\n"
        "denied by default\n"
        "and otherwise\n"
        "  with resolves = 10.1.0.1: allowed by db\n"
        "  if rule db had 10.2.0.7 in resolves_to\n"
    )


def test_each_address_has_its_verdict_and_the_guard_its_word(explain: Any) -> None:
    out = explain(
        "--from", "10.1.0.1", "--user", "bob", "connect", "w.example:80",
        "--resolves", "127.0.0.1", "64:ff9b::a00:1", "198.51.100.1",
    )  # fmt: skip
    assert "address 127.0.0.1: deny by guard (loopback), trial would deny\n" in out
    assert "address 64:ff9b::a00:1 as 10.0.0.1: deny by guard (private), trial" in out
    assert "address 198.51.100.1: allow by web, trial would deny\n" in out
    assert "=> allow  web      matches\n" in out
    assert "\nallowed by web\n" in out


CARRIED = """
[limit.bulk]
bandwidth = "20MB/s"
[limit.long]
idle = "2h"
[route.second]
source = ["127.0.0.9", "::1"]
[[rule]]
id = "backup"
action = "allow"
ports = 873
limits = "bulk"
route = "second"
[[rule]]
id = "shell"
action = "allow"
ports = 22
limits = "long"
"""


@pytest.mark.parametrize(
    ("port", "lines", "route", "limit"),
    [
        (
            873,
            "  by route second, from 127.0.0.9 and ::1\n  within limit bulk: 20MB/s, 900 s idle\n",
            {"name": "second", "source": ["127.0.0.9", "::1"]},
            {"name": "bulk", "bandwidth": 20_000_000, "idle": 900.0},
        ),
        (
            22,
            "  by route direct\n  within limit long: 7200 s idle\n",
            {"name": "direct", "source": []},
            {"name": "long", "bandwidth": None, "idle": 7200.0},
        ),
        (80, "  by route direct\nand", {"name": "direct", "source": []}, None),
        (25, None, None, None),
    ],
)
def test_who_is_allowed_sees_by_which_way_and_within_what(
    explain: Any, config: str, port: int, lines: str | None, route: object, limit: object
) -> None:
    Path(config).write_text(POLICY + CARRIED)
    question = ["--from", "10.1.0.1", "--user", "bob", "connect", f"198.51.100.1:{port}"]
    out = explain(*question)
    if lines is None:
        assert "by route" not in out
    else:
        assert lines in out
    found = json.loads(explain("--json", *question))
    assert (found["route"], found["limit"]) == (route, limit)


@pytest.mark.parametrize("command", ["bind", "udp"])
def test_where_a_route_is_for_connections_only_that_is_said(
    explain: Any, config: str, command: str
) -> None:
    Path(config).write_text(POLICY + CARRIED)
    out = explain("--from", "10.1.0.1", "--user", "bob", command, "198.51.100.1:873")
    assert f"from 127.0.0.9 and ::1\n  by which there is no {command}, so it is refused\n" in out
    assert "refused" not in explain("--from", "10.1.0.1", command, "198.51.100.1:22")


def test_what_the_guard_takes_back_is_shown_at_the_rule(explain: Any) -> None:
    out = explain(
        "--from", "10.1.0.1", "--user", "bob", "connect", "w.example:80", "--resolves", "10.0.0.1"
    )
    assert "=> allow  web      matches, but the guard says no: private\n" in out
    assert "denied by guard\n" in out
    assert "  if rule web had 10.0.0.1 in resolves_to\n" in out


def test_what_was_refused_early_has_the_rules_text_and_what_was_not_asked(explain: Any) -> None:
    out = explain("--from", "10.1.0.1", "--listener", "lab", "connect", "a.example:25")
    assert "nobody, without login, from 10.1.0.1 at lab" in out
    assert "   not asked: trial, db, web\n" in out
    assert (
        "denied by no-mail\n  Mail goes through mail.example.com.\n"
        "  (such a session leaves no line in the logs)\n"
    ) in out
    assert "address" not in out


def test_without_an_answer_of_the_name_server_it_is_not_settled(explain: Any) -> None:
    out = explain(*DB, "--at", "tue 10:00 UTC")
    assert "address: not known yet (--resolves ADDRESS, or --lookup)\n" in out
    assert "allow  db       depends on resolves_to = 10.1.0.0/16; this is not known yet\n" in out
    assert out.endswith("\nnot settled by db\n")


def test_names_are_looked_up_only_where_that_was_said(
    explain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def getaddrinfo(host: str, port: object, *, type: object) -> list[Any]:  # noqa: A002 -- as socket calls it
        asked.append(host)
        return [(2, 1, 6, "", ("198.51.100.1", 0)), (10, 1, 6, "", ("2001:db8::1", 0, 0, 0))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    web = ["--from", "10.1.0.1", "--user", "bob", "connect"]
    explain(*web, "w.example:80")
    explain(*web, "192.0.2.1:80", "--lookup")
    assert asked == []
    out = explain(*web, "w.example:80", "--lookup", "--json")
    assert asked == ["w.example"]
    assert json.loads(out)["question"]["addresses"] == ["198.51.100.1", "2001:db8::1"]


def told(**keys: Any) -> dict[str, Any]:
    return keys


def test_json_has_the_shape_that_is_documented(explain: Any) -> None:
    found = json.loads(explain(*DB, "--at", "tue 22:00", "--resolves", "10.1.0.7", "--json"))
    assert found["question"].pop("time").endswith("+00:00")
    assert found == {
        "question": {
            "client": "10.1.0.1",
            "listener": "office",
            "user": "alice",
            "groups": [],
            "command": "connect",
            "host": "db.example",
            "port": 5432,
            "addresses": ["10.1.0.7"],
        },
        "verdict": "deny",
        "rule": "default",
        "detail": "",
        "text": "",
        "log": True,
        "route": None,
        "limit": None,
        "stages": [
            {
                "stage": "first octets",
                "address": None,
                "verdict": "defer",
                "rule": "no-mail",
                "detail": "",
                "reports": [],
                "rules": found["stages"][0]["rules"],
            },
            {
                "stage": "request",
                "address": None,
                "verdict": "deny",
                "rule": "default",
                "detail": "",
                "reports": [{"rule": "trial", "would": "deny"}],
                "rules": [
                    told(id="no-mail", action="deny", report=False, matches=False, key="ports",
                         wanted="25", fact="5432", guard=""),
                    told(id="trial", action="deny", report=True, matches=True, key=None,
                         wanted=None, fact=None, guard=""),
                    told(id="db", action="allow", report=False, matches=False, key="when",
                         wanted="mon-fri 07:00-20:00 Europe/Berlin",
                         fact="tue 22:00 Europe/Berlin", guard=""),
                    told(id="web", action="allow", report=False, matches=False, key="ports",
                         wanted="80", fact="5432", guard=""),
                    told(id="default", action="deny", report=False, matches=True, key=None,
                         wanted=None, fact=None, guard=""),
                ],
            },
        ],
        "changes": [
            {
                "rule": "db",
                "verdict": "allow",
                "facts": [{"key": "at", "value": "wed 07:00 Europe/Berlin"}],
            }
        ],
        "edits": [{"rule": "db", "key": "when", "fact": "tue 22:00 Europe/Berlin"}],
    }  # fmt: skip


LINE = record(
    replace(
        SERVED,
        user="alice",
        command=Command.CONNECT,
        destination=Destination("db.example", 5432),
        address=None,
    )
)


def test_a_line_of_the_log_is_explained(explain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out = explain("--log-line", LINE, "--resolves", "10.1.0.7")
    assert out.startswith("alice, from 127.0.0.1 at office, thu 01:00 Europe/Berlin: connect")
    assert "denied by default\n" in out
    monkeypatch.setattr(sys, "stdin", io.StringIO(LINE + "\n"))
    assert explain("--log-line", "-", "--resolves", "10.1.0.7") == out


def test_who_asked_for_nothing_is_explained_by_the_first_octets(explain: Any) -> None:
    nothing = replace(
        SERVED, command=None, destination=None, address=None, asked=Asked.CLIENT, addresses=()
    )
    out = explain("--log-line", record(nothing))
    assert ": no request\n\nfirst octets: defer" in out
    assert "request:" not in out
    found = json.loads(explain("--log-line", record(nothing), "--json"))
    assert found["question"]["command"] is found["question"]["host"] is None


def test_an_association_is_explained_without_a_destination(explain: Any) -> None:
    udp = replace(SERVED, command=Command.UDP_ASSOCIATE, asked=Asked.REQUEST, addresses=())
    assert explain("--log-line", record(udp)).partition("\n")[0].endswith(": udp")
    found = json.loads(explain("--log-line", record(udp), "--json"))
    assert (found["question"]["command"], found["question"]["host"]) == ("udp", None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_there_is_colour_only_on_a_terminal_that_wants_it(
    config: str, monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", no_color)
    main(["explain", "-c", config, *DB, "--resolves", "10.2.0.7"])
    assert ("\x1b[31mdenied\x1b[0m by default" in terminal.getvalue()) is coloured
    assert ("\x1b" in terminal.getvalue()) is coloured


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["connect", "a.example:1"], "say --from ADDRESS and what is asked for"),
        (["--from", "::1"], "say --from ADDRESS and what is asked for"),
        (["--from", "x", "connect", "a:1"], "'x' is a name; here stands an address"),
        (["--from", "::1", "connect", "a"], "'a' is no destination"),
        (["--from", "::1", "--listener", "ofice", "connect", "a:1"], "did you mean 'office'?"),
        (["--from", "::1", "--at", "noon", "connect", "a:1"], "'noon' is no time"),
        (["--from", "::1", "--group", "dba", "connect", "a:1"], "--group without --user"),
        (["--from", "::1", "connect", "a:1", "--resolves", "b"], "'b' is a name"),
        (["--from", "::1", "fetch", "a:1"], "invalid choice: 'fetch'"),
        (["--log-line", "{}"], "nothing to explain: a line without what a decision uses"),
    ],
)
def test_what_cannot_be_asked_is_said(
    explain: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        explain(*arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_name_that_cannot_be_looked_up_is_said(
    explain: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(SystemExit):
        explain(*DB, "--lookup")
    assert "cannot look up db.example: Name or service not known" in capsys.readouterr().err


def test_a_configuration_with_problems_has_no_policy_to_explain(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["explain", "-c", str(tmp_path / "none"), *DB])
    assert caught.value.code == f"socksd: cannot read {tmp_path}/none: No such file or directory"


def test_one_that_fails_its_own_tests_is_explained_all_the_same(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is when an explanation is wanted most."""
    with open(config, "a", encoding="utf-8") as file:
        file.write('[[test]]\nas = { from = "::1", connect = "[::1]:1" }\n')
        file.write('expect = { action = "allow" }\n')
    main(["explain", "-c", config, *DB])
    assert "alice" in capsys.readouterr().out

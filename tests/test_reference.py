"""README.rst and docs/configuration.rst say what the code does, and all of it."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest

from socksd.address import Destination
from socksd.app.config import Config, Limit, Route, parse_config
from socksd.app.main import main
from socksd.app.tap import Options
from socksd.codes import Command, ReplyCode
from socksd.errors import ConfigError
from socksd.events import (
    DatagramsDropped,
    DatagramTarget,
    Denied,
    LoginRefused,
    Outcome,
    SessionClosed,
)
from socksd.facts import Decision, Facts, Principal, Verdict
from socksd.identity.portal import WRONG
from socksd.interfaces import Drop
from socksd.observe import access, lines
from socksd.policy.builtin import built_in_tables
from socksd.policy.load import KEYS
from socksd.policy.special import SPECIAL
from socksd.server.states import Deadlines

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.rst").read_text()
REFERENCE = (ROOT / "docs" / "configuration.rst").read_text()
REPLAY = (ROOT / "docs" / "replay.rst").read_text()
EXAMPLE = (ROOT / "etc" / "socksd.toml").read_text()
POLICY = (ROOT / "docs" / "policy.rst").read_text()

CLIENT = ip_address("10.20.0.7")
SERVED = SessionClosed(
    session=17,
    started=0.0,
    seconds=0.217,
    client=CLIENT,
    client_port=40312,
    listener="office",
    user="alice",
    command=Command.CONNECT,
    destination=Destination("example.com", 443),
    address=ip_address("192.0.2.80"),
    rule="staff",
    outcome=Outcome.SERVED,
    reply=ReplyCode.SUCCEEDED,
    reason="",
    up=1021,
    down=6452,
    protocol="socks5",
)


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of any kind."""
    found = re.search(
        rf"^{re.escape(title)}\n([=.-])\1+\n(.*?)(?=^[^\n]+\n([=.-])\3{{2,}}\n|\Z)",
        text,
        re.MULTILINE | re.DOTALL,
    )
    assert found, f"no section {title}"
    return found[2]


def tomls(text: str) -> list[str]:
    found = re.findall(r"^\.\. code-block:: toml\n\n((?:   .*\n|\n)+)", text, re.MULTILINE)
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in found]


@pytest.mark.parametrize(
    "command",
    [
        ".venv/bin/pip install . && .venv/bin/twistd -n socks5 --port 1080",
        ".venv/bin/pip install -e '.[test]' && .venv/bin/pytest",
    ],
)
def test_readme_begins_with_the_two_commands(command: str) -> None:
    beginning = README.partition("What it looks like")[0]
    assert f"    python3 -m venv .venv && {command}\n" in beginning


@pytest.mark.parametrize("text", [README, REFERENCE], ids=["README", "configuration"])
def test_every_option_is_documented_and_no_other(text: str) -> None:
    inherited = {"help", "help-auth", "help-auth-type", "version"}  # twistd's and strcred's
    ours = {name for name in Options().longOpt if not name.startswith("help")}
    known = {name.rstrip("=") for name in ours} | inherited
    title = "Commands" if text is README else "Command line"
    part = section(text, title)
    shown = set(re.findall(r"^ *``--([a-z-]+)", part, re.MULTILINE))
    assert shown <= known
    assert known - inherited <= shown


def test_every_key_is_documented_with_its_default_and_no_other() -> None:
    for field in attrs.fields(Config):
        if not attrs.has(type(field.default)):
            continue
        table = section(REFERENCE, f"``[{field.name}]``")
        defaults = dict(re.findall(r"^``(\w+)``(?: \(default: ``(.*)``\))?$", table, re.MULTILINE))
        assert set(defaults) == {
            key.name for key in attrs.fields(type(getattr(Config(), field.name)))
        }
        written = "\n".join(f"{key} = {value}" for key, value in defaults.items() if value)
        text = f"version = 1\n[{field.name}]\n{written}\n"
        assert parse_config(text, "the page") == Config(), field.name


@pytest.mark.parametrize(("table", "kind"), [("limit", Limit), ("route", Route)])
def test_every_key_of_a_table_with_a_name_is_documented_and_in_the_example(
    table: str, kind: type
) -> None:
    keys = {key.name for key in attrs.fields(kind)}
    page = section(REFERENCE, f"``[{table}.NAME]``")
    assert set(re.findall(r"^``(\w+)``$", page, re.MULTILINE)) == keys
    example = re.findall(rf"^#\[{table}\.\w+\].*\n((?:#\w.*\n)+)", EXAMPLE, re.MULTILINE)
    assert set(re.findall(r"^#(\w+) = ", "".join(example), re.MULTILINE)) == keys


@pytest.mark.parametrize(
    ("command", "title"), [("replay", "Trying a policy"), ("propose", "Making a policy")]
)
def test_every_option_of_a_command_on_logs_is_documented_and_no_other(
    command: str, title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out.partition("options:")[2]))
    shown = set(re.findall(r"^``(--[a-z-]+)", section(REPLAY, title), re.MULTILINE))
    assert shown == known - {"--help"}
    assert f"``socksd {command} " in section(README, "Commands")


@pytest.mark.parametrize("toml", tomls(README) + tomls(REFERENCE) + tomls(REPLAY) + tomls(POLICY))
def test_examples_load(toml: str) -> None:
    parse_config(toml if "version" in toml else f"version = 1\n{toml}", "the page")


def test_the_built_in_rules_are_shown_as_they_are() -> None:
    shown = [
        rule
        for toml in tomls(section(REFERENCE, "Without rules"))
        for rule in tomllib.loads(toml)["rule"]
    ]
    assert shown == built_in_tables(with_login=True)


def test_every_rule_key_is_documented() -> None:
    keys = set(re.findall(r"^``(\w+)``$", section(REFERENCE, "Rules"), re.MULTILINE))
    with pytest.raises(ConfigError) as caught:
        parse_config("version = 1\n[[rule]]\n" + "\n".join(f"{key} = []" for key in keys), "x")
    assert not any("no such key" in str(problem) for problem in caught.value.problems)
    assert keys == set(KEYS)


def test_every_built_in_set_is_documented() -> None:
    shown = re.findall(r"^``(@[a-z0-9-]+)`` ", section(REFERENCE, "``[sets]``"), re.MULTILINE)
    assert shown == list(SPECIAL)


def test_problems_look_as_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(
            '[limits]\nsesions = 1\n[deadlines]\nidle = 10\n[[rule]]\nto = [".x", "10.1.0.0/8"]', ""
        )
    for line in re.findall(r"^    socks5: (.*)", section(REFERENCE, "The file"), re.MULTILINE):
        assert line in map(str, caught.value.problems)


def test_every_reply_code_is_documented() -> None:
    for code in ReplyCode:
        assert re.search(rf"^{code:#04x}  {code.name} ", REFERENCE, re.MULTILINE), code.name


def test_every_outcome_is_documented() -> None:
    shown = re.findall(r"^``([a-z-]+)``  ", section(REFERENCE, "Log"), re.MULTILINE)
    assert set(shown) == set(Outcome)


def test_every_cause_of_a_drop_is_documented() -> None:
    shown = re.findall(r"^``([a-z-]+)``  ", section(REFERENCE, "Datagrams"), re.MULTILINE)
    assert set(shown) == set(Drop)


def test_deadlines_are_those_of_a_session() -> None:
    assert attrs.asdict(Config().deadlines) == {
        name: getattr(Deadlines(), name) for name in Deadlines.__slots__
    }


def test_log_lines_look_as_shown() -> None:
    failed = LoginRefused(1, ip_address("203.0.113.9"), 40312, "root", WRONG)
    nobody = Decision(Verdict.DENY, "default")
    by_address = Denied(1, 0.0, failed.client, failed.client_port, None, None, None, nobody)
    for line in (lines.session(SERVED), lines.login_failed(failed), lines.denied(by_address)):
        assert f"    {line}\n" in REFERENCE
    target = DatagramTarget(
        session=18,
        client=SERVED.client,
        client_port=40316,
        user="alice",
        destination=Destination("example.com", 53),
        decision=Decision(Verdict.ALLOW, "staff"),
        address=ip_address("192.0.2.53"),
        reason="",
    )
    nowhere = replace(
        target,
        destination=Destination("nowhere.example", 53),
        address=None,
        reason="no such name",
    )
    dropped = DatagramsDropped(18, {Drop.DENIED: 2, Drop.UNASKED: 1})
    for line in (lines.target(target), lines.target(nowhere), lines.dropped(dropped)):
        assert f"    {line}\n" in REFERENCE
    first = replace(
        SERVED,
        session=1,
        client=ip_address("127.0.0.1"),
        user=None,
        rule="local",
    )
    assert f"    {lines.session(first)}\n" in README


def test_fail2ban_patterns_are_those_that_are_tested() -> None:
    assert lines.__doc__ is not None
    for line in re.findall(r"\^.*", section(REFERENCE, "fail2ban")):
        assert line in lines.__doc__


def test_every_key_of_the_access_log_is_documented() -> None:
    shown = re.findall(r"^``(\w+)`` ", section(REFERENCE, "Access log"), re.MULTILINE)
    assert shown == list(json.loads(access.record(SERVED)))


def test_the_policy_answers_as_its_page_says() -> None:
    whole = parse_config(tomls(section(POLICY, "The whole"))[0], "the page").policy()
    ten = datetime.fromisoformat("2026-06-30T10:00:00+02:00")
    shown = re.findall(
        r"^``(.*):(\d+)``(.*?)  +(.*?)  +(allow|deny), ``(.*)``$", POLICY, re.MULTILINE
    )
    assert len(shown) == 10
    for host, port, when, leads_to, action, rule in shown:
        time = ten.replace(hour=21) if when else ten
        facts = Facts(ip_address("10.20.0.9"), "office", Principal("alice"), time=time.timestamp())
        asking = facts.asking(Command.CONNECT, Destination.named(host, int(port)))
        decision = whole.decide(asking)
        if leads_to not in ("itself", "not looked up"):
            assert decision.verdict is Verdict.DEFER, host
            decision = whole.decide(asking.at(ip_address(leads_to)))
        assert (decision.verdict.value, decision.rule) == (action, rule), (host, leads_to)

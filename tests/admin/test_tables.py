"""Answers for a terminal."""

from __future__ import annotations

import pytest

from socksd.admin import tables

NOON = 1795348800.0


def test_rules_stand_in_columns() -> None:
    rule = {"id": "no-mail", "action": "deny", "hits": 12, "open": 0, "last": None, "since": NOON}
    assert tables.rules({"rules": [rule, {**rule, "id": "a", "last": NOON}]}).splitlines() == [
        "RULE     ACTION  HITS  OPEN  LAST                  SINCE",
        "no-mail  deny    12    0     -                     2026-11-22 12:00:00Z",
        "a        deny    12    0     2026-11-22 12:00:00Z  2026-11-22 12:00:00Z",
    ]


def test_leaks_say_what_they_mean() -> None:
    leak = {
        "client": "192.0.2.1",
        "user": None,
        "addresses": 3,
        "names": 1,
        "last": NOON,
        "top": [{"destination": f"198.51.100.{n}:443", "count": 1} for n in range(5)],
    }
    lines = tables.leaks({"clients": 7, "leaks": [leak, {**leak, "user": "al\x1b[31m"}]})
    first, _, anonymous, hostile = lines.splitlines()
    assert first == "rules about names do not protect 2 of 7 clients, which send addresses:"
    assert anonymous.split()[:4] == ["192.0.2.1", "-", "3", "1"]
    assert anonymous.endswith("198.51.100.0:443, 198.51.100.1:443, 198.51.100.2:443")
    assert "\x1b" not in hostile
    assert '"al\\u001b[31m"' in hostile
    assert tables.leaks({"clients": 7, "leaks": []}) == "7 clients seen; all of them send names\n"


def test_sessions_stand_in_columns_and_the_rest_is_counted() -> None:
    session = {
        "session": 17,
        "client": "192.0.2.1",
        "user": None,
        "protocol": "socks5",
        "state": "relaying",
        "command": "connect",
        "destination": "example.com:443",
        "rule": None,
        "seconds": 61.0,
        "up": 512,
        "down": 5 << 20,
    }
    waiting = {**session, "user": "alice", "protocol": None, "command": None, "destination": None}
    bound = {**session, "command": "bind", "rule": "ftp"}
    answer = {"count": 5, "sessions": [session, waiting, bound]}
    head, first, second, third, more = tables.sessions(answer).splitlines()
    assert head.split() == [
        "SESSION",
        "CLIENT",
        "USER",
        "PROTOCOL",
        "STATE",
        "DESTINATION",
        "RULE",
        "AGE",
        "UP",
        "DOWN",
    ]
    assert "1 min 1 s" in first
    assert first.endswith("512 B  5.0 MiB")
    assert first.split()[2:7] == ["-", "socks5", "relaying", "example.com:443", "-"]
    assert second.split()[2:6] == ["alice", "-", "relaying", "-"]
    assert "bind example.com:443" in third
    assert more == "and 2 more; --limit says how many are shown"
    assert tables.killed({"killed": 3}) == "3 sessions ended\n"
    assert tables.config({"config": {"version": 1}}) == '{\n  "version": 1\n}\n'


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (200 << 10, "200 KiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_octets_are_written_short(number: int, text: str) -> None:
    assert tables.octets(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9, "0 s"), (61, "1 min 1 s"), (7300, "2 h 1 min"), (90061, "1 d 1 h")],
)
def test_an_age_is_its_two_greatest_units(seconds: float, text: str) -> None:
    assert tables.age(seconds) == text


def test_status_says_what_is_out_of_the_ordinary() -> None:
    answer = {
        "version": "1",
        "pid": 7,
        "started": NOON,
        "config": None,
        "loaded": NOON,
        "reloads": 1,
        "failed_reloads": 2,
        "sessions": 3,
        "older_sessions": 1,
        "listeners": [{"name": "office", "address": "127.0.0.1:1080"}],
        "unconfirmed_until": None,
        "rolled_back": False,
    }
    usual = tables.status(answer)
    assert "sessions       3 (1 from before a reload)\n" in usual
    assert "listener       office on 127.0.0.1:1080\n" in usual
    assert "confirmed" not in usual
    trial = tables.status({**answer, "unconfirmed_until": NOON})
    assert "unconfirmed    rolled back at 2026-11-22 12:00:00Z\n" in trial
    assert "was not confirmed" in tables.status({**answer, "rolled_back": True})
    assert "draining" not in tables.status({**answer, "draining_until": None})
    assert "draining       who is left at 2026-11-22 12:00:00Z is cut" in tables.status(
        {**answer, "draining_until": NOON}
    )
    workers = [{"number": 12, "pid": 4711, "started": NOON, "sessions": 2, "older_sessions": 0}]
    (line,) = tables.status({**answer, "workers": workers}).splitlines()[len(usual.splitlines()) :]
    assert line == "worker 12      process 4711, since 2026-11-22 12:00:00Z, 2 sessions"


def test_workers_that_do_not_answer_are_a_line_each() -> None:
    assert tables.missing({"missing": [3, 12]}) == [
        "worker 3 does not answer",
        "worker 12 does not answer",
    ]
    assert tables.missing({}) == []


def test_a_reload_says_what_becomes_of_sessions_and_of_itself() -> None:
    answer = {"refused_sessions": {"count": 0, "fate": "kept"}, "unconfirmed_until": None}
    assert tables.reloaded(answer) == "reloaded\n"
    lines = tables.reloaded(
        {"refused_sessions": {"count": 4, "fate": "cut"}, "unconfirmed_until": NOON}
    ).splitlines()
    assert lines[1].startswith("4 live sessions would now be refused: cut")
    assert lines[2] == "rolled back at 2026-11-22 12:00:00Z, unless you say: socksd confirm"


def test_problems_are_a_line_each() -> None:
    problems = [{"path": "a.b", "message": "is wrong"}, {"path": "", "message": "x\ny"}]
    assert tables.problems({"error": "e", "problems": problems}) == ["a.b: is wrong", '"x\\ny"']
    assert tables.problems({"error": "not now"}) == ["not now"]
    assert tables.problems({}) == ["no reason given"]

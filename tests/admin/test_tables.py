"""Answers for a terminal."""

from __future__ import annotations

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

"""Questions of programs to the policy of a running server."""

from __future__ import annotations

import json

import pytest

from socksd.admin.routes import BadBody
from socksd.app.asked import answer
from socksd.app.config import parse_config

CONFIG = parse_config(
    """
    [[listener]]
    name = "office"
    endpoint = "tcp:1080"
    [groups]
    dbas = []
    [[rule]]
    id = "dba"
    action = "allow"
    group = ["dbas"]
    to = [".example"]
    resolves_to = ["10.0.0.0/8"]
    when = ["mon-fri 07:00-20:00 UTC"]
    """,
    "x",
)
QUESTION = {"from": "192.0.2.1", "connect": "a.example:5432", "at": "tue 10:00"}


def test_a_question_is_answered_as_explain_does() -> None:
    said = answer(CONFIG, {**QUESTION, "user": "alice", "group": "dbas", "resolves": ["10.0.0.1"]})
    assert (said["verdict"], said["rule"]) == ("allow", "dba")
    assert said["question"]["groups"] == ["dbas"]
    assert said["question"]["addresses"] == ["10.0.0.1"]
    assert json.dumps(said)


def test_what_would_turn_it_is_told() -> None:
    said = answer(CONFIG, QUESTION)
    assert (said["verdict"], said["rule"]) == ("deny", "default")
    (stage,) = [each for each in said["stages"] if each["stage"] == "request"]
    assert [(rule["id"], rule["key"]) for rule in stage["rules"]] == [
        ("dba", "group"),
        ("default", None),
    ]


def test_an_address_leads_nowhere_else() -> None:
    """What a literal leads to is no matter of opinion."""
    question = {**QUESTION, "connect": "192.0.2.80:80", "resolves": ["10.0.0.1"]}
    assert answer(CONFIG, question)["question"]["addresses"] is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, 'say "from", an address, and "connect"'),
        ({"from": "192.0.2.1"}, 'say "from", an address, and "connect"'),
        ({**QUESTION, "udp": "a:1"}, 'say "from", an address, and "connect"'),
        ({**QUESTION, "usr": "a"}, "there is no 'usr'"),
        ({**QUESTION, "user": ["a", "b"]}, "user is one string"),
        ({**QUESTION, "user": 7}, "user is a string, or a list of them"),
        ({**QUESTION, "from": "x"}, "'x'"),
        ({**QUESTION, "connect": "a.example"}, "'a.example'"),
        ({**QUESTION, "listener": "ofice"}, "no listener is named 'ofice'"),
        ({**QUESTION, "group": "db"}, "--group without --user"),
        ({**QUESTION, "at": "noon"}, "'noon'"),
    ],
)
def test_what_is_no_question_is_said(body: dict[str, object], said: str) -> None:
    with pytest.raises(BadBody) as caught:
        answer(CONFIG, body)
    assert str(caught.value).startswith(said)

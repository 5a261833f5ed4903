"""The auto-configuration file; tests/functional/test_pac.py lets a browser read it."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from typing import Any

import pytest

from socksd.codes import Command
from socksd.facts import Facts
from socksd.policy.load import load_rules
from socksd.policy.pac import MOST, pac
from socksd.policy.rules import Policy


def rules_of(*tables: dict[str, object], client: str = "192.0.2.1") -> Any:
    """Give the rules that the file for a client has, as the script reads them."""
    rules = load_rules([{"id": f"r{n}"} | table for n, table in enumerate(tables)], ["office"])
    facts = Facts(ip_address(client), "office", command=Command.CONNECT)
    text = pac(Policy(rules), facts, ["SOCKS5 gw:1080", "PROXY gw:1080"])
    assert 'var VIA = "SOCKS5 gw:1080; PROXY gw:1080";\n' in text
    found = re.search(r"^var RULES = (.*);$", text, re.MULTILINE)
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        pytest.param({"action": "allow"}, ["allow"], id="everything"),
        pytest.param({"action": "deny"}, ["leave"], id="a default is left to the browser"),
        pytest.param(
            {"action": "deny", "from": ["192.0.2.0/24"]}, ["leave"], id="a default for some"
        ),
        pytest.param(
            {"action": "deny", "ports": [25]}, ["deny", ["ports", [25, 26]]], id="a denial"
        ),
        pytest.param({"action": "allow", "user": ["a"]}, ["allow", ["maybe"]], id="a user"),
        pytest.param(
            {"action": "allow", "when": ["mon 00:00-24:00 UTC"]}, ["allow", ["maybe"]], id="a time"
        ),
        pytest.param({"action": "allow", "command": ["connect"]}, ["allow"], id="known to be so"),
        pytest.param(
            {"action": "allow", "require": "hostname"}, ["allow", ["require"]], id="names only"
        ),
    ],
)
def test_a_rule_is_what_a_browser_can_ask_of_it(table: dict[str, object], rule: object) -> None:
    assert rules_of(table) == [rule]


@pytest.mark.parametrize(
    "table",
    [
        {"action": "allow", "from": ["198.51.100.0/24"]},
        {"action": "allow", "not_from": ["192.0.2.1"]},
        {"action": "allow", "command": ["udp"]},
        {"action": "allow", "mode": "report"},
    ],
    ids=["elsewhere", "not here", "another command", "on trial"],
)
def test_what_cannot_matter_to_this_client_is_left_out(table: dict[str, object]) -> None:
    assert rules_of(table) == []


def test_hosts_are_names_and_networks() -> None:
    ((_, (key, hosts)),) = rules_of(
        {"action": "allow", "to": ["a.example", ".b.example", "c*.example", "10.0.0.0/8", "::/0"]}
    )
    assert key == "to"
    assert hosts["names"] == {
        "exact": {"a.example": 1},
        "suffix": {"b.example": 1},
        "globs": ["c*.example"],
    }
    assert hosts["v4"] == [[1 << 24, {"10": 1}]]
    assert hosts["some"], "a name may lead into one"


def test_only_an_ipv6_network_is_still_somewhere_a_name_may_lead() -> None:
    ((_, (_, hosts)),) = rules_of({"action": "allow", "not_to": ["2001:db8::/32"]})
    assert (hosts["v4"], hosts["some"]) == ([], True)


def test_of_too_many_names_the_rest_may_match() -> None:
    """A browser gives up on a file of more than a mebibyte, and then asks nobody."""
    many = [f"h{n}.example" for n in range(MOST)]
    first, second = rules_of(
        {"action": "allow", "to": many}, {"action": "allow", "to": ["one.example"]}
    )
    assert first[1][0] == "to"
    assert second == ["allow", ["maybe"]]

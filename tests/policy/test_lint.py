"""What is allowed to stand in a policy, and is probably not meant."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given

from socksd.address import Destination
from socksd.codes import Command
from socksd.facts import Facts, Principal
from socksd.policy.guard import Guard
from socksd.policy.lint import Code, Finding, lint
from tests.policy.test_rules import FULL, GUARD, GUARDS, TABLES, Table, partial, policy

OPEN_GUARD = Guard((), private=False)


def found(*tables: Table, guard: Guard | None = GUARD, **keys: Any) -> list[Finding]:
    return lint(policy(*tables, guard=guard), tested=True, **keys)


def codes(*tables: Table, guard: Guard | None = GUARD) -> dict[str, Code]:
    return {finding.rule: finding.code for finding in found(*tables, guard=guard)}


def rule(name: str, action: str, **keys: Any) -> Table:
    return {"id": name, "action": action} | keys


LIMITED = rule("web", "allow", ports=[80, 443], user="@any")


@given(TABLES, GUARDS, FULL)
def test_what_is_called_unreachable_or_guarded_allows_and_denies_nothing(
    tables: list[Table], guard: Guard | None, facts: Facts
) -> None:
    """Whatever is found in random rules, found it is; and it can be said."""
    rules = policy(*tables, guard=guard)
    findings = lint(rules, tested=True)
    for finding in findings:
        assert str(finding)
        assert {finding.rule, *finding.because} <= {rule.id for rule in rules.rules}
    dead = {each.rule for each in findings if each.code is Code.UNREACHABLE}
    closed = {each.rule for each in findings if each.code is Code.GUARDED}
    for some in partial(facts).values():
        decision = rules.decide(some)
        if decision.verdict.value != "defer":
            assert decision.rule not in dead | closed
            assert dead.isdisjoint(report.rule for report in decision.reports)


def test_a_good_policy_has_nothing_to_be_told() -> None:
    assert found(rule("no-mail", "deny", ports=25), LIMITED) == []


def test_a_rule_that_cannot_match_is_told_with_what_hides_it() -> None:
    assert found(LIMITED, rule("x", "deny", ports=80, user="alice")) == [
        Finding(
            Code.UNREACHABLE,
            "x",
            "can never match: 'web' before it takes all that it would",
            ("web",),
        )
    ]


def test_several_rules_may_hide_one_together() -> None:
    tables = [rule("a", "deny", user="alice"), rule("b", "deny", user="bob")]
    (finding,) = found(*tables, rule("x", "allow", user=["alice", "bob"], ports=80))
    assert finding.because == ("a", "b")
    assert str(finding) == (
        "rule 'x' can never match: 'a' and 'b' before it take all that it would"
    )


def test_a_rule_may_hide_itself() -> None:
    (finding,) = found(rule("x", "deny", to="10.1.0.0/16", not_to="10.0.0.0/8"))
    assert finding.message == (
        "can never match: no request has what 'to' and 'not_to' ask for together"
    )


def test_a_rule_on_trial_hides_nothing_and_may_be_hidden() -> None:
    trial = rule("trial", "deny", ports=80, user="@any", mode="report")
    assert found(trial, LIMITED) == []
    (finding,) = found(LIMITED, trial)
    assert (finding.rule, finding.code) == ("trial", Code.UNREACHABLE)
    assert finding.message.startswith("can never be reported: ")


@pytest.mark.parametrize(
    "keys",
    [{"to": "127.0.0.0/8"}, {"to": "a.example", "resolves_to": "169.254.1.0/24"}, {"to": "@self"}],
)
def test_a_rule_that_allows_only_what_the_guard_takes_back_is_told(keys: Table) -> None:
    assert codes(rule("x", "allow", **keys)) == {"x": Code.GUARDED}
    assert Code.GUARDED not in codes(rule("x", "allow", **keys), guard=None).values()


@pytest.mark.parametrize("keys", [{"to": ["127.0.0.1", "10.0.0.1"]}, {"to": ["::1", "a.example"]}])
def test_one_that_allows_more_is_not(keys: Table) -> None:
    assert codes(rule("x", "allow", **keys)) == {}


def test_a_rule_that_denies_is_none_that_the_guard_takes_back() -> None:
    assert codes(rule("x", "deny", to="127.0.0.0/8")) == {}


def test_a_rule_that_allows_everybody_everything_is_told() -> None:
    assert codes(rule("x", "allow")) == {"x": Code.OPEN}
    assert codes(rule("x", "deny")) == {}
    assert codes(rule("x", "allow", mode="report")) == {}


@pytest.mark.parametrize("to", [".example", "*.example", "@mixed"])
def test_wide_names_without_bounds_are_told(to: str) -> None:
    (finding,) = found(rule("x", "allow", to=to))
    assert finding.code is Code.UNBOUNDED
    assert finding.message.endswith("may lead anywhere but into private space")
    (finding,) = found(rule("x", "allow", to=to), guard=None)
    assert finding.message.endswith("may lead anywhere")
    assert codes(rule("x", "allow", to=to, resolves_to="10.0.0.0/8")) == {}


def test_no_destination_at_all_is_told_where_private_space_is_open() -> None:
    assert codes(LIMITED) == {}
    assert codes(LIMITED, guard=OPEN_GUARD) == {"web": Code.UNBOUNDED}
    assert codes(LIMITED, guard=None) == {"web": Code.UNBOUNDED}
    assert codes(LIMITED | {"resolves_to": "10.0.0.0/8"}, guard=None) == {}


ADS = rule("ads", "deny", to=".ads.example")


def test_a_name_that_is_denied_while_its_address_is_open_is_told() -> None:
    (finding,) = found(ADS, LIMITED)
    assert finding == Finding(
        Code.BY_ADDRESS,
        "ads",
        "denies a name, and not its address: who asks for an address itself,"
        " as 192.88.98.1:443, gets there by 'web'",
        ("web",),
    )


@pytest.mark.parametrize(
    ("deny", "allow"),
    [
        pytest.param(ADS, LIMITED | {"require": "hostname"}, id="names only"),
        pytest.param(ADS | {"to": [".ads.example", "192.0.2.0/24"]}, LIMITED, id="networks, too"),
        pytest.param(ADS | {"to": "192.0.2.0/24"}, LIMITED, id="only networks"),
        pytest.param(ADS | {"user": "bob"}, LIMITED | {"user": "alice"}, id="others"),
        pytest.param(ADS | {"ports": 25}, LIMITED, id="other ports"),
        pytest.param(
            ADS, LIMITED | {"to": "w.example"}, id="names that are not addresses"
        ),
        pytest.param(ADS, LIMITED | {"mode": "report"}, id="on trial"),
        pytest.param(ADS | {"from": "10.0.0.0/8"}, LIMITED | {"not_from": "10.0.0.0/8"},
                     id="other clients"),
        pytest.param(ADS, LIMITED | {"to": "127.0.0.0/8", "ports": 80}, id="guarded"),
    ],
)  # fmt: skip
def test_a_name_that_is_denied_for_good_is_not(deny: Table, allow: Table) -> None:
    assert Code.BY_ADDRESS not in codes(deny, allow).values()


@pytest.mark.parametrize(
    ("deny", "allow"),
    [
        (ADS | {"group": "ops"}, rule("a", "allow", to="10.0.0.0/8", when="mon UTC")),
        (ADS | {"user": "@none"}, rule("a", "allow", listener="lab", to="192.0.2.0/24")),
        (ADS, rule("a", "allow", resolves_to="10.1.0.0/16", **{"from": "fd00::/8"})),
    ],
)
def test_who_may_ask_for_the_address_is_found(deny: Table, allow: Table) -> None:
    assert codes(deny, allow).get("ads") is Code.BY_ADDRESS


def test_what_stands_before_the_rule_about_names_counts() -> None:
    """There the name is allowed, and not denied."""
    assert codes(LIMITED, ADS | {"ports": 80, "user": "@any"}) == {"ads": Code.UNREACHABLE}


def test_in_a_long_list_not_every_pair_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socksd.policy.lint._PAIRS", 0)
    assert found(ADS, LIMITED) == []


def request(client: str, host: str, user: str = "alice") -> Facts:
    facts = Facts(ip_address(client), "office", Principal(user))
    return facts.asking(Command.CONNECT, Destination.named(host, 443))


def test_rules_about_names_are_told_of_clients_that_send_addresses() -> None:
    requests = [
        request("10.1.0.1", "a.example"),
        request("10.1.0.1", "192.0.2.1"),
        request("10.1.0.2", "192.0.2.1"),
        request("10.1.0.2", "192.0.2.2"),
        request("192.0.2.9", "192.0.2.2"),
        Facts(ip_address("10.1.0.3"), "office"),
    ]
    ads = ADS | {"from": "10.0.0.0/8"}
    assert found(ads, rule("net", "deny", to="192.0.2.0/24"), requests=requests) == [
        Finding(
            Code.ADDRESSES_SENT,
            "ads",
            "is about names, but 3 of 4 requests of its clients were for addresses;"
            " 2 of 10.1.0.2 alone",
        )
    ]
    assert found(ads, requests=requests[:1]) == []
    assert found(ads | {"user": "bob"}, requests=requests) == []


def test_a_policy_without_tests_is_told() -> None:
    assert lint(policy(LIMITED, guard=GUARD), tested=False) == [
        Finding(Code.NO_TESTS, "", "no [[test]] says what these rules are to do")
    ]


def test_a_finding_names_its_rule() -> None:
    assert str(Finding(Code.OPEN, "x", "is open")) == "rule 'x' is open"
    assert str(Finding(Code.NO_TESTS, "", "no tests")) == "no tests"

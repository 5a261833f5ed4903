"""Rules made of sessions of the real server allow what was allowed, and little else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.codes import COMMANDS
from socksd.facts import Facts, Principal, Verdict
from socksd.policy.guard import Guard
from socksd.policy.load import load_rules
from socksd.policy.match import Group
from socksd.policy.propose import LeftOut, Proposal, propose
from socksd.policy.records import Unused
from socksd.policy.replay import replay
from socksd.policy.rules import Policy
from tests.policy.test_replay import LITERAL, VISITS, Visit, log
from tests.policy.test_rules import GUARD, GUARDS, TABLES, Table, policy

ALICE, BOB, CAROL = Principal("alice"), Principal("bob"), Principal("carol", frozenset({"ops"}))
ALL: Table = {"id": "all", "action": "allow"}
PUBLIC, INSIDE, OTHER = map(ip_address, ("192.0.2.1", "10.7.0.1", "10.7.0.2"))
GROUPS = {"ops": Group("ops", frozenset({"alice"}))}
BOUNDS = st.sampled_from([0, 0.5, 1.0, 5])


def policy_of(proposal: Proposal, guard: Guard | None = None) -> Policy:
    return Policy(load_rules([each.rule for each in proposal.rules], (), groups=GROUPS), guard)


def rules(proposal: Proposal) -> list[Mapping[str, Any]]:
    return [each.rule for each in proposal.rules]


def visit(where: str, who: Principal = ALICE, *found: str, port: int = 443, **more: Any) -> Visit:
    destination = Destination.named(where, port)
    addresses = tuple(map(ip_address, found or ("192.0.2.1",)))
    return Visit(principal=who, destination=destination, found=addresses, **more)


def seen(*visits: Visit, guard: Guard | None = GUARD, **how: Any) -> Proposal:
    """Propose by what a gateway that allows everything has seen."""
    return propose(log(policy(ALL), *visits), how.pop("bound", 1.0), guard, **how)


def hold_to_tests(proposal: Proposal, guard: Guard | None) -> None:
    """Hold each test to what the rules decide."""
    judge = policy_of(proposal, guard)
    for each in proposal.rules:
        asking: Mapping[str, Any] = each.test["as"]  # type: ignore[assignment]  # a TOML table, whose values are of any type
        [(command, where)] = [(c, asking[word]) for c, word in COMMANDS.items() if word in asking]
        host, _, port = where.rpartition(":")
        facts = Facts(ip_address(asking["from"]), "").known_as(
            Principal(asking.get("user"), frozenset([asking["group"]] if "group" in asking else []))
        )
        facts = facts.asking(command, Destination.named(host.strip("[]"), int(port)))
        found: Sequence[str] = each.test.get("resolves", [])  # type: ignore[assignment]  # a TOML table, whose values are of any type
        assert bool(found) is (facts.address is None)
        questions = [facts.at(ip_address(text)) for text in found] or [facts]
        allowed = [d for d in map(judge.decide, questions) if d.verdict is Verdict.ALLOW]
        assert each.test["expect"] == {"action": "allow", "rule": allowed[0].rule}
        assert allowed[0].rule == each.rule["id"]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    tables=TABLES,
    guards=st.tuples(GUARDS, GUARDS),
    visits=st.lists(VISITS, max_size=8),
    bound=BOUNDS,
    group=st.none() | st.just(GROUPS["ops"]),
)
def test_all_that_was_allowed_is_allowed(
    tables: list[Table],
    guards: tuple[Guard | None, Guard | None],
    visits: list[Visit],
    bound: float,
    group: Group | None,
) -> None:
    """Except what is left out and said; and the rules stand on their own tests."""
    lines = log(policy(*tables, guard=guards[0]), *visits)
    for line in lines:
        record = json.loads(line)
        proposal = propose([line], bound, guards[1], group=group)
        assert proposal.sessions + proposal.left_out.total() + proposal.unused.total() == 1
        if proposal.sessions:
            assert record["verdict"] == "allow"
            assert not replay([line], policy_of(proposal, guards[1])).changed
    proposal = propose(lines, bound, guards[1], group=group)
    judge = policy_of(proposal, guards[1])
    hold_to_tests(proposal, guards[1])
    allowed = 0
    for line in lines:
        replayed = replay([line], judge)
        single = propose([line], bound, guards[1], group=group)
        if single.sessions:
            assert not replayed.changed
            allowed += 1
    assert proposal.sessions == allowed == sum(each.sessions for each in proposal.rules)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(visits=st.lists(VISITS, max_size=8), bound=BOUNDS)
def test_nobody_is_given_what_only_others_have_used(visits: list[Visit], bound: float) -> None:
    proposal = seen(*visits, bound=bound)
    used = {(one.principal.name, str(one.destination.host), one.destination.port) for one in visits}
    for each in rules(proposal):
        ports = [port for written in each["ports"] for port in ports_of(written)]
        for user in each["user"] if each["user"] != "@none" else []:
            for host in each["to"]:
                if not host.startswith(".") and "/" not in host:
                    assert {(user, host, port) for port in ports} <= used
    assert all(each.unseen <= bound * each.seen for each in proposal.rules)


def ports_of(written: int | str) -> range:
    first, _, last = str(written).partition("-")
    return range(int(first), int(last or first) + 1)


@given(visits=st.permutations([
    visit("a.d.example"), visit("b.d.example"), visit("b.d.example", BOB), visit("10.7.0.1", BOB),
    visit("x.example", ALICE, "10.7.0.9"), visit("a.d.example", port=80),
]))  # fmt: skip
def test_the_order_of_the_log_matters_to_examples_alone(visits: list[Visit]) -> None:
    expected = rules(seen(*sorted(visits, key=str)))
    assert rules(seen(*visits)) == expected
    assert rules(seen(*visits, *visits)) == expected


def test_who_did_the_same_stands_in_one_rule() -> None:
    proposal = seen(
        *(
            visit(f"{h}.d.example", who, port=p)
            for h in "ab"
            for who in (BOB, ALICE)
            for p in (443, 80)
        )
    )
    assert rules(proposal) == [
        {
            "id": "seen-1",
            "action": "allow",
            "user": ["alice", "bob"],
            "command": "connect",
            "to": [".d.example"],
            "ports": [80, 443],
        }
    ]
    (only,) = proposal.rules
    assert (only.sessions, only.seen, only.unseen) == (8, 2, 2)


def test_who_did_more_does_not_share_it() -> None:
    proposal = seen(visit("a.example"), visit("a.example", BOB), visit("pay.example"), bound=99)
    by_host = {tuple(rule["to"]): rule["user"] for rule in rules(proposal)}
    assert by_host == {("a.example", "pay.example"): ["alice"], ("a.example",): ["bob"]}


@pytest.mark.parametrize(
    ("went", "expected"),
    [
        pytest.param("1a 2a 2b 3b", {("12", "a"), ("23", "b")}, id="by host"),
        pytest.param("1a 1b 2b 2c 1c", {("1", "abc"), ("2", "bc")}, id="by people"),
    ],
)
def test_rules_are_written_by_people_or_by_hosts(went: str, expected: set[tuple[str, str]]) -> None:
    """Whatever takes fewer; both say the same."""
    visits = [visit(f"{host}.example", Principal(who)) for who, host in went.split()]
    written = rules(seen(*visits, bound=0))
    assert {
        ("".join(rule["user"]), "".join(host[0] for host in rule["to"])) for rule in written
    } == expected


def test_ports_in_a_row_are_a_range() -> None:
    (rule,) = rules(seen(*(visit("a.example", port=p) for p in (22, 80, 81, 8000, 8001, 8002))))
    assert rule["ports"] == [22, 80, 81, "8000-8002"]


def test_a_name_that_leads_inside_is_bound_to_where_it_led() -> None:
    """The guard lets nobody inside whose rule does not name the place."""
    proposal = seen(visit("db.example", ALICE, "10.7.0.4"), visit("db2.example", ALICE, "10.7.0.5"))
    (rule,) = rules(proposal)
    assert (rule["to"], rule["resolves_to"]) == (["db.example", "db2.example"], ["10.7.0.4/31"])


def test_a_name_outside_is_bound_to_nothing() -> None:
    """Where it leads changes by the hour."""
    assert "resolves_to" not in rules(seen(visit("www.example")))[0]


def test_who_comes_without_login_is_known_by_address() -> None:
    anonymous = Principal(None)
    proposal = seen(
        *(
            replace(visit("a.example", anonymous), client=ip_address(f"10.1.0.{last}"))
            for last in (4, 5, 7)
        )
    )
    (rule,) = rules(proposal)
    assert (rule["user"], rule["from"]) == ("@none", ["10.1.0.4/31", "10.1.0.7"])
    assert "user" not in proposal.rules[0].test["as"]  # type: ignore[operator]  # a TOML table, whose values are of any type


def test_one_user_alone() -> None:
    proposal = seen(visit("a.example"), visit("b.example", BOB), user="bob")
    assert [(rule["user"], rule["to"]) for rule in rules(proposal)] == [(["bob"], ["b.example"])]
    assert proposal.left_out == {LeftOut.OTHERS: 1}


def test_a_group_is_one() -> None:
    """Its members are those of the configuration, and those the authenticator has told."""
    visits = [visit("a.example"), visit("b.example", BOB), visit("c.example", CAROL)]
    proposal = seen(*visits, group=GROUPS["ops"], bound=0)
    assert [(rule["group"], rule["to"]) for rule in rules(proposal)] == [
        ("ops", ["a.example", "c.example"])
    ]
    assert proposal.left_out == {LeftOut.OTHERS: 1}
    only = seen(visits[2], group=GROUPS["ops"])
    assert only.rules[0].test["as"] == {
        "from": "10.1.0.1",
        "user": "carol",
        "group": "ops",
        "connect": "c.example:443",
    }


def test_a_rule_that_another_one_holds_is_left_out() -> None:
    wide = [visit(f"{letter}.d.example", port=port) for letter in "abc" for port in (80, 443)]
    narrow = visit("d.d.example", port=80)
    proposal = seen(*wide, narrow, bound=1.0)
    (rule,) = rules(proposal)
    assert (rule["to"], rule["ports"]) == ([".d.example"], [80, 443])
    assert proposal.rules[0].sessions == 7


def test_what_was_denied_is_not_opened_by_a_fold() -> None:
    deny: Table = {"id": "no", "action": "deny", "to": ["pay.d.example", "10.7.0.3"]}
    judge = policy(deny, ALL)
    names = [visit(f"{letter}.d.example") for letter in "abc"]
    literals = [visit(f"10.7.0.{last}") for last in (1, 2)]
    open_ = propose(log(judge, *names, *literals), 9, GUARD)
    assert rules(open_)[0]["to"] == [".d.example", "10.7.0.0/30"]
    lines = log(judge, *names, *literals, visit("pay.d.example"), visit("10.7.0.3"))
    proposal = propose(lines, 9, GUARD)
    assert rules(proposal)[0]["to"] == [
        *("a.d.example", "b.d.example", "c.d.example"),
        *("10.7.0.1", "10.7.0.2"),
    ]
    assert proposal.left_out == {LeftOut.DENIED: 2}


@pytest.mark.parametrize(
    ("one", "why"),
    [
        pytest.param(Visit(steps=0), Unused.NOT_ASKED, id="nothing said"),
        pytest.param(Visit(steps=1), LeftOut.UNSETTLED, id="nothing asked"),
        pytest.param(replace(visit("a.example"), found=()), LeftOut.UNSETTLED, id="no address"),
        pytest.param(visit("127.0.0.1"), LeftOut.GUARDED, id="the guard's"),
        pytest.param(visit("a.example", ALICE, "127.0.0.1"), LeftOut.GUARDED, id="a name there"),
        pytest.param(visit("64:ff9b::7f00:1"), LeftOut.GUARDED, id="there in disguise"),
        pytest.param(visit("a.x", Principal("caf\udce9")), LeftOut.UNWRITABLE, id="no UTF-8"),
        pytest.param(visit("a.x", Principal("@any")), LeftOut.UNWRITABLE, id="like a word"),
        pytest.param(visit("a.x", Principal("a\x7f")), LeftOut.UNWRITABLE, id="not printable"),
    ],
)
def test_what_no_rule_can_be_for_is_counted(one: Visit, why: LeftOut | Unused) -> None:
    some: Table = ALL | {"user": ["@any", "@none"]}
    proposal = propose(log(policy(some), one), 1.0, GUARD)
    assert (proposal.rules, proposal.sessions) == ((), 0)
    assert {**proposal.left_out, **proposal.unused} == {why: 1}


def test_a_client_that_was_denied_is_counted_as_denied() -> None:
    assert propose(log(policy(), LITERAL), 1.0, GUARD).left_out == {LeftOut.DENIED: 1}


def test_an_address_in_disguise_is_allowed_as_all_that_it_is() -> None:
    proposal = seen(visit("64:ff9b::a07:1"), visit("n.example", ALICE, "64:ff9b::a07:2"))
    tos = [rule["to"] for rule in rules(proposal)]
    assert sorted(tos) == [["10.7.0.1", "64:ff9b::a07:1"], ["n.example"]]


def test_an_address_may_stand_for_none_at_all() -> None:
    """0.0.0.0, which is this host; nothing can be written for it as it stands."""
    (rule,) = rules(seen(visit("2002::1"), guard=None))
    assert rule["to"] == ["127.0.0.1", "2002::1"]


def test_torn_lines_are_counted() -> None:
    assert propose(["{"], 1.0, None).unused == {Unused.TORN: 1}

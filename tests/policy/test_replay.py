"""
Sessions of the real server, logged by the real record(), decided again.

The server's other rooms are stand-ins that the test drives: who logs in, where
a name leads, which address answers, and when the client leaves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed

from socksd.address import Destination, IPAddress
from socksd.codes import Command, Method, ReplyCode
from socksd.errors import Refused
from socksd.events import Asked, SessionClosed
from socksd.facts import ANONYMOUS, Facts, Principal, Verdict
from socksd.observe.access import record
from socksd.policy import replay as module
from socksd.policy.guard import Guard
from socksd.policy.records import Unused
from socksd.policy.replay import Difference, Replayed, Ruling, replay
from socksd.policy.rules import Policy
from socksd.server.protocol import SocksProtocol
from socksd.wire.socks5 import Greeting, Request, UsernamePassword
from tests.fakes import FakeTransport
from tests.policy.test_rules import (
    ADDRESSES,
    CLIENTS,
    GUARDS,
    HOSTS,
    PORTS,
    PRINCIPALS,
    TABLES,
    TIMES,
    Table,
    policy,
)
from tests.server.world import FakeAuthenticator, FakePolicy, World

ALLOW, DENY, DEFER = Verdict.ALLOW, Verdict.DENY, Verdict.DEFER
OFFICE = ip_address("10.1.0.1")
A_EXAMPLE = Destination("a.example", 443)
NO_LOGIN, LOGIN = Method.NO_AUTHENTICATION, Method.USERNAME_PASSWORD


class Directory(FakeAuthenticator):
    """Knows one person, and what they belong to."""

    def __init__(self, principal: Principal) -> None:
        super().__init__()
        self.principal = principal
        self.acceptable = (NO_LOGIN if principal.name is None else LOGIN,)

    def login(self, username: bytes, password: bytes, client: IPAddress) -> Deferred[Principal]:
        if password == b"wrong":
            return super().login(username, password, client)
        return succeed(self.principal)


@dataclass(frozen=True)
class Visit:
    """
    What a client does, and what it meets.

    Attributes:
        steps: How far it gets: 0 connects, 1 greets, 2 logs in, 3 asks.
        found: Where the name leads; ``None``: the client leaves meanwhile.
        dialled: Which of the permitted addresses answers; ``None``: none.
    """

    client: IPAddress = OFFICE
    listener: str = "office"
    principal: Principal = ANONYMOUS
    command: Command = Command.CONNECT
    destination: Destination = A_EXAMPLE
    time: float = 1767225600.5
    steps: int = 3
    password: bytes = b"right"
    found: tuple[IPAddress, ...] | None = ()
    dialled: int | None = 0


VISITS = st.builds(
    Visit,
    client=st.sampled_from(CLIENTS),
    listener=st.sampled_from(["office", "lab"]),
    principal=st.sampled_from([*PRINCIPALS, Principal("caf\udce9"), Principal(r"caf\udce9")]),
    command=st.sampled_from([Command.CONNECT, Command.CONNECT, *Command]),
    destination=st.builds(Destination.named, st.sampled_from(HOSTS), st.sampled_from(PORTS)),
    time=TIMES.map(lambda seconds: seconds + 0.999_999_9),
    steps=st.sampled_from([3, 3, 3, 2, 1, 0]),
    password=st.sampled_from([b"right", b"right", b"right", b"wrong"]),
    found=st.none() | st.lists(st.sampled_from(ADDRESSES), max_size=25).map(tuple),
    dialled=st.none() | st.integers(0, 20),
)


def session(judge: Policy, visit: Visit) -> SessionClosed:
    """Let the server serve a visit, and give what it says of it at the end."""
    world = World(policy=FakePolicy(judge.decide), authenticator=Directory(visit.principal))
    end = world.factory.buildProtocol(None)
    assert isinstance(end, SocksProtocol)
    end.connectionMade = lambda: None  # type: ignore[method-assign]  # begun below, at a time of ours
    client = FakeTransport(end, IPv4Address("TCP", "127.0.0.1", 40000))
    facts = Facts(visit.client, visit.listener, time=visit.time)
    world.sessions.begin(end, world.runtime, facts, 40000)
    dialogue = _dialogue(visit)
    for octets in list(dialogue)[: visit.steps]:
        if client.gone is None and client.producing and not client.fin:
            client.receive(octets)
    if world.resolver.pending.calls and visit.found is not None:
        lookup = world.resolver.pending.deferreds[-1]
        if visit.found:
            lookup.callback(visit.found)
        else:
            lookup.errback(Refused(ReplyCode.HOST_UNREACHABLE, "no such name"))
    if world.egress.pending.calls and visit.dialled is not None:
        permitted = world.egress.pending.calls[-1][1]
        world.egress.answer(str(permitted[visit.dialled % len(permitted)]))
        world.relays[-1].abort()
    if world.egress.port is not None and visit.dialled is not None:
        permitted = world.egress.port.addresses
        world.egress.port.connect(str(permitted[visit.dialled % len(permitted)]))
        world.relays[-1].abort()
    for association in world.associations:
        association.abort()
    if not world.events.of(SessionClosed):
        client.receive_reset()
    (closed,) = world.events.of(SessionClosed)
    return closed


def _dialogue(visit: Visit) -> Iterator[bytes]:
    name = visit.principal.name
    yield Greeting(bytes([NO_LOGIN if name is None else LOGIN])).encode()
    if name is not None:
        yield UsernamePassword(name.encode(errors="surrogateescape"), visit.password).encode()
    else:
        yield b""
    yield Request(visit.command, visit.destination).encode()


def log(judge: Policy, *visits: Visit) -> list[str]:
    return [record(session(judge, visit)) + "\n" for visit in visits]


def changes(replayed: Replayed) -> list[tuple[str, str, int]]:
    """Give what changes from what to what, and how often."""
    return [
        (_words(difference.before), _words(difference.after), group.count)
        for difference, group in replayed.groups.items()
    ]


def _words(ruling: Ruling) -> str:
    return f"{ruling.verdict.value} {ruling.rule}".strip()


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(tables=TABLES, guard=GUARDS, visits=st.lists(VISITS, min_size=1, max_size=6))
def test_the_same_policy_changes_nothing(
    tables: list[Table], guard: Guard | None, visits: list[Visit]
) -> None:
    """Not even the rule that speaks; with the log's verdicts and with its own."""
    judge = policy(*tables, guard=guard)
    lines = log(judge, *visits)
    for old in (None, judge):
        replayed = replay(lines, judge, old)
        assert replayed.groups == {}
        assert replayed.sessions + replayed.unused.total() == len(visits)
        assert set(replayed.unused) <= {Unused.NOT_ASKED, Unused.UNLISTED}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(before=TABLES, after=TABLES, guard=GUARDS, visit=VISITS)
def test_another_policy_is_followed_as_the_server_would(
    before: list[Table], after: list[Table], guard: Guard | None, visit: Visit
) -> None:
    """What replay says of a session that got to its end is what the server then does."""
    old, new = policy(*before, guard=guard), policy(*after, guard=guard)
    was, would = session(old, visit), session(new, visit)
    replayed = replay([record(was)], new)
    if replayed.unused:
        return
    (difference,) = replayed.groups or [None]
    after_all = difference.after if difference else Ruling(was.verdict or DEFER, was.rule or "")
    # What UDP ASSOCIATE names is not where it leads to.
    asked_for = None if was.command is Command.UDP_ASSOCIATE else was.destination
    literal = asked_for is not None and not isinstance(asked_for.host, str)
    settled = was.asked is Asked.ADDRESS or (was.asked is Asked.REQUEST and literal)
    if after_all.verdict is DEFER and settled:
        assert was.unlisted
    elif settled:
        assert after_all.verdict is would.verdict
        if was.address == would.address:
            assert after_all.rule == would.rule
    elif was.verdict is not DENY or after_all.verdict is DENY:
        assert (after_all.verdict is DENY) is (would.verdict is DENY)
    elif after_all.verdict is ALLOW:
        assert would.verdict is not DENY


# -- what changes, one at a time ---------------------------------------------------

WEB: Table = {"id": "web", "action": "allow", "ports": [80, 443]}
ALL: Table = {"id": "all", "action": "allow"}
NOT_OFFICE: Table = {"id": "not-office", "action": "deny", "from": ["10.1.0.0/16"]}
NOT_A: Table = {"id": "not-a", "action": "deny", "to": ["a.example"]}
NOT_TEN: Table = {"id": "not-ten", "action": "deny", "to": ["10.0.0.0/8"]}
TEN, PUBLIC = ip_address("10.0.0.1"), ip_address("192.0.2.1")
NAMED = Visit(found=(TEN, PUBLIC))
LITERAL = Visit(destination=Destination(TEN, 443))


@pytest.mark.parametrize(
    ("before", "visit", "after", "expected"),
    [
        pytest.param([ALL], NAMED, [NOT_A, ALL], ("allow all", "deny not-a"), id="by name"),
        pytest.param([ALL], LITERAL, [NOT_TEN, ALL], ("allow all", "deny not-ten"), id="literal"),
        pytest.param(
            [ALL],
            replace(NAMED, found=(TEN,)),
            [NOT_TEN, ALL],
            ("allow all", "deny not-ten"),
            id="by the address of a name",
        ),
        pytest.param([ALL], NAMED, [NOT_OFFICE, ALL], ("allow all", "deny not-office"), id="early"),
        pytest.param([ALL], NAMED, [], ("allow all", "deny default"), id="no rule left"),
        pytest.param([], LITERAL, [ALL], ("deny default", "allow all"), id="opened at once"),
        pytest.param([NOT_A, ALL], NAMED, [ALL], ("deny not-a", "allow all"), id="opened by name"),
        pytest.param(
            [NOT_TEN, ALL],
            replace(NAMED, found=(TEN,)),
            [ALL],
            ("deny not-ten", "allow all"),
            id="opened by address",
        ),
        pytest.param(
            [NOT_A, ALL],
            NAMED,
            [NOT_TEN, ALL],
            ("deny not-a", "defer"),
            id="where it leads unknown",
        ),
        pytest.param(
            [NOT_OFFICE, ALL], NAMED, [WEB], ("deny not-office", "defer"), id="what it asks unknown"
        ),
        pytest.param(
            [WEB],
            replace(NAMED, found=None),
            [NOT_A, WEB],
            ("allow web", "deny not-a"),
            id="left while the name was looked up",
        ),
        pytest.param(
            [WEB], Visit(steps=1), [NOT_OFFICE], ("defer", "deny not-office"), id="left at once"
        ),
        pytest.param([ALL], LITERAL, [WEB, ALL], ("allow all", "allow web"), id="by another rule"),
        pytest.param(
            [NOT_TEN, ALL], LITERAL, [], ("deny not-ten", "deny default"), id="denied anyway"
        ),
    ],
)
def test_what_changes_is_told(
    before: list[Table], visit: Visit, after: list[Table], expected: tuple[str, str]
) -> None:
    lines = log(policy(*before), visit)
    new, old = policy(*after), policy(*before)
    assert changes(replay(lines, new)) == [(*expected, 1)]
    if expected[0] != "defer":
        assert changes(replay(lines, new, old)) == [(*expected, 1)]


@pytest.mark.parametrize(
    ("visit", "after"),
    [
        pytest.param(Visit(steps=1), [ALL], id="goes on to ask"),
        pytest.param(replace(NAMED, found=None), [ALL], id="goes on to look up"),
    ],
)
def test_whether_it_goes_on_settled_or_not_is_no_change(visit: Visit, after: list[Table]) -> None:
    replayed = replay(log(policy(NOT_TEN, WEB), visit), policy(*after))
    assert (replayed.sessions, replayed.groups) == (1, {})


def test_the_rule_of_a_refusal_is_that_of_the_first_question() -> None:
    """Later ones could have been refused by a rule further up."""
    not_alice: Table = {"id": "not-alice", "action": "deny", "user": "alice"}
    lines = log(policy(ALL), replace(LITERAL, principal=Principal("alice")))
    after = policy(not_alice, NOT_OFFICE, ALL)
    assert changes(replay(lines, after)) == [("allow all", "deny not-office", 1)]


def test_an_association_is_decided_again_without_its_datagrams() -> None:
    """What the request names is where the client sends from: no rule about targets speaks of it."""
    visit = Visit(command=Command.UDP_ASSOCIATE, destination=Destination(OFFICE, 40123))
    allowed = log(policy({"id": "all", "action": "allow"}), visit)
    no_udp = {"id": "no-udp", "action": "deny", "command": "udp"}
    everything = {"id": "all", "action": "allow"}
    there = {"id": "there", "action": "deny", "to": str(OFFICE)}
    assert changes(replay(allowed, policy(no_udp, everything))) == [("allow all", "deny no-udp", 1)]
    assert changes(replay(allowed, policy(there, everything))) == []
    denied = log(policy(no_udp, everything), visit)
    assert changes(replay(denied, policy(no_udp, everything))) == []
    assert changes(replay(denied, policy(everything))) == [("deny no-udp", "allow all", 1)]


def test_of_several_addresses_one_that_is_permitted_is_enough() -> None:
    lines = log(policy(ALL), replace(NAMED, dialled=None))
    assert replay(lines, policy(NOT_TEN, ALL)).groups == {}


def test_an_address_is_judged_as_what_it_reaches() -> None:
    """To connect to 0.0.0.0 is to connect to this host."""
    not_here: Table = {"id": "not-here", "action": "deny", "to": "127.0.0.1"}
    lines = log(policy(ALL), Visit(destination=Destination.named("0.0.0.0", 443), dialled=None))
    assert changes(replay(lines, policy(not_here, ALL))) == [("allow all", "deny not-here", 1)]


def test_the_old_policy_replaces_what_the_log_says() -> None:
    """A log of several days may have been made under several policies."""
    lines = log(policy(ALL), LITERAL)
    assert changes(replay(lines, policy(WEB), policy(WEB))) == []
    assert changes(replay(lines, policy(WEB), policy())) == [("deny default", "allow web", 1)]


def test_what_matters_of_the_time_is_whether_a_rule_holds() -> None:
    at_night: Table = {"id": "night", "action": "deny", "when": ["22:00-06:00 UTC"]}
    lines = log(policy(ALL), LITERAL, replace(LITERAL, time=LITERAL.time + 12 * 3600))
    assert changes(replay(lines, policy(at_night, ALL))) == [("allow all", "deny night", 1)]


def test_who_belongs_to_a_group_is_in_the_log() -> None:
    ops: Table = {"id": "ops", "action": "allow", "group": ["ops"]}
    visit = replace(LITERAL, principal=Principal("carol", frozenset({"ops"})))
    lines = log(policy(ALL), visit, replace(visit, principal=Principal("carol")))
    assert changes(replay(lines, policy(ops))) == [
        ("allow all", "allow ops", 1),
        ("allow all", "deny default", 1),
    ]


def test_sessions_that_differ_in_the_same_way_are_one_group() -> None:
    alice = replace(LITERAL, principal=Principal("alice"))
    lines = log(policy(ALL), LITERAL, alice, replace(alice, client=TEN), alice)
    replayed = replay(lines, policy())
    assert [(d.user, d.destination, g.count) for d, g in replayed.groups.items()] == [
        (None, "10.0.0.1:443", 1),
        ("alice", "10.0.0.1:443", 3),
    ]
    example = replayed.groups[
        Difference(Ruling(ALLOW, "all"), Ruling(DENY, "default"), "alice", "10.0.0.1:443")
    ]
    assert (example.time, example.session, example.client) == (
        "2026-01-01T00:00:00.500000Z",
        "1",
        "10.1.0.1",
    )
    assert (replayed.changed, replayed.other_rule) == (4, 0)


def test_another_rule_alone_is_not_counted_as_a_change() -> None:
    replayed = replay(log(policy(ALL), LITERAL), policy(WEB))
    assert (replayed.changed, replayed.other_rule) == (0, 1)


# -- too many addresses --------------------------------------------------------------

MANY = tuple(ip_address(f"10.0.0.{last}") for last in range(1, 31))


def test_of_too_many_addresses_the_permitted_ones_are_kept() -> None:
    judge = policy(NOT_TEN, ALL)
    closed = session(judge, Visit(found=(*MANY, PUBLIC)))
    assert (closed.addresses, closed.unlisted) == ((PUBLIC,), 30)
    assert replay([record(closed)], judge).groups == {}


def test_a_refusal_is_not_called_unchanged_by_some_of_the_addresses() -> None:
    lines = log(policy(NOT_TEN, ALL), Visit(found=MANY))
    replayed = replay(lines, policy(NOT_TEN, ALL))
    assert (replayed.groups, replayed.unused) == ({}, {Unused.UNLISTED: 1})
    assert changes(replay(lines, policy(ALL))) == [("deny not-ten", "allow all", 1)]


def test_a_permission_is_not_called_unchanged_by_none_of_the_addresses() -> None:
    lines = log(policy(ALL), Visit(found=MANY))
    assert changes(replay(lines, policy(NOT_TEN, ALL))) == [("allow all", "defer", 1)]


def test_the_address_that_was_dialled_counts_though_it_is_not_listed() -> None:
    closed = session(policy(ALL), Visit(found=MANY, dialled=25))
    assert closed.address == MANY[25]
    assert closed.address not in closed.addresses
    only: Table = {"id": "only", "action": "allow", "to": ["10.0.0.26"]}
    assert changes(replay([record(closed)], policy(only))) == [("allow all", "allow only", 1)]


# -- lines that say nothing ----------------------------------------------------------


def written(**changes: Any) -> str:
    return json.dumps(json.loads(log(policy(ALL), NAMED)[0]) | changes)


def without(key: str) -> str:
    line = json.loads(written())
    del line[key]
    return json.dumps(line)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param(written()[:-20], Unused.TORN, id="torn"),
        pytest.param(written()[20:], Unused.TORN, id="the rest of a torn one"),
        pytest.param("", Unused.TORN, id="empty"),
        pytest.param("[]", Unused.TORN, id="a list"),
        pytest.param("[" * 100_000, Unused.TORN, id="too deep"),
        *(pytest.param(without(k), Unused.LACKING, id=f"no {k}") for k in json.loads(written())
          if k in ("client", "user", "groups", "addresses", "asked", "time")),
        pytest.param(written(client="10.1"), Unused.UNREADABLE, id="client"),
        pytest.param(written(client=None), Unused.UNREADABLE, id="no client"),
        pytest.param(written(client={}), Unused.UNREADABLE, id="a table for an address"),
        pytest.param(written(addresses=7), Unused.UNREADABLE, id="a number for a list"),
        pytest.param(written(addresses=[]), Unused.UNREADABLE, id="no addresses"),
        pytest.param(written(port="443"), Unused.UNREADABLE, id="a string for a number"),
        pytest.param(written(command="fly"), Unused.UNREADABLE, id="command"),
        pytest.param(written(asked="always"), Unused.UNREADABLE, id="asked"),
        pytest.param(written(verdict=None), Unused.UNREADABLE, id="asked without a verdict"),
        pytest.param(written(time="yesterday"), Unused.UNREADABLE, id="time"),
        pytest.param(written(time=0), Unused.UNREADABLE, id="time as a number"),
        pytest.param(written(time="2026-01-01T00:00:00"), Unused.UNREADABLE, id="no zone"),
        pytest.param(written(asked=None), Unused.NOT_ASKED, id="never asked"),
        pytest.param(written(asked="client"), Unused.NOT_ASKED, id="answered by the gateway"),
        pytest.param(written(outcome="error"), Unused.BUG, id="a bug"),
    ],
)  # fmt: skip
def test_a_line_without_the_facts_is_counted_and_never_guessed(line: str, why: Unused) -> None:
    always: Table = {"id": "always", "action": "allow", "when": ["00:00-24:00 UTC"]}
    replayed = replay([line, written()], policy(always))
    assert replayed.unused == {why: 1}
    assert replayed.sessions == 1


def test_a_time_that_no_rule_asks_for_may_be_anything() -> None:
    assert replay([written(time=None)], policy(ALL)).sessions == 1


def test_each_of_a_bounded_number_of_sessions_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    lines = [written(port=port) for port in (1, 2, 3, 1, 2, 3)]
    assert sum(g.count for g in replay(lines, policy()).groups.values()) == 6

from dataclasses import replace
from datetime import datetime
from ipaddress import IPv4Address, ip_address, ip_network
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination, IPAddress
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Facts, Principal
from socksd.policy.match import (
    Answer,
    At,
    ByUser,
    FromNetworks,
    Group,
    Hostname,
    Hours,
    InGroup,
    NotFrom,
    NotTo,
    OnListener,
    ResolvesTo,
    Share,
    ToHost,
    ToPorts,
    WithCommand,
)
from socksd.policy.sets import HostSet

FIRST = Facts(IPv4Address("10.0.0.7"), "office")
CLIENT = FromNetworks.of([ip_network("10.0.0.0/8"), ip_network("::1")])
LISTENER = OnListener.of(["office"])


@pytest.mark.parametrize(
    ("client", "answer"),
    [
        pytest.param("10.9.9.9", True, id="in one"),
        pytest.param("::1", True, id="in another"),
        pytest.param("11.0.0.1", False, id="in none"),
    ],
)
def test_from_is_where_the_client_is(client: str, answer: bool) -> None:
    assert CLIENT.matches(replace(FIRST, client=ip_address(client))) is answer


def test_listener_is_where_the_client_came_in() -> None:
    assert LISTENER.matches(FIRST) is True
    assert LISTENER.matches(replace(FIRST, listener="lab")) is False


@pytest.mark.parametrize(
    ("users", "principal", "answer"),
    [
        pytest.param(["alice"], None, None, id="name, not known yet"),
        pytest.param(["@any"], None, None, id="any, not known yet"),
        pytest.param(["@none"], None, None, id="none, not known yet"),
        pytest.param(["alice", "bob"], Principal("bob"), True, id="one of them"),
        pytest.param(["alice"], Principal("bob"), False, id="somebody else"),
        pytest.param(["alice"], Principal("Alice"), False, id="case counts"),
        pytest.param(["alice"], ANONYMOUS, False, id="name, without login"),
        pytest.param(["@any"], Principal("bob"), True, id="any, logged in"),
        pytest.param(["@any"], ANONYMOUS, False, id="any, without login"),
        pytest.param(["@none"], ANONYMOUS, True, id="none, without login"),
        pytest.param(["@none"], Principal("bob"), False, id="none, logged in"),
        pytest.param(["@none"], Principal("@none"), False, id="somebody called @none"),
        pytest.param(["alice"], Principal("@any"), False, id="somebody called @any"),
        pytest.param(["alice", "@none"], ANONYMOUS, True, id="mixed, without login"),
        pytest.param(["caf\u00e9"], Principal("caf\udce9"), False, id="octets that are not UTF-8"),
    ],
)
def test_user_is_who_they_are(
    users: list[str], principal: Principal | None, answer: Answer
) -> None:
    assert ByUser.of(users).matches(replace(FIRST, principal=principal)) is answer


def test_command_is_what_they_ask() -> None:
    condition = WithCommand.of([Command.CONNECT, Command.BIND])
    assert condition.matches(FIRST) is None
    assert condition.matches(replace(FIRST, command=Command.BIND)) is True
    assert condition.matches(replace(FIRST, command=Command.UDP_ASSOCIATE)) is False


NAMES = ToHost.of([".example"])
GLOB = ToHost.of(["1*"])
NETWORKS = ToHost.of([ip_network("192.0.2.0/24")])
BOTH = ToHost.of([".example", ip_network("192.0.2.0/24")])
IN, OUT = IPv4Address("192.0.2.1"), IPv4Address("198.51.100.1")


@pytest.mark.parametrize(
    ("condition", "host", "address", "answer"),
    [
        pytest.param(NAMES, None, None, None, id="names: nothing known"),
        pytest.param(NAMES, None, IN, None, id="names: address known"),
        pytest.param(NAMES, "a.example", None, True, id="names: a match"),
        pytest.param(NAMES, "a.test", None, False, id="names: a mismatch"),
        pytest.param(NAMES, "192.0.2.1", None, False, id="names: a literal is no name"),
        pytest.param(GLOB, "192.0.2.1", None, False, id="names: not even one that looks so"),
        pytest.param(NETWORKS, None, None, None, id="networks: nothing known"),
        pytest.param(NETWORKS, None, IN, True, id="networks: address known"),
        pytest.param(NETWORKS, "a.example", None, None, id="networks: name not resolved"),
        pytest.param(NETWORKS, "a.example", IN, True, id="networks: name leads in"),
        pytest.param(NETWORKS, "a.example", OUT, False, id="networks: name leads elsewhere"),
        pytest.param(BOTH, None, None, None, id="both: nothing known"),
        pytest.param(BOTH, None, IN, True, id="both: address in, name unknown"),
        pytest.param(BOTH, None, OUT, None, id="both: address out, name unknown"),
        pytest.param(BOTH, "a.example", None, True, id="both: the name does, wherever it leads"),
        pytest.param(BOTH, "a.example", OUT, True, id="both: the name does"),
        pytest.param(BOTH, "a.test", None, None, id="both: the address may"),
        pytest.param(BOTH, "a.test", IN, True, id="both: the address does"),
        pytest.param(BOTH, "a.test", OUT, False, id="both: neither does"),
    ],
)
def test_to_is_the_name_or_the_address(
    condition: ToHost, host: str | None, address: IPAddress | None, answer: Answer
) -> None:
    destination = None if host is None else Destination.named(host, 80)
    facts = replace(FIRST, destination=destination, address=address)
    assert condition.matches(facts) is answer


def test_a_network_holds_a_literal_at_once() -> None:
    facts = FIRST.asking(Command.CONNECT, Destination.named("192.0.2.1", 80))
    assert NETWORKS.matches(facts) is True


@given(
    st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted), min_size=1),
    st.integers(0, 65535),
    st.data(),
)
def test_ports_are_what_one_of_the_ranges_holds(
    bounds: list[list[int]], port: int, data: st.DataObject
) -> None:
    ranges = [range(first, last + 1) for first, last in bounds]
    near = st.sampled_from([edge + by for pair in bounds for edge in pair for by in (-1, 0, 1)])
    for asked in (port, data.draw(near)):
        facts = replace(FIRST, destination=Destination("a.example", asked))
        assert ToPorts.of(ranges).matches(facts) is any(asked in each for each in ranges)


def test_ports_are_unknown_before_there_is_a_destination() -> None:
    assert ToPorts.of([range(65536)]).matches(FIRST) is None


DBA = Group("dba", frozenset({"alice"}))
OPS = Group("ops", frozenset())


@pytest.mark.parametrize(
    ("groups", "principal", "answer"),
    [
        pytest.param([DBA], None, None, id="not known yet"),
        pytest.param([DBA], Principal("alice"), True, id="by the configuration"),
        pytest.param([DBA], Principal("bob"), False, id="not by the configuration"),
        pytest.param([DBA], Principal("bob", frozenset({"dba"})), True, id="by authenticator"),
        pytest.param([OPS], Principal("bob", frozenset({"dba"})), False, id="another group"),
        pytest.param([DBA, OPS], Principal("bob", frozenset({"ops"})), True, id="one of two"),
        pytest.param([DBA, OPS], ANONYMOUS, False, id="without login"),
        pytest.param([DBA], Principal("dba"), False, id="a user of the group's name"),
    ],
)
def test_group_is_what_they_belong_to(
    groups: list[Group], principal: Principal | None, answer: Answer
) -> None:
    assert InGroup.of(groups).matches(replace(FIRST, principal=principal)) is answer


@pytest.mark.parametrize(
    ("client", "answer"),
    [pytest.param("10.1.0.7", False, id="in it"), pytest.param("10.2.0.7", True, id="outside")],
)
def test_not_from_is_where_the_client_is_not(client: str, answer: bool) -> None:
    condition = NotFrom.of([ip_network("10.1.0.0/16")])
    assert condition.matches(replace(FIRST, client=ip_address(client))) is answer


@pytest.mark.parametrize("condition", [NAMES, GLOB, NETWORKS, BOTH])
@pytest.mark.parametrize("host", [None, "a.example", "a.test", "192.0.2.1"])
@pytest.mark.parametrize("address", [None, IN, OUT])
def test_not_to_is_where_to_does_not_match(
    condition: ToHost, host: str | None, address: IPAddress | None
) -> None:
    destination = None if host is None else Destination.named(host, 80)
    facts = replace(FIRST, destination=destination, address=address)
    to, not_to = condition.matches(facts), NotTo(condition.sets).matches(facts)
    assert not_to is (None if to is None else not to)


def test_a_set_is_as_what_it_holds() -> None:
    network = ip_network("192.0.2.0/24")
    named = ToHost.of([HostSet.of([network], "@x"), ".example"])
    for address in (None, IN, OUT):
        facts = replace(FIRST, destination=Destination("a.test", 80), address=address)
        assert named.matches(facts) is BOTH.matches(facts)


@pytest.mark.parametrize(
    ("host", "address", "answer"),
    [
        pytest.param("a.example", None, None, id="a name, not resolved"),
        pytest.param("a.example", IN, True, id="a name that lands there"),
        pytest.param("a.example", OUT, False, id="a name that lands elsewhere"),
        pytest.param("192.0.2.1", IN, True, id="a literal lands at itself"),
        pytest.param("198.51.100.1", OUT, False, id="so it is no way around"),
    ],
)
def test_resolves_to_is_what_would_be_dialled(
    host: str, address: IPAddress | None, answer: Answer
) -> None:
    condition = ResolvesTo.of([ip_network("192.0.2.0/24")])
    facts = replace(FIRST, destination=Destination.named(host, 80), address=address)
    assert condition.matches(facts) is answer


def test_a_host_name_is_one_the_client_has_not_looked_up() -> None:
    assert Hostname().matches(FIRST) is None
    for host, answer in (("a.example", True), ("192.0.2.1", False), ("::1", False)):
        assert Hostname().matches(replace(FIRST, destination=Destination.named(host, 80))) is answer


def at(zone: str, *minutes: tuple[int, int]) -> At:
    return At.of([Hours(ZoneInfo(zone), tuple(range(*each) for each in minutes))])


def on(condition: At, moment: str) -> Answer:
    return condition.matches(replace(FIRST, time=datetime.fromisoformat(moment).timestamp()))


SUNDAY = 6 * 1440


@pytest.mark.parametrize(
    ("moment", "answer"),
    [
        pytest.param("2026-10-25T01:59:59+02:00", False, id="not yet"),
        pytest.param("2026-10-25T02:00:00+02:00", True, id="summer time's hour"),
        pytest.param("2026-10-25T02:59:59+02:00", True, id="to its end"),
        pytest.param("2026-10-25T02:00:00+01:00", True, id="and the same again in winter time"),
        pytest.param("2026-10-25T03:00:00+01:00", False, id="no more"),
        pytest.param("2026-03-29T01:59:59+01:00", False, id="spring: not yet"),
        pytest.param("2026-03-29T03:00:00+02:00", False, id="spring: that hour never comes"),
        pytest.param("2026-10-24T02:30:00+02:00", False, id="another day"),
    ],
)
def test_hours_are_those_the_clocks_show(moment: str, answer: bool) -> None:
    assert on(at("Europe/Berlin", (SUNDAY + 120, SUNDAY + 180)), moment) is answer


def test_each_time_zone_has_its_own_clocks() -> None:
    morning = (0, 720)
    berlin, new_york = at("Europe/Berlin", morning), at("America/New_York", morning)
    either = At.of(
        [
            Hours(ZoneInfo(zone), (range(*morning),))
            for zone in ("America/New_York", "Europe/Berlin")
        ]
    )
    for moment, answers in (
        ("2026-06-29T05:00:00+02:00", (True, False, True)),
        ("2026-06-29T10:00:00-04:00", (False, True, True)),
        ("2026-06-29T20:00:00+02:00", (False, False, False)),
    ):
        assert (on(berlin, moment), on(new_york, moment), on(either, moment)) == answers


def test_a_share_is_a_part_of_the_people() -> None:
    share = Share("trial", 0.05)
    people = [replace(FIRST, principal=Principal(f"user-{n}")) for n in range(4000)]
    assert 150 < sum(share.matches(facts) is True for facts in people) < 250
    assert all(Share("trial", 1.0).matches(facts) for facts in people)


DRAWN = ["alice", "bob", "erin", "caf\udce9"]


def test_a_share_is_always_the_same_people() -> None:
    """In every process and after a restart, wherever they come from: these are known by hand."""
    share = Share("trial", 0.5)
    drawn = [name for name in ("alice", "bob", "carol", "dave", "erin", "caf\udce9")
             if share.matches(replace(FIRST, principal=Principal(name)))]  # fmt: skip
    assert drawn == DRAWN
    elsewhere = replace(FIRST, client=IPv4Address("10.9.9.9"), time=1.0)
    for name in ("alice", "bob", "carol"):
        facts = replace(elsewhere, principal=Principal(name))
        assert share.matches(facts) is (name in DRAWN)


def test_a_share_of_clients_without_login_is_drawn_by_address() -> None:
    share = Share("trial", 0.5)
    answers = [
        share.matches(replace(FIRST, client=IPv4Address(n), principal=ANONYMOUS))
        for n in range(200)
    ]
    assert 60 < answers.count(True) < 140


def test_each_trial_has_people_of_its_own() -> None:
    people = [replace(FIRST, principal=Principal(f"user-{n}")) for n in range(200)]
    one, other = Share("one", 0.5), Share("other", 0.5)
    assert [one.matches(facts) for facts in people] != [other.matches(facts) for facts in people]


def test_a_share_is_unknown_before_it_is_known_who() -> None:
    assert Share("trial", 1.0).matches(FIRST) is None

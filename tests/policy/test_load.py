import tomllib
from contextlib import suppress
from datetime import UTC
from ipaddress import ip_network
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.codes import Command
from socksd.errors import ConfigError, Problem
from socksd.facts import Verdict
from socksd.policy import values
from socksd.policy.load import load_groups, load_rules, load_sets
from socksd.policy.match import (
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
from socksd.policy.rules import Rule
from socksd.policy.sets import HostSet
from socksd.policy.special import SPECIAL

LISTENERS = ("office", "lab")
LAN = HostSet.of([ip_network("10.1.0.0/16")], "@lan")
MIXED = HostSet.of([ip_network("10.2.0.0/16"), ".lan.example"], "@mixed")
SETS = {**SPECIAL, "@lan": LAN, "@mixed": MIXED}
GROUPS = {"dba": Group("dba", frozenset({"alice"})), "ops": Group("ops", frozenset())}
BERLIN = ZoneInfo("Europe/Berlin")


def loaded(tables: object) -> tuple[Rule, ...]:
    return load_rules(
        tables, LISTENERS, sets=SETS, groups=GROUPS, routes=("direct", "dmz"), limits=("bulk",)
    )


def load(text: str) -> tuple[Rule, ...]:
    return loaded(tomllib.loads(text)["rule"])


def one(**keys: Any) -> Rule:
    (rule,) = loaded([{"id": "x", "action": "allow"} | keys])
    return rule


def problems(tables: object) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(tables)
    return caught.value.problems


def test_a_rule_says_what_it_says() -> None:
    assert load(
        """
        [[rule]]
        id = "dba-postgres"
        action = "allow"
        from = ["10.20.0.0/16", "fd20::/32"]
        listener = "office"
        user = ["alice", "bob"]
        command = ["connect", "bind", "udp"]
        to = ["db-*.corp.example", ".db.example", "10.40.0.0/16", "10.41.0.1"]
        ports = [5432, "8000-8999"]
        log = false

        [[rule]]
        id = "rest"
        action = "deny"
        group = ["dba", "ops"]
        not_from = "@lan"
        not_to = ["@mixed", "a.example"]
        resolves_to = ["@private", "192.0.2.0/24"]
        when = ["mon-tue 07:00-08:00 Europe/Berlin", "sun UTC"]
        require = "hostname"
        mode = "report"
        share = 0.05
        text = "Ask the network people."
        route = "dmz"
        limits = "bulk"
        """
    ) == (
        Rule(
            "dba-postgres",
            Verdict.ALLOW,
            (
                OnListener.of(["office"]),
                ByUser.of(["alice", "bob"]),
                WithCommand.of(list(Command)),
                ToPorts.of([range(5432, 5433), range(8000, 9000)]),
                FromNetworks.of([ip_network("10.20.0.0/16"), ip_network("fd20::/32")]),
                ToHost.of(
                    [
                        "db-*.corp.example",
                        ".db.example",
                        ip_network("10.40.0.0/16"),
                        ip_network("10.41.0.1"),
                    ]
                ),
            ),
            log=False,
        ),
        Rule(
            "rest",
            Verdict.DENY,
            (
                InGroup.of(GROUPS.values()),
                Hostname(),
                At.of(
                    [
                        Hours(BERLIN, (range(420, 480), range(1440 + 420, 1440 + 480))),
                        Hours(UTC, (range(6 * 1440, 7 * 1440),)),
                    ]
                ),
                NotFrom.of([LAN]),
                NotTo.of([MIXED, "a.example"]),
                ResolvesTo.of([SPECIAL["@private"], ip_network("192.0.2.0/24")]),
                Share("rest", 0.05),
            ),
            on_trial=True,
            text="Ask the network people.",
            route="dmz",
            limits="bulk",
        ),
    )


def test_a_rule_may_let_datagrams_in_that_nobody_has_asked_for() -> None:
    assert one(udp_replies="any") == Rule("x", Verdict.ALLOW, (), unasked=True)
    assert one(udp_replies="any").decision().unasked
    assert one(udp_replies="asked") == one()
    assert not one().decision().unasked


def test_what_is_denied_lets_nobody_in() -> None:
    with pytest.raises(ConfigError) as failed:
        one(action="deny", udp_replies="any")
    (problem,) = failed.value.problems
    assert problem.path == "rule[0].udp_replies"
    assert "rules that allow" in problem.message


@pytest.mark.parametrize("command", ["bind", "udp"])
def test_by_another_route_there_are_connections_only(command: str) -> None:
    """What is refused each time need not be written; without a command it is meant for others."""
    with pytest.raises(ConfigError) as caught:
        one(route="dmz", command=["connect", command])
    (problem,) = caught.value.problems
    message = f"{command} goes by 'direct' only, and would be refused"
    assert problem == Problem("rule[0].route", message)
    assert one(route="direct", command=command).route == "direct"
    assert one(route="dmz").route == "dmz"
    assert one(action="deny", route="dmz", command=command).route == "dmz"


def test_a_plain_rule_is_enforced_directly_without_limits() -> None:
    assert one() == one(mode="enforce", route="direct")
    assert one() == Rule("x", Verdict.ALLOW, (), on_trial=False, text="", route="direct", limits="")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("from", "10.0.0.0/8", id="from"),
        pytest.param("listener", "lab", id="listener"),
        pytest.param("user", "alice", id="user"),
        pytest.param("command", "udp", id="command"),
        pytest.param("to", "a.example", id="to"),
        pytest.param("not_from", "@lan", id="not_from"),
        pytest.param("not_to", "@mixed", id="not_to"),
        pytest.param("resolves_to", "10.0.0.0/8", id="resolves_to"),
        pytest.param("group", "dba", id="group"),
        pytest.param("when", "mon UTC", id="when"),
        pytest.param("ports", 443, id="ports, a number"),
        pytest.param("ports", "1-9", id="ports, a range"),
    ],
)
def test_one_value_may_stand_without_a_list(key: str, value: object) -> None:
    assert one(**{key: value}) == one(**{key: [value]})


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        pytest.param("A.Example.", "a.example", id="name: case and dot"),
        pytest.param("bücher.example", "xn--bcher-kva.example", id="name: IDNA"),
        pytest.param(".Bücher.Example.", ".xn--bcher-kva.example", id="suffix"),
        pytest.param("DB-?.Bücher.Example.", "db-?.xn--bcher-kva.example", id="glob"),
        pytest.param("0x7f.1", "127.0.0.1", id="address: hexadecimal"),
        pytest.param("2130706433", "127.0.0.1/32", id="address: a number"),
        pytest.param("[::1]", "::1/128", id="address: brackets"),
        pytest.param("::ffff:10.0.0.1", "10.0.0.1", id="address: mapped"),
        pytest.param("::ffff:10.0.0.1/128", "10.0.0.1", id="network of one: mapped"),
        pytest.param("::ffff:10.0.0.0/104", "10.0.0.0/8", id="network: mapped"),
        pytest.param("::ffff:0:0/96", "0.0.0.0/0", id="network: all that is mapped"),
        pytest.param("FD00:0::/8", "fd00::/8", id="network: case and zeros"),
    ],
)
def test_a_target_is_normalised_as_a_destination_is(written: str, normal: str) -> None:
    assert one(to=written) == one(to=normal)


def test_a_number_within_a_name_is_no_address() -> None:
    assert one(to="*.1.example") == Rule("x", Verdict.ALLOW, (ToHost.of(["*.1.example"]),))


@pytest.mark.parametrize("network", ["::/95", "::/0", "2001:db8::/112"])
def test_a_network_that_is_not_mapped_is_of_ipv6(network: str) -> None:
    assert one(to=network) == Rule("x", Verdict.ALLOW, (ToHost.of([ip_network(network)]),))


WRONG: list[Any] = [
    # key, value, path below the rule, words of the message
    pytest.param("id", "", "id", ["is empty"], id="id: empty"),
    pytest.param("id", "a b", "id", ["'a b'", "letters, digits"], id="id: a space"),
    pytest.param("id", "-", "id", ["the first a letter"], id="id: what a log has for nothing"),
    pytest.param("id", "a\n", "id", [r"'a\n'"], id="id: a line of its own"),
    pytest.param("id", "bücher", "id", ["letters"], id="id: not ASCII"),
    pytest.param("id", "default", "id", ["when no rule matches"], id="id: reserved"),
    pytest.param("id", 7, "id", ["must be a string, not a number"], id="id: a number"),
    pytest.param("id", ["a"], "id", ["must be a string, not a list"], id="id: a list"),
    pytest.param(
        "action", "alow", "action", ["'allow', 'deny'", "mean 'allow'?"], id="action: unknown"
    ),
    pytest.param("action", "defer", "action", ["'allow', 'deny'"], id="action: no action"),
    pytest.param("action", True, "action", ["not a boolean"], id="action: a boolean"),
    pytest.param("too", "a.example", "too", ["no such key", "mean 'to'?"], id="key: unknown"),
    pytest.param("from", [], "from", ["matches nothing", "without the key"], id="from: empty"),
    pytest.param("from", "a.example", "from", ["a name", "addresses"], id="from: a name"),
    pytest.param("from", ["10.0.0.1", "x/8"], "from[1]", ["no network"], id="from: no network"),
    pytest.param("from", "0.0.0.0", "from", ["never seen", "127.0.0.1"], id="from: unspecified"),
    pytest.param("from", "::", "from", ["reaches ::1"], id="from: unspecified, IPv6"),
    pytest.param("listener", "ofice", "listener", ["mean 'office'?"], id="listener: unknown"),
    pytest.param("listener", [1], "listener[0]", ["a string"], id="listener: a number"),
    pytest.param("user", "@all", "user", ["'@any'", "'@none'"], id="user: unknown word"),
    pytest.param("user", "@nome", "user", ["mean '@none'?"], id="user: nearly a word"),
    pytest.param("user", ["a", ""], "user[1]", ["is empty"], id="user: empty"),
    pytest.param("user", {"a": 1}, "user", ["not a table"], id="user: a table"),
    pytest.param("command", "conect", "command", ["mean 'connect'?"], id="command: unknown"),
    pytest.param("command", ["udp", "UDP"], "command[1]", ["'udp'"], id="command: case"),
    pytest.param("to", [], "to", ["matches nothing"], id="to: empty"),
    pytest.param("to", [["a.example"]], "to[0]", ["not a list"], id="to: a list in a list"),
    pytest.param("to", 2130706433, "to", ["not a number"], id="to: a number"),
    pytest.param("to", 1.5, "to", ["not a float"], id="to: a float"),
    pytest.param("to", "10.1.0.0/8", "to", ["'10.0.0.0/8'", "'10.1.0.0'"], id="to: host bits"),
    pytest.param("to", "10/8", "to", ["write one as 10.0.0.0/8"], id="to: a short network"),
    pytest.param("to", "10.0.0.0/33", "to", ["0 to 32"], id="to: too long a prefix"),
    pytest.param("to", "fd00::/129", "to", ["0 to 128"], id="to: too long a prefix, IPv6"),
    pytest.param("to", "10.0.0.0/255.0.0.0", "to", ["prefix length"], id="to: a netmask"),
    pytest.param("to", "10.0.0.0/", "to", ["prefix length"], id="to: no prefix"),
    pytest.param("to", "fe80::%1/10", "to", ["zone"], id="to: a network with a zone"),
    pytest.param("to", "fe80::1%eth0", "to", ["zone"], id="to: an address with a zone"),
    pytest.param("to", "http://a.example/", "to", ["no network"], id="to: a URL"),
    pytest.param("to", "a.example:443", "to", ["'ports'"], id="to: a port"),
    pytest.param("to", "[::1]:443", "to", ["'ports'"], id="to: a port, IPv6"),
    pytest.param("to", "a..example", "to", ["not a host"], id="to: an empty label"),
    pytest.param("to", "a b", "to", ["not a host"], id="to: a space"),
    pytest.param("to", "1.2.3.4.5", "to", ["not an address"], id="to: no address"),
    pytest.param("to", "0.0.0.0", "to", ["127.0.0.1"], id="to: unspecified"),
    pytest.param("to", "0/32", "to", ["no network"], id="to: unspecified, short"),
    pytest.param("to", "::/128", "to", ["never seen"], id="to: a network of the unspecified"),
    pytest.param("to", "::ffff:0.0.0.0/128", "to", ["never seen"], id="to: the same, mapped"),
    pytest.param("to", ".", "to", ["empty host"], id="to: an empty suffix"),
    pytest.param("to", "..example", "to", ["not a host"], id="to: two dots"),
    pytest.param("to", ".10.0.0.1", "to", ["nothing below"], id="to: a suffix of addresses"),
    pytest.param("to", "*", "to", ["every name, but no address"], id="to: everything"),
    pytest.param("to", "**", "to", ["every name, but no address"], id="to: everything twice"),
    pytest.param("to", "10.0.*", "to", ["as a network"], id="to: a glob of addresses"),
    pytest.param("to", "*.0x7F", "to", ["as a network"], id="to: a glob that ends in a number"),
    pytest.param("to", ".*.example", "to", ["empty label"], id="to: a glob with a dot before"),
    pytest.param("to", "bü*.example", "to", ["not ASCII"], id="to: a glob in a label of IDNA"),
    pytest.param("to", "a[1-9]*.example", "to", ["not a host"], id="to: more than a glob"),
    pytest.param("to", "*.a b.example", "to", ["not a host"], id="to: a glob with a space"),
    pytest.param("ports", [], "ports", ["matches nothing"], id="ports: empty"),
    pytest.param("ports", True, "ports", ["not a boolean"], id="ports: a boolean"),
    pytest.param("ports", [80, 65536], "ports[1]", ["0 to 65535"], id="ports: too high"),
    pytest.param("ports", -1, "ports", ["0 to 65535"], id="ports: too low"),
    pytest.param("ports", "1-65536", "ports", ["0 to 65535"], id="ports: a range too high"),
    pytest.param("ports", "443", "ports", ["a port is a number: 443"], id="ports: a string"),
    pytest.param("ports", "http", "ports", ['"8000-8999"'], id="ports: a service"),
    pytest.param("ports", "９-１０", "ports", ["no range"], id="ports: other digits"),
    pytest.param("ports", "9000-8000", "ports", ['"8000-9000"?'], id="ports: backwards"),
    pytest.param("id", "guard", "id", ["what [guard] refuses"], id="id: the guard's"),
    pytest.param("from", "@lna", "from", ["mean '@lan'?"], id="from: unknown set"),
    pytest.param("from", ["@mixed"], "from[0]", ["@mixed holds names"], id="from: names in a set"),
    pytest.param("not_from", "a.example", "not_from", ["is a name"], id="not_from: a name"),
    pytest.param("to", "@priv", "to", ["no set", "mean '@private'?"], id="to: unknown set"),
    pytest.param("to", "@", "to", ["no set", "there are: @loopback,"], id="to: no set's name"),
    pytest.param("not_to", "10/8", "not_to", ["no network"], id="not_to: no network"),
    pytest.param("resolves_to", ".lan", "resolves_to", ["not a host"], id="resolves_to: a suffix"),
    pytest.param("resolves_to", "@mixed", "resolves_to", ["names"], id="resolves_to: names"),
    pytest.param("group", "dab", "group", ["mean 'dba'?"], id="group: unknown"),
    pytest.param("group", "x", "group", ["no group", "there are: dba, ops"], id="group: no idea"),
    pytest.param("require", "name", "require", ["'hostname'"], id="require: unknown"),
    pytest.param("mode", "repotr", "mode", ["mean 'report'?"], id="mode: unknown"),
    pytest.param("share", 0.5, "share", ['mode = "report"'], id="share: of a rule in force"),
    pytest.param("text", "a\nb", "text", ["one line"], id="text: two lines"),
    pytest.param("text", "\x1b[2J", "text", ["printed"], id="text: what a terminal obeys"),
    pytest.param("text", "", "text", ["is empty"], id="text: empty"),
    pytest.param("route", "dzm", "route", ["mean 'dmz'?"], id="route: unknown"),
    pytest.param(
        "udp_replies", "all", "udp_replies", ["'any'", "'asked'"], id="udp_replies: unknown"
    ),
    pytest.param("log", "no", "log", ["true or false, not a string"], id="log: a word"),
    pytest.param("limits", "bukl", "limits", ["mean 'bulk'?"], id="limits: unknown"),
    pytest.param("when", 7, "when", ["not a number"], id="when: a number"),
    pytest.param("when", "mon-fri 07:00-20:00", "when", ["time zone", "Berlin"], id="when: zone"),
    pytest.param("when", "07:00-20:00", "when", ["names no time zone"], id="when: no zone either"),
    pytest.param("when", "Europe/Berlin", "when", ["is no time"], id="when: only a zone"),
    pytest.param("when", " ", "when", ["is no time"], id="when: blank"),
    pytest.param("when", "Mon 07:00-20:00 UTC", "when", ["is no time"], id="when: upper case"),
    pytest.param("when", "07:00-20:00 mon UTC", "when", ["is no time"], id="when: turned round"),
    pytest.param("when", "tues UTC", "when", ["no day", "mean 'tue'?"], id="when: no day"),
    pytest.param("when", "mon-fr UTC", "when", ["'fr' is no day"], id="when: no last day"),
    pytest.param("when", "mon- UTC", "when", ["'' is no day"], id="when: half a range"),
    pytest.param("when", "mon,, UTC", "when", ["'' is no day"], id="when: nothing in a list"),
    pytest.param("when", "7-20 UTC", "when", ['"07:00-20:00"'], id="when: hours only"),
    pytest.param("when", "07:60-20:00 UTC", "when", ["time of day"], id="when: minutes"),
    pytest.param("when", "24:00-20:00 UTC", "when", ["24:00"], id="when: begins tomorrow"),
    pytest.param("when", "07:00-24:01 UTC", "when", ["24:00"], id="when: ends tomorrow"),
    pytest.param("when", "07:00-07:00 UTC", "when", ["no time at all"], id="when: empty"),
    pytest.param("when", "mon Europe/Berlni", "when", ["'Europe/Berlin'?"], id="when: no zone"),
    pytest.param("when", "mon Europe", "when", ["no time zone"], id="when: a continent"),
    pytest.param("when", "mon E/../../x", "when", ["no time zone"], id="when: a path"),
]


@pytest.mark.parametrize(("key", "value", "path", "words"), WRONG)
def test_a_mistake_is_told_with_its_path(
    key: str, value: object, path: str, words: list[str]
) -> None:
    (problem,) = problems([{"id": "x", "action": "allow"} | {key: value}])
    assert problem.path == f"rule[0].{path}"
    for word in words:
        assert word in problem.message


def test_what_decides_nothing_keeps_nothing_out_of_the_logs() -> None:
    (problem,) = problems([{"id": "x", "action": "deny", "mode": "report", "log": False}])
    assert problem.path == "rule[0].log"
    assert "rules that decide" in problem.message


@pytest.mark.parametrize("log", [True, False])
def test_whether_a_rule_wants_a_line_is_in_its_decision(log: bool) -> None:
    (rule,) = loaded([{"id": "x", "action": "allow", "log": log}])
    assert rule.decision().log is log


def test_a_date_is_called_one() -> None:
    (problem,) = problems(
        tomllib.loads('rule = [{id = "x", action = "deny", to = 2026-01-01}]')["rule"]
    )
    assert problem.message == "must be a string, not a date"


def test_all_mistakes_are_told_at_once() -> None:
    """An administrator with ten mistakes needs one run, not ten."""
    tables = [{"id": "x", "action": "allow"} | {case.values[0]: case.values[1]} for case in WRONG]
    for index, table in enumerate(tables):
        if table["id"] == "x":
            table["id"] = f"x-{index}"
    told = problems(tables)
    assert [problem.path for problem in told] == [
        f"rule[{index}].{case.values[2]}" for index, case in enumerate(WRONG)
    ]


def test_the_mistakes_of_one_rule_are_told_together() -> None:
    told = problems([{"acton": "deny", "from": "nowhere", "to": ["a b", "c", "d e"], "ports": 0.5}])
    assert [problem.path for problem in told] == [
        "rule[0].acton",
        "rule[0].id",
        "rule[0].action",
        "rule[0].ports",
        "rule[0].from",
        "rule[0].to[0]",
        "rule[0].to[2]",
    ]


def test_two_rules_of_one_id_are_told_apart() -> None:
    table = {"id": "x", "action": "allow"}
    assert problems([table, {"id": "y", "action": "deny"}, table]) == (
        Problem("rule[2].id", "'x' is the id of rule[0] already"),
    )


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param({"id": "x", "action": "allow"}, id="[rule] for [[rule]]"),
        pytest.param("allow", id="a string"),
        pytest.param(1, id="a number"),
    ],
)
def test_what_is_no_list_of_tables_is_told(tables: object) -> None:
    assert problems(tables) == (Problem("rule", "must be a list of tables: write [[rule]]"),)


def test_what_is_no_table_is_told() -> None:
    assert problems([{"id": "x", "action": "deny"}, "allow"]) == (
        Problem("rule[1]", "must be a table, not a string"),
    )


def test_no_rules_are_none() -> None:
    assert load_rules([], ()) == ()


VALUE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.dates(),
        st.text(max_size=12),
        st.text(alphabet="0123456789abf.:/*?-@[]%", max_size=12),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
KEY = st.sampled_from(
    [
        *("id", "action", "from", "not_from", "listener", "user", "group", "command", "to"),
        *("not_to", "resolves_to", "ports", "when", "require", "mode", "share", "text", "route"),
        "udp_replies",
    ]
)


@given(st.one_of(VALUE, st.lists(st.dictionaries(st.one_of(KEY, st.text()), VALUE), max_size=3)))
def test_whatever_is_written_is_rules_or_a_config_error(tables: object) -> None:
    with suppress(ConfigError):
        loaded(tables)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        pytest.param(0, "above 0", id="nobody"),
        pytest.param(1.1, "at most 1", id="more than everybody"),
        pytest.param(5, "0.05 is one in twenty", id="percent"),
        pytest.param(float("nan"), "above 0", id="not a number"),
        pytest.param("5%", "must be a number, not a string", id="a string"),
        pytest.param(True, "must be a number, not a boolean", id="a boolean"),
    ],
)
def test_a_share_is_a_part_of_the_whole(share: object, words: str) -> None:
    (problem,) = problems([{"id": "x", "action": "deny", "mode": "report", "share": share}])
    assert problem.path == "rule[0].share"
    assert words in problem.message


def test_a_host_without_data_of_zones_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(key: str) -> None:
        raise ZoneInfoNotFoundError(key)

    monkeypatch.setattr(values, "ZoneInfo", unknown)
    monkeypatch.setattr(values, "available_timezones", set)
    (problem,) = problems([{"id": "x", "action": "deny", "when": "mon Europe/Berlin"}])
    assert "install tzdata" in problem.message
    assert one(when="mon UTC")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        pytest.param("mon UTC", [(0, 1440)], id="a day"),
        pytest.param("sat-mon UTC", [(0, 1440), (7200, 10080)], id="over the end of the week"),
        pytest.param("mon,wed UTC", [(0, 1440), (2880, 4320)], id="two days"),
        pytest.param("mon,sun-tue UTC", [(0, 2880), (8640, 10080)], id="the same day twice"),
        pytest.param("tue 22:00-06:00 UTC", [(2760, 3240)], id="over midnight"),
        pytest.param("sun 22:00-06:00 UTC", [(0, 360), (9960, 10080)], id="into the next week"),
        pytest.param("mon  00:00-24:00   UTC", [(0, 1440)], id="a day, in full"),
        pytest.param("mon-sun UTC", [(0, 10080)], id="always"),
        pytest.param("mon 12:00-00:00 UTC", [(720, 1440)], id="until midnight"),
    ],
)
def test_hours_are_minutes_of_the_week(text: str, minutes: list[tuple[int, int]]) -> None:
    edges = tuple(edge for pair in minutes for edge in pair)
    assert one(when=text).conditions == (At(((UTC, edges),)),)


def test_hours_without_days_are_of_every_day() -> None:
    assert one(when="07:00-08:00 UTC") == one(when="mon-sun 07:00-08:00 UTC")


# -- sets and groups -----------------------------------------------------------


def sets(
    tables: object, files: dict[str, str | Exception] | None = None
) -> tuple[dict[str, HostSet], list[tuple[str, str]]]:
    """Load sets, and give what is wrong with them."""

    def read(file: str) -> str:
        text = (files or {})[file]
        if isinstance(text, Exception):
            raise text
        return text

    problems: list[Problem] = []
    found = load_sets(tables, SPECIAL, read, problems)
    return found, [(problem.path, problem.message) for problem in problems]


def test_a_set_holds_networks_and_names() -> None:
    found, wrong = sets({"x": ["10.0.0.0/8", "A.Example", ".b.example", "c-*.example", "::1"]})
    hosts = ["a.example", ".b.example", "c-*.example", ip_network("10.0.0.0/8"), ip_network("::1")]
    assert found == {**SPECIAL, "@x": HostSet.of(hosts, "@x")}
    assert not wrong


def test_an_empty_set_is_one() -> None:
    """A list that is maintained by others may be empty for a while."""
    found, wrong = sets({"x": [], "y": {"file": "f"}}, {"f": "# nobody\n"})
    assert found["@x"] == HostSet.of([], "@x")
    assert found["@y"] == HostSet.of([], "@y")
    assert not wrong


def test_a_file_has_one_host_on_each_line() -> None:
    text = "# a comment\n\n10.0.0.0/8\n  a.example  # and why\r\n*.b.example"
    found, wrong = sets({"x": {"file": "f"}}, {"f": text})
    hosts = [ip_network("10.0.0.0/8"), "a.example", "*.b.example"]
    assert found["@x"] == HostSet.of(hosts, "@x")
    assert not wrong


def test_a_mistake_in_a_file_is_told_with_its_line() -> None:
    found, wrong = sets({"x": {"file": "bad.txt"}}, {"bad.txt": "a.example\n\n10.1.0.0/8\n@y\n"})
    assert [path for path, _ in wrong] == ["sets.x.file"] * 2
    assert wrong[0][1].startswith("bad.txt:3: '10.1.0.0/8' has host bits set")
    assert wrong[1][1].startswith("bad.txt:4: '@y': a set holds networks and names")
    assert found["@x"] == HostSet.of(["a.example"], "@x")


def test_a_file_of_the_wrong_kind_does_not_flood_the_terminal() -> None:
    _, wrong = sets({"x": {"file": "f"}}, {"f": "a b\n" * 1000})
    assert len(wrong) == 11
    assert wrong[-1] == ("sets.x.file", "f: 990 more lines are wrong")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(
            FileNotFoundError(2, "No such file or directory"),
            "cannot read f: No such file or directory",
            id="missing",
        ),
        pytest.param(ValueError("embedded null byte"), "cannot read f: embedded null", id="NUL"),
        pytest.param(
            UnicodeDecodeError("utf-8", b"ab\xe9", 2, 3, "x"),
            "f is not UTF-8 at octet 2",
            id="not UTF-8",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_told(error: Exception, message: str) -> None:
    _, wrong = sets({"x": {"file": "f"}}, {"f": error})
    ((path, told),) = wrong
    assert path == "sets.x.file"
    assert told.startswith(message)


@pytest.mark.parametrize(
    ("tables", "path", "words"),
    [
        pytest.param([], "sets", "must be a table, not a list", id="[[sets]]"),
        pytest.param({"x": "a"}, "sets.x", 'list or { file = "..." }', id="one host"),
        pytest.param({"x": ["a", 1]}, "sets.x[1]", "a string, not a number", id="a number"),
        pytest.param({"x": ["@y"]}, "sets.x[0]", "no other set", id="another set"),
        pytest.param({"a b": []}, 'sets."a b"', "is no name of a set", id="no name"),
        pytest.param({"private": []}, "sets.private", "built-in", id="a built-in one"),
        pytest.param({"x": {}}, "sets.x.file", "is empty", id="no file"),
        pytest.param({"x": {"file": 1}}, "sets.x.file", "not a number", id="file: a number"),
        pytest.param({"x": {"file": "f", "fiel": 1}}, "sets.x.fiel", "'file'?", id="unknown key"),
    ],
)
def test_a_mistake_in_a_set_is_told_with_its_path(tables: object, path: str, words: str) -> None:
    ((told, message),) = sets(tables, {"f": ""})[1]
    assert told == path
    assert words in message


def test_a_set_with_a_mistake_is_not_unknown_as_well() -> None:
    """One mistake, one problem."""
    found, wrong = sets({"x": ["a b", "a.example"]})
    assert len(wrong) == 1
    assert load_rules([{"id": "x", "action": "deny", "to": "@x"}], (), sets=found)


def test_a_group_is_a_list_of_users() -> None:
    problems: list[Problem] = []
    assert load_groups({"dba": ["alice", "b\u00f6b"], "ops": []}, problems) == {
        "dba": Group("dba", frozenset({"alice", "b\u00f6b"})),
        "ops": Group("ops", frozenset()),
    }
    assert not problems


@pytest.mark.parametrize(
    ("tables", "path", "words"),
    [
        pytest.param(1, "groups", "must be a table, not a number", id="a number"),
        pytest.param(
            {"dba": "alice"}, "groups.dba", "a list of users, not a string", id="one user"
        ),
        pytest.param({"dba": {}}, "groups.dba", "a list of users, not a table", id="a table"),
        pytest.param({"dba": ["a", 1]}, "groups.dba[1]", "not a number", id="no user"),
        pytest.param({"d b": []}, 'groups."d b"', "is no name of a group", id="no name"),
    ],
)
def test_a_mistake_in_a_group_is_told_with_its_path(tables: object, path: str, words: str) -> None:
    problems: list[Problem] = []
    load_groups(tables, problems)
    (problem,) = problems
    assert problem.path == path
    assert words in problem.message


@given(VALUE)
def test_whatever_is_written_as_sets_or_groups_is_taken_or_told(tables: object) -> None:
    problems: list[Problem] = []
    load_sets(tables, SPECIAL, str, problems)
    load_groups(tables, problems)

import tomllib
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.codes import Command
from socksd.errors import ConfigError, Problem
from socksd.facts import Verdict
from socksd.policy.load import load_rules
from socksd.policy.match import (
    ByUser,
    FromNetworks,
    OnListener,
    ToHost,
    ToPorts,
    WithCommand,
)
from socksd.policy.rules import Rule

LISTENERS = ("office", "lab")


def load(text: str) -> tuple[Rule, ...]:
    return load_rules(tomllib.loads(text)["rule"], LISTENERS)


def one(**keys: Any) -> Rule:
    (rule,) = load_rules([{"id": "x", "action": "allow"} | keys], LISTENERS)
    return rule


def problems(tables: object) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        load_rules(tables, LISTENERS)
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

        [[rule]]
        id = "rest"
        action = "deny"
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
        ),
        Rule("rest", Verdict.DENY, ()),
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("from", "10.0.0.0/8", id="from"),
        pytest.param("listener", "lab", id="listener"),
        pytest.param("user", "alice", id="user"),
        pytest.param("command", "udp", id="command"),
        pytest.param("to", "a.example", id="to"),
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
]


@pytest.mark.parametrize(("key", "value", "path", "words"), WRONG)
def test_a_mistake_is_told_with_its_path(
    key: str, value: object, path: str, words: list[str]
) -> None:
    (problem,) = problems([{"id": "x", "action": "allow"} | {key: value}])
    assert problem.path == f"rule[0].{path}"
    for word in words:
        assert word in problem.message


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
KEY = st.sampled_from(["id", "action", "from", "listener", "user", "command", "to", "ports"])


@given(st.one_of(VALUE, st.lists(st.dictionaries(st.one_of(KEY, st.text()), VALUE), max_size=3)))
def test_whatever_is_written_is_rules_or_a_config_error(tables: object) -> None:
    with suppress(ConfigError):
        load_rules(tables, LISTENERS)

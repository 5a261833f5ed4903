from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.app.config import (
    Auth,
    Bind,
    Config,
    Control,
    Dashboard,
    Deadlines,
    Gssapi,
    Guarded,
    Limit,
    Limits,
    Listener,
    Log,
    Metrics,
    Pac,
    Reload,
    Resolver,
    Route,
    Server,
    Udp,
    duration,
    load_config,
    parse_config,
    rate,
    size,
)
from socksd.codes import Command, Protection
from socksd.errors import ConfigError
from socksd.facts import Decision, Facts, Principal, Verdict
from socksd.policy.match import Group
from socksd.server.spoken import PROTOCOLS

EXAMPLE = Path(__file__).parents[2] / "etc" / "socksd.toml"
TEXT = EXAMPLE.read_text()

LOCAL = Listener(name="local", endpoint="tcp:1080:interface=127.0.0.1")

LISTENER = '[[listener]]\nname = "local"\nendpoint = "tcp:1080"\n'


def problems(text: str) -> dict[str, str]:
    """Give what is wrong with a configuration, by key path."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "socksd.toml")
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


def problem(text: str) -> tuple[str, str]:
    """Give the one thing that is wrong."""
    (found,) = problems(text).items()
    return found


# -- etc/socksd.toml ---------------------------------------------------------

# Every key with its default, by table; what has none has the file's value.
KEYS: dict[str, Any] = {
    "version": 1,
    "listener.name": LOCAL.name,
    "listener.endpoint": LOCAL.endpoint,
    "listener.protocols": LOCAL.protocols,
    "listener.proxy_protocol": LOCAL.proxy_protocol,
} | {
    f"{table}.{attribute.name}": attribute.default
    for table, kind in (
        ("server", Server),
        ("auth", Auth),
        ("gssapi", Gssapi),
        ("guard", Guarded),
        ("resolver", Resolver),
        ("bind", Bind),
        ("deadlines", Deadlines),
        ("udp", Udp),
        ("limits", Limits),
        ("log", Log),
        ("reload", Reload),
        ("dashboard", Dashboard),
        ("pac", Pac),
        ("control", Control),
        ("metrics", Metrics),
    )
    for attribute in attrs.fields(kind)
}

# For every key another value that is right, what it becomes, and one that is wrong.
VALUES: list[tuple[str, str, Any, str]] = [
    ("version", "1", 1, "2"),
    ("listener.name", '"office"', "office", '"of fice"'),
    ("listener.endpoint", '"tcp:1"', "tcp:1", '""'),
    ("listener.protocols", '["socks4a"]', ("socks4a",), '["socks"]'),
    (
        "listener.proxy_protocol",
        '{ from = ["10.0.0.2/32", "fd00::/64", "10.0.0.2"] }',
        (IPv4Network("10.0.0.2/32"), IPv6Network("fd00::/64")),
        '{ from = "10.0.0.2" }',
    ),
    ("server.drain", '"0s"', 0.0, '"-1s"'),
    ("auth.authenticators", '["htpasswd:f"]', ("htpasswd:f",), '"htpasswd:f"'),
    ("auth.anonymous", '["10.0.0.0/8"]', (IPv4Network("10.0.0.0/8"),), '"10.0.0.0/8"'),
    ("auth.cache", '"0s"', 0.0, "300"),
    ("auth.threads", "2", 2, '"2"'),
    ("gssapi.keytab", '"/etc/krb5.keytab"', "/etc/krb5.keytab", "true"),
    ("gssapi.service", '"socks@gw"', "socks@gw", '""'),
    ("gssapi.realms", '["EXAMPLE.COM"]', ("EXAMPLE.COM",), '"EXAMPLE.COM"'),
    ("gssapi.user", '"principal"', True, '"whole"'),
    ("gssapi.protection", '["none"]', (Protection.NONE,), "[]"),
    ("guard.never", '"nothing"', (), "[]"),
    ("guard.private", '"open"', False, '"closed"'),
    ("resolver.via", '"dns:192.0.2.1"', "dns:192.0.2.1", '""'),
    ("resolver.threads", "1024", 1024, "1025"),
    ("resolver.ttl", '"0s"', 0.0, '"721h"'),
    ("resolver.negative_ttl", '"1m"', 60.0, '"-1s"'),
    ("resolver.entries", "1", 1, "0"),
    ("bind.ports", '"40000-40999"', range(40000, 41000), "40000"),
    ("bind.advertise", '"203.0.113.1"', IPv4Address("203.0.113.1"), '"gw.example"'),
    ("deadlines.handshake", '"500ms"', 0.5, '"0s"'),
    ("deadlines.resolve", '"1ms"', 0.001, '"1d"'),
    ("deadlines.connect", '"1.5s"', 1.5, "1.5"),
    ("deadlines.bind", '"5m"', 300.0, '"0s"'),
    ("deadlines.idle", '"720h"', 2592000.0, '"721h"'),
    ("deadlines.linger", '"2h"', 7200.0, '"2 h"'),
    ("deadlines.closing", '"9s"', 9.0, '"10.1s"'),
    ("udp.ports", '"40000-40999"', range(40000, 41000), '"40000-"'),
    ("udp.advertise", '"gw.example"', "gw.example", '"gw.example:1080"'),
    ("udp.fragments", '"drop"', False, "true"),
    ("limits.early_data", '"1MiB"', 1048576, '"2MiB"'),
    ("limits.sessions", "1000", 1000, "0"),
    ("log.access", '"-"', "-", '"journald:"'),
    ("log.format", '"text"', "text", '"xml"'),
    ("reload.refused_sessions", '"30s"', 30.0, '"drop"'),
    ("reload.state", '"/var/lib/socksd"', "/var/lib/socksd", "1"),
    ("dashboard.endpoint", '"unix:/x"', "unix:/x", "true"),
    ("dashboard.users", '["alice"]', ("alice",), '"alice"'),
    ("dashboard.groups", '["ops"]', ("ops",), '"ops"'),
    ("pac.endpoint", '"tcp:8080"', "tcp:8080", "true"),
    ("pac.listener", '"office"', "office", "1"),
    ("pac.host", '"GW.Example."', "gw.example", '"a b"'),
    ("control.socket", '"/run/socksd/control.sock"', "/run/socksd/control.sock", "true"),
    ("metrics.endpoint", '"tcp:9108"', "tcp:9108", "9108"),
]


def uncommented(text: str) -> str:
    """Make every key of the file stand in it."""
    return re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE)


def without_rules(text: str) -> str:
    """Take the example rules out, with the sets and groups they use."""
    table = r"#\[\[?[a-z.]+\]\]?.*\n(?:# ?[a-z].*\n)+(?:#\n)?"
    return re.sub(rf"^#\n(?:{table})+", "", text, flags=re.MULTILINE)


def with_rules(text: str) -> str:
    """Let the example rules stand, and no other key that is commented out."""
    start, end = text.index("#[sets]"), text.index("# How names are looked up.")
    return text[:start] + re.sub(r"^#(?! )", "", text[start:end], flags=re.MULTILINE) + text[end:]


def with_value(key: str, value: str) -> str:
    """Give the file with one key's line changed."""
    table, _, name = key.rpartition(".")
    lines, inside = without_rules(TEXT).splitlines(), ""
    for number, line in enumerate(lines):
        if header := re.fullmatch(r"\[+([a-z]+)\]+", line):
            inside = header[1]
        elif inside == table and re.match(rf"#?{name} = ", line):
            lines[number] = f"{name} = {value}"
            return "\n".join(lines)
    raise AssertionError(f"{key} is not in {EXAMPLE.name}")


def value_of(config: Config, key: str) -> Any:
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
        if found is config.listener:
            (found,) = found
    return found


def test_the_example_serves_this_host_and_is_otherwise_the_default() -> None:
    assert load_config(EXAMPLE) == Config(listener=(LOCAL,))


def test_the_commented_lines_of_the_example_are_the_defaults() -> None:
    text = uncommented(without_rules(TEXT))
    assert parse_config(text, "x") == Config(listener=(LOCAL,))


def test_every_key_is_in_the_example_once_and_no_other() -> None:
    inside, found = "", []
    for line in without_rules(TEXT).splitlines():
        if header := re.fullmatch(r"\[+([a-z]+)\]+", line):
            inside = header[1] + "."
        elif key := re.match(r"#?([a-z_]+) = ", line):
            found.append(inside + key[1])
        else:
            assert re.fullmatch(r"(# .*|#)?", line), line
    assert sorted(found) == sorted(KEYS)


def test_every_key_has_a_sentence_before_it() -> None:
    lines = without_rules(TEXT).splitlines()
    for before, line in pairwise(lines):
        if re.match(r"#?[a-z_]+ = ", line):
            assert before.startswith("# "), line


def test_the_values_below_are_for_every_key() -> None:
    assert [key for key, *_ in VALUES] == list(KEYS)


@pytest.mark.parametrize(("key", "value", "becomes"), [v[:3] for v in VALUES])
def test_each_key_changes_what_it_is_for(key: str, value: str, becomes: Any) -> None:
    config = parse_config(with_value(key, value), "x")
    assert value_of(config, key) == becomes
    assert key == "version" or becomes != KEYS[key]
    assert type(value_of(config, key)) is type(becomes)


@pytest.mark.parametrize(("key", "wrong"), [(v[0], v[3]) for v in VALUES])
def test_each_key_reports_a_wrong_value_with_its_path(key: str, wrong: str) -> None:
    path, _ = problem(with_value(key, wrong))
    assert path == key.replace("listener.", "listener[0].")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wrong", ["2026-01-01", "[[1]]", "{}", "nan", "true"])
def test_no_key_takes_what_is_no_value_of_its_kind(key: str, wrong: str) -> None:
    path, message = next(iter(problems(with_value(key, wrong)).items()))
    assert path.startswith(key.replace("listener.", "listener[0]."))
    assert "must be" in message or "needs a unit" in message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"on"', 'must be "off", or the networks of balancers'),
        ('["10.0.0.2"]', "not a list"),
        ('{ form = ["10.0.0.2"] }', "it has no key 'form'; did you mean 'from'?"),
        ("{ from = [] }", 'as { from = ["10.0.0.2/32"] }'),
        ('{ from = ["balancer"] }', "'balancer' is not a network"),
        ('{ from = ["10.0.0.2/24"] }', "did you mean '10.0.0.0/24'?"),
        ('{ from = ["10.0.0.2", "::/0"] }', "'::/0' is everybody; name the balancers"),
    ],
)
def test_who_may_say_for_whom_it_connects_has_to_be_said(value: str, said: str) -> None:
    path, message = problem(f"version = 1\n{LISTENER}proxy_protocol = {value}\n")
    assert path == "listener[0].proxy_protocol"
    assert said in message


@pytest.mark.parametrize(
    ("user", "destination", "verdict", "rule"),
    [
        ("alice", Destination("www.example.com", 443), Verdict.ALLOW, "staff"),
        ("bob", Destination("db-1.example.net", 5432), Verdict.ALLOW, "staff"),
        ("alice", Destination("www.example.com", 25), Verdict.DENY, "no-mail"),
        ("alice", Destination("wiki.internal", 443), Verdict.DENY, "inside-stays-inside"),
        ("alice", Destination("www.example.edu", 443), Verdict.DENY, "default"),
        ("carol", Destination("www.example.com", 443), Verdict.DENY, "default"),
    ],
)
def test_the_example_rules_do_what_one_reads_in_them(
    user: str, destination: Destination, verdict: Verdict, rule: str
) -> None:
    policy = parse_config(with_rules(TEXT), "x").policy()
    facts = Facts(IPv4Address("192.0.2.7"), "local", Principal(user))
    asking = facts.asking(Command.CONNECT, destination).at(IPv4Address("198.51.100.1"))
    decision = policy.decide(asking)
    assert (decision.verdict, decision.rule) == (verdict, rule)
    local = replace(asking, client=IPv4Address("127.0.0.1"))
    assert policy.decide(local) == Decision(Verdict.ALLOW, "local", log=False)


@pytest.mark.parametrize(
    ("time", "address", "rule"),
    [
        pytest.param("2026-07-01T19:59:59+02:00", "10.40.0.7", "databases", id="at work"),
        pytest.param("2026-07-01T20:00:00+02:00", "10.40.0.7", "inside-stays-inside", id="late"),
        pytest.param("2026-06-29T01:59:59+02:00", "10.40.0.7", "databases", id="sunday night"),
        pytest.param("2026-07-01T12:00:00+02:00", "10.41.0.7", "inside-stays-inside", id="astray"),
    ],
)
def test_the_example_opens_its_databases_at_work(time: str, address: str, rule: str) -> None:
    policy = parse_config(with_rules(TEXT), "x").policy()
    connected = datetime.fromisoformat(time).timestamp()
    facts = Facts(IPv4Address("10.20.0.7"), "local", Principal("bob"), time=connected)
    asking = facts.asking(Command.CONNECT, Destination("db-1.corp.example", 5432))
    assert policy.decide(asking.at(ip_address(address))).rule == rule


# -- tables with names -------------------------------------------------------

NAMED = """
[limit.bulk]
bandwidth = "20MB/s"
idle = "2h"
[limit.long]
idle = "10h"
[route.direct]
source = ["192.0.2.9"]
[route.second]
source = ["::ffff:192.0.2.10", "2001:db8::9"]
"""


def test_limits_and_routes_go_by_their_names() -> None:
    config = parse_config(NAMED, "x")
    assert config.limit == {"bulk": Limit(20_000_000, 7200.0), "long": Limit(None, 36_000.0)}
    assert config.route == {
        "direct": Route((ip_address("192.0.2.9"),)),
        "second": Route((ip_address("192.0.2.10"), ip_address("2001:db8::9"))),
    }


def test_a_rule_names_a_limit_and_a_route() -> None:
    rule = '[[rule]]\nid = "all"\naction = "allow"\nlimits = "bulk"\nroute = "second"\n'
    (made,) = parse_config(NAMED + rule, "x").rule
    assert (made.limits, made.route) == ("bulk", "second")


def test_a_rule_can_name_only_what_there_is() -> None:
    rule = '[[rule]]\nid = "all"\naction = "allow"\nlimits = "blk"\nroute = "first"\n'
    assert problems(NAMED + rule) == {
        "rule[0].limits": "no limits is named 'blk'; did you mean 'bulk'?",
        "rule[0].route": "no route is named 'first'; there are: direct, second",
    }


def test_a_table_with_a_mistake_is_there_to_be_named() -> None:
    rule = '[[rule]]\nid = "all"\naction = "allow"\nlimits = "bulk"\n'
    assert set(problems(f"[limit.bulk]\n{rule}")) == {"limit.bulk"}


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ('[limit.a]\nbandwidth = "20Mb/s"', "limit.a.bandwidth", "'20Mb/s' is not a rate; write"),
        ('[limit.a]\nbandwidth = "20MB"', "limit.a.bandwidth", "'20MB' is not a rate; write"),
        ("[limit.a]\nbandwidth = 20", "limit.a.bandwidth", 'needs a unit: write for example "20MB'),
        ('[limit.a]\nbandwidth = "7kbit/s"', "limit.a.bandwidth", "must be 1KB/s to 100GB/s, not"),
        ('[limit.a]\nidle = "0s"', "limit.a.idle", "must be 1ms to 720h, not 0s"),
        ('[limit.a]\nidel = "1s"', "limit.a.idel", "there is no such key; did you mean 'idle'?"),
        ("[limit.a]", "limit.a", "limits nothing: it needs a bandwidth, an idle time, or both"),
        ('[limit."a b"]\nidle = "1s"', 'limit."a b"', "'a b' is no name: letters, digits"),
        ('[limit]\nidle = "1s"', "limit.idle", "must be a table, not a string"),
        ("limit = 1", "limit", "must hold tables by their names, not be a whole number"),
        ('[limits]\nbandwidth = "1MB/s"', "limits.bandwidth", "there is no such key; it stands un"),
        ('[limits.a]\nidle = "1s"', "limits.a", "there is no such key; limits that rules name st"),
        ("[route.a]", "route.a.source", "is missing"),
        ("[route.a]\nsource = []", "route.a.source", "is empty; without the table the system"),
        (
            '[route.a]\nsource = "::1"',
            "route.a.source",
            "must be a list, not a string: write [...]",
        ),
        ("[route.a]\nsource = [1]", "route.a.source", "must be a string, not a whole number"),
        ('[route.a]\nsource = ["eth0"]', "route.a.source", "'eth0' is not an address; write one"),
        ('[route.a]\nsource = ["::"]', "route.a.source", "'::' is no address of a host"),
        ('[route.a]\nsource = ["224.0.0.1"]', "route.a.source", "'224.0.0.1' is no address of a"),
        (
            '[route.a]\nsource = ["::1", "::2"]',
            "route.a.source",
            "has two of IPv6, ::1 and ::2; one of each is taken",
        ),
    ],
)
def test_a_mistake_in_a_table_with_a_name_is_told_with_its_path(
    text: str, path: str, message: str
) -> None:
    found, told = problem(text)
    assert found == path
    assert told.startswith(message)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("1.5MB/s", 1_500_000),
        ("500KB/s", 500_000),
        ("2GB/s", 2 * 10**9),
        ("16KiB/s", 16_384),
        ("16MiB/s", 1 << 24),
        ("1GiB/s", 1 << 30),
        ("64kbit/s", 8_000),
        ("100Mbit/s", 12_500_000),
        ("10Gbit/s", 1_250_000_000),
    ],
)
def test_rates_are_octets_a_second(text: str, octets: int) -> None:
    assert rate(text) == octets


# -- the values --------------------------------------------------------------


def test_all_defaults_are_a_configuration() -> None:
    assert parse_config("", "x") == Config()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("0s", 0.0), ("10s", 10.0), ("1.5s", 1.5), ("15m", 900.0), ("2h", 7200.0)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@given(
    st.integers(0, 10**9 - 1), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)])
)
def test_every_number_with_a_unit_is_a_duration(number: int, unit: tuple[str, float]) -> None:
    name, factor = unit
    assert duration(f"{number}{name}") == pytest.approx(number * factor)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "s",
        "10 s",
        "10S",
        "-1s",
        "1e3s",
        "1h30m",
        "1d",
        "10s\n",
        "١s",
        ".5s",
        "1.s",
        "infs",
    ],
)
def test_anything_else_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write one as"):
        duration(text)


@given(st.text() | st.from_regex(r"[0-9.]+(ms|s|m|h)"))
def test_whatever_is_written_it_is_a_finite_number_or_that_error(text: str) -> None:
    try:
        seconds = duration(text)
    except ValueError as error:
        said = str(error)
        seconds = 0.0
    else:
        said = "is not a duration"
    assert "is not a duration" in said
    assert 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    ("text", "octets"), [("512B", 512), ("64KiB", 65536), ("1MiB", 1048576), ("0B", 0)]
)
def test_sizes_are_octets(text: str, octets: int) -> None:
    assert size(text) == octets


@pytest.mark.parametrize("text", ["", "64", "64KB", "64k", "64 KiB", "1.5MiB", "-1B", "1GiB"])
def test_anything_else_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; write one as"):
        size(text)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        pytest.param(
            "deadlines.idle = 900",
            "deadlines.idle",
            'needs a unit: write for example "10s"',
            id="bare duration",
        ),
        pytest.param(
            "limits.early_data = 65536",
            "limits.early_data",
            'needs a unit: write for example "64KiB"',
            id="bare size",
        ),
        pytest.param(
            'deadlines.closing = "11s"',
            "deadlines.closing",
            "must be 1ms to 10s, not 11s",
            id="longer than RFC 1928 allows",
        ),
        pytest.param("version = 2", "version", "must be 1, not 2", id="another version"),
        pytest.param(
            "resolver.threads = true",
            "resolver.threads",
            "must be a whole number, not a boolean",
            id="a boolean is no number",
        ),
        pytest.param(
            "resolver.threads = 1.0",
            "resolver.threads",
            "must be a whole number, not a fraction",
            id="nor is a fraction",
        ),
        pytest.param(
            'limits.sessions = "many"',
            "limits.sessions",
            "must be a number or \"auto\", not 'many'",
            id="auto misspelled",
        ),
        pytest.param(
            'auth.authenticators = "htpasswd:f"',
            "auth.authenticators",
            "must be a list, not a string: write [...]",
            id="a string is no list",
        ),
        pytest.param(
            'auth.authenticators = ["a", ""]',
            "auth.authenticators[1]",
            "must not be empty",
            id="an item",
        ),
        pytest.param(
            f"{LISTENER}protocols = []",
            "listener[0].protocols",
            "is empty; nobody could be served",
            id="no protocol",
        ),
        pytest.param("auth = []", "auth", "must be a table, not a list", id="no table"),
        pytest.param(
            '[listener]\nname = "a"\nendpoint = "tcp:1"',
            "listener",
            "must be a list of tables: write it with two brackets, [[...]]",
            id="single brackets",
        ),
        pytest.param(
            '[[listener]]\nname = "a"', "listener[0].endpoint", "is missing", id="missing"
        ),
        pytest.param(
            f"{LISTENER}{LISTENER}",
            "listener[1].name",
            "'local' is the name of listener[0] already",
            id="two of a name",
        ),
        pytest.param(
            'log.access = "a\\u0000b"', "log.access", "no file has a NUL in its name", id="NUL"
        ),
        pytest.param(
            "deadline.idle = 1",
            "deadline",
            "there is no such key; did you mean 'deadlines'?",
            id="table misspelled",
        ),
        pytest.param(
            '[resolver]\nnegativ_ttl = "1s"',
            "resolver.negativ_ttl",
            "there is no such key; did you mean 'negative_ttl'?",
            id="key misspelled",
        ),
        pytest.param(
            '[auth]\nidle = "5m"',
            "auth.idle",
            "there is no such key; it stands under [deadlines]",
            id="wrong table",
        ),
        pytest.param('"a b" = 1', '"a b"', "there is no such key", id="unheard-of key"),
        pytest.param("rule = 1", "rule", "must be a list of tables: write [[rule]]", id="rule"),
    ],
)
def test_a_problem_says_where_and_what_to_write_instead(text: str, path: str, message: str) -> None:
    assert problem(text) == (path, message)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        pytest.param("auto", None, id="any"),
        pytest.param("40000-40999", range(40000, 41000), id="a range"),
        pytest.param("40000", range(40000, 40001), id="one"),
        pytest.param("1-65535", range(1, 65536), id="all"),
    ],
)
def test_ports_for_datagrams_are_a_range(text: str, ports: range | None) -> None:
    assert parse_config(f'[udp]\nports = "{text}"', "").udp.ports == ports


@pytest.mark.parametrize(
    ("text", "host"),
    [
        pytest.param("", None, id="none"),
        pytest.param("203.0.113.5", ip_address("203.0.113.5"), id="IPv4"),
        pytest.param("[2001:db8::5]", ip_address("2001:db8::5"), id="IPv6"),
        pytest.param("GW.example.", "gw.example", id="a name"),
    ],
)
def test_what_is_advertised_is_an_address_or_a_name(text: str, host: object) -> None:
    assert parse_config(f'[udp]\nadvertise = "{text}"', "").udp.advertise == host


@pytest.mark.parametrize(("text", "kept"), [("reassemble", True), ("drop", False)])
def test_fragments_are_reassembled_or_dropped(text: str, kept: bool) -> None:
    assert parse_config(f'[udp]\nfragments = "{text}"', "").udp.fragments is kept


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        pytest.param(
            'ports = "40000-"',
            "udp.ports",
            'must be a range as "40000-40999", or "auto", not \'40000-\'',
            id="half a range",
        ),
        pytest.param(
            "ports = 40000", "udp.ports", "must be a string, not a whole number", id="kind"
        ),
        pytest.param(
            'ports = "0-100"', "udp.ports", "'0-100': ports go from 1 to 65535", id="port 0"
        ),
        pytest.param(
            'ports = "40000-70000"',
            "udp.ports",
            "'40000-70000': ports go from 1 to 65535",
            id="beyond the last",
        ),
        pytest.param(
            'ports = "40999-40000"',
            "udp.ports",
            "'40999-40000' is empty; did you mean '40000-40999'?",
            id="the wrong way round",
        ),
        pytest.param(
            'advertise = "gw.example:1080"',
            "udp.advertise",
            "not an address: 'gw.example:1080'; write an address or a name, without a port",
            id="with a port",
        ),
        pytest.param(
            'advertise = "0.0.0.0"',
            "udp.advertise",
            "nobody can reach 0.0.0.0; leave it out to tell clients nothing new",
            id="unspecified",
        ),
        pytest.param(
            'fragments = "dropp"',
            "udp.fragments",
            "must be \"reassemble\" or \"drop\", not 'dropp'; did you mean 'drop'?",
            id="misspelled",
        ),
        pytest.param(
            "fragments = true",
            "udp.fragments",
            'must be "reassemble" or "drop", not True',
            id="a boolean",
        ),
    ],
)
def test_a_problem_with_datagrams_says_what_to_write(text: str, path: str, message: str) -> None:
    assert problem(f"[udp]\n{text}") == (path, message)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", IPv4Network("10.0.0.0/8")),
        ("192.0.2.7", IPv4Network("192.0.2.7/32")),
        ("fd00::/8", IPv6Network("fd00::/8")),
        ("::1", IPv6Network("::1/128")),
    ],
)
def test_networks_and_addresses_may_come_without_login(text: str, network: object) -> None:
    assert parse_config(f'auth.anonymous = ["{text}"]', "x").auth.anonymous == (network,)


@pytest.mark.parametrize(
    ("written", "ports"),
    [
        ("auto", None),
        ("40000-40999", range(40000, 41000)),
        ("40000", range(40000, 40001)),
        ("1-65535", range(1, 65536)),
    ],
)
def test_ports_are_a_range_of_both_ends(written: str, ports: range | None) -> None:
    assert parse_config(f'bind.ports = "{written}"', "x").bind.ports == ports


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(
            'bind.ports = "many"',
            'must be a range as "40000-40999", or "auto", not \'many\'',
            id="a word",
        ),
        pytest.param('bind.ports = "0-10"', "'0-10': ports go from 1 to 65535", id="port 0"),
        pytest.param(
            'bind.ports = "1-65536"', "'1-65536': ports go from 1 to 65535", id="beyond 65535"
        ),
        pytest.param(
            'bind.ports = "40999-40000"',
            "'40999-40000' is empty; did you mean '40000-40999'?",
            id="backwards",
        ),
        pytest.param(
            'bind.advertise = "gw.example"',
            "'gw.example' is a name; write an address as 203.0.113.1",
            id="a name",
        ),
        pytest.param(
            'bind.advertise = "203.0.113.256"',
            "not an address: 203.0.113.256; write an address as 203.0.113.1",
            id="no address",
        ),
        pytest.param(
            'bind.advertise = "::"',
            "nobody can reach ::; leave it out to tell clients nothing new",
            id="no address of anybody",
        ),
        pytest.param(
            "listener = [{ name = 'a', endpoint = 'tcp:1', protocols = ['socks4'] }]",
            f"'socks4' must be one of {', '.join(PROTOCOLS)}; did you mean 'socks4a'?",
            id="SOCKS4 without 4A",
        ),
    ],
)
def test_what_is_wrong_with_bind_is_told(line: str, message: str) -> None:
    assert problem(line)[1] == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8' has host bits set; did you mean '10.0.0.0/8'?"),
        ("fd00::1/8", "'fd00::1/8' has host bits set; did you mean 'fd00::/8'?"),
        ("10/8", "'10/8' is not a network; write one as 10.0.0.0/8"),
        ("10.0.0.0/33", "'10.0.0.0/33' is not a network; write one as 10.0.0.0/8"),
        ("example.com", "'example.com' is not a network; write one as 10.0.0.0/8"),
        (
            "::ffff:10.0.0.0/104",
            "'::ffff:10.0.0.0/104' is IPv4 inside IPv6; write it as 10.0.0.0/8",
        ),
    ],
)
def test_anything_else_is_not_a_network(text: str, message: str) -> None:
    """A client's address is never IPv4-mapped: such a network would match nobody."""
    assert problem(f'auth.anonymous = ["{text}"]') == ("auth.anonymous[0]", message)


# -- the whole ---------------------------------------------------------------


def test_all_problems_are_told_at_once() -> None:
    text = """
        version = 2
        listeners = 1
        [[listener]]
        name = "office"
        endpoint = 1080
        [[listener]]
        nam = "branch"
        endpoint = "tcp:1081"
        [auth]
        anonymous = ["10.0.0.0/8", "10.0.0.1/8", 3]
        [deadlines]
        closing = "1m"
        idle = 5
        [[rule]]
        id = "a"
        action = "alow"
        listener = ["office", "ofice"]
        to = ["10.0.0.0/8", "10.0.0.0/99"]
    """
    assert sorted(problems(text)) == [
        "auth.anonymous[1]",
        "auth.anonymous[2]",
        "deadlines.closing",
        "deadlines.idle",
        "listener[0].endpoint",
        "listener[1].nam",
        "listener[1].name",
        "listeners",
        "rule[0].action",
        "rule[0].listener[1]",
        "rule[0].to[1]",
        "version",
    ]


def test_rules_are_read_and_may_name_the_listeners() -> None:
    rule = '[[rule]]\nid = "a"\naction = "allow"\nlistener = "local"\n'
    config = parse_config(LISTENER + rule, "x")
    assert [rule.id for rule in config.rule] == ["a"]
    assert config.policy().rules == config.rule


TO_LAN = '[[rule]]\nid = "a"\naction = "allow"\nto = "@lan"\n'


def asking(host: str) -> Facts:
    return CLIENT.asking(Command.CONNECT, Destination.named(host, 80))


def test_rules_may_name_sets_and_groups(tmp_path: Path) -> None:
    """A file is found beside the configuration, wherever the server was started."""
    (tmp_path / "lan.txt").write_text("# ours\n192.0.2.0/24  # the office\n\n.lan.example\n")
    path = tmp_path / "socksd.toml"
    path.write_text(
        'sets.lan = { file = "lan.txt" }\ngroups.dba = ["alice"]\n' + TO_LAN + 'group = "dba"\n'
    )
    config = load_config(path)
    assert config.groups == {"dba": Group("dba", frozenset({"alice"}))}
    assert config.sets["@lan"].names.suffixes == {"lan.example"}
    assert config.policy().decide(asking("192.0.2.1")) == Decision(Verdict.ALLOW, "a")
    assert config.policy().decide(asking("192.0.3.1")) == Decision(Verdict.DENY, "default")


def test_problems_of_sets_groups_and_rules_are_told_together() -> None:
    text = 'sets.lan = ["a b"]\ngroups.dba = [1]\nguard.never = []\n' + TO_LAN + "ports = 0.5\n"
    assert sorted(problems(text)) == [
        "groups.dba[0]",
        "guard.never",
        "rule[0].ports",
        "sets.lan[0]",
    ]


OPEN = '[[rule]]\nid = "open"\naction = "allow"\n'


def refused(decision: Decision) -> tuple[str, str]:
    return decision.rule, decision.detail


def test_rules_are_guarded_unless_the_configuration_says_otherwise() -> None:
    guarded = parse_config(OPEN, "x").policy()
    assert refused(guarded.decide(asking("127.0.0.1"))) == ("guard", "loopback")
    assert refused(guarded.decide(asking("10.0.0.1"))) == ("guard", "private")
    unguarded = parse_config(
        'guard = { never = "nothing", private = "open" }\n' + OPEN, "x"
    ).policy()
    for host in ("127.0.0.1", "10.0.0.1"):
        assert unguarded.decide(asking(host)) == Decision(Verdict.ALLOW, "open")


def test_only_known_kinds_of_addresses_can_be_forbidden() -> None:
    path, message = problem('guard.never = ["loopback", "metdata"]')
    assert path == "guard.never"
    assert message.endswith("did you mean 'metadata'?")


def test_the_hosts_own_addresses_are_asked_for_at_each_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reload is a reading: an address that was added is then guarded."""
    found: list[IPv4Network] = []
    monkeypatch.setattr("socksd.app.config.own_networks", lambda: tuple(found))
    before = parse_config(OPEN, "x").policy()
    found.append(IPv4Network("198.51.100.7/32"))
    after = parse_config(OPEN, "x").policy()
    assert before.decide(asking("198.51.100.7")).verdict is Verdict.ALLOW
    assert refused(after.decide(asking("198.51.100.7"))) == ("guard", "self")


def test_a_host_that_cannot_tell_its_own_addresses_is_not_guarded_by_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreadable() -> None:
        raise PermissionError(13, "Permission denied", "/proc/net/fib_trie")

    monkeypatch.setattr("socksd.app.config.own_networks", unreadable)
    _, message = problem(OPEN)
    assert message.startswith("cannot tell which addresses are this host's own")


CLIENT = Facts(client=IPv4Address("192.0.2.7"), listener="local", principal=Principal("alice"))


@pytest.mark.parametrize("text", ["", "rule = []"], ids=["no rule", "an empty list"])
def test_without_rules_the_policy_is_the_built_in_one(text: str) -> None:
    policy = parse_config(text, "x").policy()
    assert [rule.id for rule in policy.rules] == ["local"]
    assert policy.decide(CLIENT).verdict is Verdict.DENY


def test_the_built_in_policy_lets_logged_in_users_in_where_there_are_authenticators() -> None:
    """Wherever they were named: the command line adds its own to a Config."""
    config = attrs.evolve(Config(), auth=Auth(authenticators=("htpasswd:f",)))
    assert config.policy().rules[-1].id == "authenticated"


def test_a_syntax_error_has_the_files_name_a_line_and_a_column() -> None:
    path, message = problem('version = 1\nlog = "\n')
    assert path == "socksd.toml"
    assert "(at line 2, column 8)" in message


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.toml")
    assert str(caught.value) == f"cannot read {tmp_path}/none.toml: No such file or directory"


def test_a_file_that_is_not_utf8_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "socksd.toml"
    path.write_bytes(b"# caf\xe9")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path} is not UTF-8 at octet 5"


def test_a_syntax_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "socksd.toml"
    path.write_text("=")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.problems[0].path == str(path)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("journald", "journald"),
        ("journald:/run/j", "journald:/run/j"),
        ("./journald", os.path.abspath("journald")),
        ("/var/log/a:b", "/var/log/a:b"),
    ],
)
def test_the_access_log_is_a_file_or_the_journal(written: str, read: str) -> None:
    assert parse_config(f'[log]\naccess = "{written}"', "x").log.access == read


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Config().version = 1  # type: ignore[misc]


@pytest.mark.parametrize(("value", "seconds"), [('"keep"', None), ('"cut"', 0.0), ('"30s"', 30.0)])
def test_refused_sessions_are_kept_or_cut_now_or_later(value: str, seconds: float | None) -> None:
    config = parse_config(f"[reload]\nrefused_sessions = {value}\n", "")
    assert config.reload.refused_sessions == seconds


def test_a_file_is_absolute_before_twistd_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse_config('[log]\naccess = "a.jsonl"\n[control]\nsocket = "../s"\n', "")
    assert config.log.access == str(tmp_path / "a.jsonl")
    assert config.control.socket == str(tmp_path.parent / "s")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('"none"', "must be a list of levels of protection, not a string"),
        ("[]", 'is empty; to protect no message at all write protection = ["none"]'),
        ('["nothing"]', "'nothing' must be one of confidentiality, integrity, none"),
        ("[2]", "2 must be one of confidentiality, integrity, none"),
    ],
)
def test_a_wrong_protection_says_which_there_are(value: str, message: str) -> None:
    assert problem(f"gssapi.protection = {value}") == ("gssapi.protection", message)


@pytest.mark.parametrize(
    "auth", ['auth.authenticators = ["htpasswd:f"]', 'gssapi.keytab = "/etc/krb5.keytab"']
)
def test_with_logins_the_built_in_policy_knows_them(auth: str) -> None:
    assert [rule.id for rule in parse_config("", "x").policy().rules] == ["local"]
    assert len(parse_config(auth, "x").policy().rules) > 1

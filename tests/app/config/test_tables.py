from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest

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
    Limits,
    Listener,
    Log,
    Metrics,
    Pac,
    Reload,
    Resolver,
    Server,
    Udp,
    load_config,
    parse_config,
)
from socksd.codes import Command, Protection
from socksd.facts import Decision, Facts, Principal, Verdict
from tests.app.config.told import problem, problems

EXAMPLE = Path(__file__).parents[3] / "etc" / "socksd.toml"

TEXT = EXAMPLE.read_text()

LOCAL = Listener(name="local", endpoint="tcp:1080:interface=127.0.0.1")

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
    ("server.workers", "2", 2, "257"),
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


def test_all_defaults_are_a_configuration() -> None:
    assert parse_config("", "x") == Config()


def asking(host: str) -> Facts:
    return CLIENT.asking(Command.CONNECT, Destination.named(host, 80))


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


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Config().version = 1  # type: ignore[misc]  # which mypy sees as well


@pytest.mark.parametrize(
    "auth", ['auth.authenticators = ["htpasswd:f"]', 'gssapi.keytab = "/etc/krb5.keytab"']
)
def test_with_logins_the_built_in_policy_knows_them(auth: str) -> None:
    assert [rule.id for rule in parse_config("", "x").policy().rules] == ["local"]
    assert len(parse_config(auth, "x").policy().rules) > 1

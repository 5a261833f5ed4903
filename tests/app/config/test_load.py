from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from socksd.app.config import load_config, parse_config
from socksd.errors import ConfigError
from socksd.facts import Decision, Verdict
from socksd.policy.match import Group
from tests.app.config.test_structure import NAMED
from tests.app.config.test_tables import OPEN, asking, refused
from tests.app.config.told import LISTENER, problem, problems


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


def test_a_limit_that_says_nothing_of_datagrams_is_none_for_them() -> None:
    rule = '[[rule]]\nid = "all"\naction = "allow"\nlimits = "long"\ncommand = {}\n'
    assert problem(NAMED + rule.format('"udp"')) == (
        "rule[0].limits",
        "'long' has no bandwidth, and its idle time is not for datagrams",
    )
    parse_config(NAMED + rule.format('["udp", "connect"]'), "x")
    parse_config(NAMED + rule.replace("long", "bulk").format('"udp"'), "x")


def test_a_table_with_a_mistake_is_there_to_be_named() -> None:
    rule = '[[rule]]\nid = "all"\naction = "allow"\nlimits = "bulk"\n'
    assert set(problems(f"[limit.bulk]\n{rule}")) == {"limit.bulk"}


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


def test_the_hosts_own_addresses_are_asked_for_at_each_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reload is a reading: an address that was added is then guarded."""
    found: list[IPv4Network] = []
    monkeypatch.setattr("socksd.app.config.load.own_networks", lambda: tuple(found))
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

    monkeypatch.setattr("socksd.app.config.load.own_networks", unreadable)
    _, message = problem(OPEN)
    assert message.startswith("cannot tell which addresses are this host's own")


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

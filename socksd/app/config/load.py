"""A configuration out of a file, or all that is wrong with it."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from socksd.app.config.limits import Limit
from socksd.app.config.structure import structured
from socksd.app.config.tables import Config
from socksd.app.own import own_networks
from socksd.codes import Command
from socksd.errors import ConfigError, Problem
from socksd.facts import DIRECT
from socksd.policy.builtin import built_in
from socksd.policy.cases import load_cases
from socksd.policy.load import load_groups, load_rules, load_sets
from socksd.policy.match import WithCommand
from socksd.policy.rules import Rule
from socksd.policy.sets import HostSet
from socksd.policy.special import SPECIAL, special_sets


def load_config(path: Path) -> Config:
    """
    Read a configuration from a file.

    Raises:
        ConfigError: It cannot be read, or has problems: all of them.
    """
    return parse_config(read_config(path), str(path))


def read_config(path: Path) -> str:
    """
    Give the text of a configuration file.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError([Problem("", f"cannot read {path}: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem("", f"{path} is not UTF-8 at octet {error.start}")]) from error


def parse_config(text: str, name: str) -> Config:
    """
    Read a configuration.

    What this host's addresses are is asked anew each time.

    Args:
        text: TOML.
        name: The path of its file, for a syntax error, which also says the
            line and the column; names of set files are relative to where it is.

    Raises:
        ConfigError: It has problems: all of them.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(name, str(error))]) from error
    problems: list[Problem] = []
    names = list(_listener_names(tables.get("listener")))
    problems += _repeated(names)
    special: Mapping[str, HostSet] = SPECIAL
    try:
        special = special_sets(own_networks())
    except OSError as error:
        message = f"cannot tell which addresses are this host's own: {error}"
        problems.append(Problem("", message))
    sets = load_sets(
        tables.pop("sets", {}),
        special,
        lambda file: (Path(name).parent / file).read_text("utf-8"),
        problems,
    )
    groups = load_groups(tables.pop("groups", {}), problems)
    listeners = [name for _, name in names]
    rules: tuple[Rule, ...] | None = None
    try:
        rules = load_rules(
            tables.pop("rule", []),
            listeners,
            sets=sets,
            groups=groups,
            routes=dict.fromkeys([DIRECT, *_table_names(tables.get("route"))]),
            limits=_table_names(tables.get("limit")),
        )
    except ConfigError as error:
        problems += error.problems
    tested = None if rules is None else rules or built_in(with_login=True).rules
    cases = load_cases(tables.pop("test", []), listeners, groups, tested, problems)
    try:
        config = structured(tables)
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    problems += _limited_in_vain(rules or (), config.limit)
    if problems:
        raise ConfigError(problems)
    return attrs.evolve(config, rule=rules or (), sets=sets, groups=groups, test=cases)


def _listener_names(listeners: object) -> Iterator[tuple[int, str]]:
    """Find the names, whatever else is wrong: rules that use them are not."""
    if isinstance(listeners, list):
        for index, table in enumerate(listeners):
            if isinstance(table, dict) and isinstance(table.get("name"), str):
                yield index, table["name"]


def _table_names(tables: object) -> list[str]:
    """Give the names of tables, whatever is wrong in them."""
    return list(tables) if isinstance(tables, dict) else []


def _limited_in_vain(rules: Sequence[Rule], limits: Mapping[str, Limit]) -> Iterator[Problem]:
    """Find rules for datagrams only whose limits have nothing to say of these."""
    for index, rule in enumerate(rules):
        is_for_udp = WithCommand.of([Command.UDP_ASSOCIATE]) in rule.conditions
        limit = limits.get(rule.limits)
        if is_for_udp and limit is not None and limit.bandwidth is None:
            message = f"{rule.limits!r} has no bandwidth, and its idle time is not for datagrams"
            yield Problem(f"rule[{index}].limits", message)


def _repeated(names: Collection[tuple[int, str]]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, name in names:
        if first.setdefault(name, index) != index:
            message = f"{name!r} is the name of listener[{first[name]}] already"
            yield Problem(f"listener[{index}].name", message)

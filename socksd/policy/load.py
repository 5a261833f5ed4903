"""
A policy from the tables of a configuration: ``[sets]``, ``[groups]``, ``[[rule]]``.

Everything wrong is reported at once, each with its key path; indices count
from 0 as in code, so ``rule[3].to[1]`` is the fourth rule's second value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from socksd.codes import COMMANDS, Command
from socksd.errors import AddressError, ConfigError, Problem, did_you_mean
from socksd.facts import DIRECT, Verdict
from socksd.policy import values
from socksd.policy.match import (
    At,
    ByUser,
    Condition,
    FromNetworks,
    Group,
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
from socksd.policy.sets import HostSet, IPNetwork
from socksd.policy.special import SPECIAL
from socksd.policy.values import Wrong

T = TypeVar("T")

KEYS = (  # of a rule
    *("id", "action", "mode", "share", "text", "route", "limits", "udp_replies", "log"),
    *("from", "not_from", "listener", "user", "group", "command"),
    *("to", "not_to", "resolves_to", "ports", "when", "require"),
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MOST = 10  # problems that are told of one file of a set


def load_sets(
    tables: object,
    special: Mapping[str, HostSet],
    read: Callable[[str], str],
    problems: list[Problem],
) -> dict[str, HostSet]:
    """
    Make sets of the parsed ``sets`` key.

    Args:
        tables: As ``tomllib`` gives it, whatever was written.
        special: The built-in sets.
        read: Gives the text of a file as the configuration names it; raises
            OSError or UnicodeDecodeError.
        problems: Added to.

    Returns:
        All sets by their names, with ``@``; of one with problems what is good.
    """
    sets = dict(special)
    if not isinstance(tables, Mapping):
        problems.append(Problem("sets", f"must be a table, not {values.type_of(tables)}"))
        return sets
    for name, written in tables.items():
        path = below("sets", name)
        try:
            reference = "@" + values.name(name, "name of a set")
            if reference in special:
                raise Wrong(f"{reference} is a built-in set")
        except Wrong as error:
            problems.append(Problem(path, str(error)))
            continue
        hosts = [host for host in _members(written, path, read, problems) if host is not None]
        sets[reference] = HostSet.of(hosts, reference)
    return sets


def load_groups(tables: object, problems: list[Problem]) -> dict[str, Group]:
    """
    Make groups of the parsed ``groups`` key.

    Args:
        tables: As ``tomllib`` gives it, whatever was written.
        problems: Added to.
    """
    groups: dict[str, Group] = {}
    if not isinstance(tables, Mapping):
        problems.append(Problem("groups", f"must be a table, not {values.type_of(tables)}"))
        return groups
    for name, written in tables.items():
        path = below("groups", name)
        try:
            values.name(name, "name of a group")
        except Wrong as error:
            problems.append(Problem(path, str(error)))
        if not isinstance(written, list):
            message = f"must be a list of users, not {values.type_of(written)}"
            problems.append(Problem(path, message))
            written = []
        users = [
            read_value(value, f"{path}[{index}]", values.some_text, problems)
            for index, value in enumerate(written)
        ]
        groups[name] = Group(name, frozenset(user for user in users if user is not None))
    return groups


def load_rules(
    tables: object,
    listeners: Collection[str],
    *,
    sets: Mapping[str, HostSet] = SPECIAL,
    groups: Mapping[str, Group] | None = None,
    routes: Collection[str] = (DIRECT,),
    limits: Collection[str] = (),
) -> tuple[Rule, ...]:
    """
    Make rules of the parsed ``rule`` key: a list of tables.

    Args:
        tables: As ``tomllib`` gives it, whatever was written.
        listeners: The names that ``listener`` may use.
        sets: What ``@NAME`` may refer to, with its ``@``.
        groups: What ``group`` may name.
        routes: What ``route`` may name.
        limits: What ``limits`` may name.

    Raises:
        ConfigError: With every problem there is.
    """
    if not isinstance(tables, Sequence) or isinstance(tables, str):
        raise ConfigError([Problem("rule", "must be a list of tables: write [[rule]]")])
    loader = _Loader(listeners, sets, groups or {}, routes, limits, [], {})
    rules = [loader.rule(table, f"rule[{index}]") for index, table in enumerate(tables)]
    if loader.problems:
        raise ConfigError(loader.problems)
    return tuple(rules)


@dataclass
class _Loader:
    """
    One run over all rules.

    After a problem it goes on with what is left, to find the next one; the
    rules made then are not used.
    """

    listeners: Collection[str]
    sets: Mapping[str, HostSet]
    groups: Mapping[str, Group]
    routes: Collection[str]
    limits: Collection[str]
    problems: list[Problem]
    ids: dict[str, str]  # each id, and the path of the rule that has it

    def rule(self, table: object, path: str) -> Rule:
        if not isinstance(table, Mapping):
            message = f"must be a table, not {values.type_of(table)}"
            self.problems.append(Problem(path, message))
            return Rule("", Verdict.DENY, ())
        for key in table:
            if key not in KEYS:
                hint = did_you_mean(key, KEYS)
                self.problems.append(Problem(below(path, key), f"there is no such key{hint}"))
        for key in ("id", "action"):
            if key not in table:
                self.problems.append(Problem(f"{path}.{key}", "is missing"))
        name = self.one(table, path, "id", values.rule_id) or ""
        if name in self.ids:
            message = f"{name!r} is the id of {self.ids[name]} already"
            self.problems.append(Problem(f"{path}.id", message))
        elif name:
            self.ids[name] = path
        action = self.one(table, path, "action", values.action)
        on_trial = self.one(table, path, "mode", values.on_trial)
        share = self.one(table, path, "share", values.share)
        if "share" in table and not on_trial:
            message = 'is for rules with mode = "report"; what is enforced holds for everybody'
            self.problems.append(Problem(f"{path}.share", message))
        log = self.one(table, path, "log", values.boolean)
        if log is False and on_trial:
            message = 'is for rules that decide, which one with mode = "report" does not'
            self.problems.append(Problem(f"{path}.log", message))
        unasked = self.one(table, path, "udp_replies", values.unasked)
        if unasked and action is Verdict.DENY:
            message = "is for rules that allow; what is denied is not let in either"
            self.problems.append(Problem(f"{path}.udp_replies", message))
        command = self.any(table, path, "command", values.command, WithCommand.of)
        route = self.one(table, path, "route", self.route) or DIRECT
        if route != DIRECT and action is Verdict.ALLOW and isinstance(command, WithCommand):
            for other in sorted(command.commands - {Command.CONNECT}):
                message = f"{COMMANDS[other]} goes by {DIRECT!r} only, and would be refused"
                self.problems.append(Problem(f"{path}.route", message))
        conditions = (
            # In the order in which they are asked, the cheap ones first.
            self.any(table, path, "listener", self.listener, OnListener.of),
            self.any(table, path, "user", values.user, ByUser.of),
            self.any(table, path, "group", self.group, InGroup.of),
            command,
            self.any(table, path, "ports", values.ports, ToPorts.of),
            self.one(table, path, "require", values.requirement),
            self.any(table, path, "when", values.hours, At.of),
            self.any(table, path, "from", self.networks, FromNetworks.of),
            self.any(table, path, "not_from", self.networks, NotFrom.of),
            self.any(table, path, "to", self.targets, ToHost.of),
            self.any(table, path, "not_to", self.targets, NotTo.of),
            self.any(table, path, "resolves_to", self.networks, ResolvesTo.of),
            None if share is None else Share(name, share),
        )
        return Rule(
            name,
            action or Verdict.DENY,
            tuple(condition for condition in conditions if condition is not None),
            on_trial=bool(on_trial),
            text=self.one(table, path, "text", values.sentence) or "",
            route=route,
            limits=self.one(table, path, "limits", self.limit) or "",
            log=log is not False,
            unasked=bool(unasked),
        )

    def one(
        self, table: Mapping[str, object], path: str, key: str, read: Callable[[object], T]
    ) -> T | None:
        """Read the one value of a key; ``None`` where the key is not there."""
        if key not in table:
            return None
        return read_value(table[key], f"{path}.{key}", read, self.problems)

    def any(
        self,
        table: Mapping[str, object],
        path: str,
        key: str,
        read: Callable[[object], T],
        make: Callable[[Iterable[T]], Condition],
    ) -> Condition | None:
        """Read a value or a list of them; ``None`` where the key is not there."""
        if key not in table:
            return None
        path, written = f"{path}.{key}", table[key]
        if not isinstance(written, list):
            found = [read_value(written, path, read, self.problems)]
        elif written:
            found = [
                read_value(value, f"{path}[{index}]", read, self.problems)
                for index, value in enumerate(written)
            ]
        else:
            found = []
            message = "an empty list matches nothing; without the key everything matches"
            self.problems.append(Problem(path, message))
        return make(value for value in found if value is not None)

    def listener(self, value: object) -> str:
        return known_name(value, self.listeners, "listener")

    def group(self, value: object) -> Group:
        return self.groups[known_name(value, self.groups, "group")]

    def route(self, value: object) -> str:
        return known_name(value, self.routes, "route")

    def limit(self, value: object) -> str:
        return known_name(value, self.limits, "limits")

    def networks(self, value: object) -> IPNetwork | HostSet:
        """Read a network, or a set that has nothing but networks."""
        if not _is_reference(value):
            return values.network(value)
        found = self.sets[known_name(value, self.sets, "set")]
        if found.names:
            raise Wrong(f"{found.name} holds names; here stand addresses and networks")
        return found

    def targets(self, value: object) -> str | IPNetwork | HostSet:
        """Read a network, a pattern of names, or a set."""
        if not _is_reference(value):
            return values.target(value)
        return self.sets[known_name(value, self.sets, "set")]


def _members(
    written: object, path: str, read: Callable[[str], str], problems: list[Problem]
) -> Iterator[str | IPNetwork | None]:
    """Read what a set holds: from a list, or from a file."""
    if isinstance(written, Mapping):
        yield from _file(written, path, read, problems)
    elif isinstance(written, list):
        for index, value in enumerate(written):
            yield read_value(value, f"{path}[{index}]", _member, problems)
    else:
        message = f'must be a list or {{ file = "..." }}, not {values.type_of(written)}'
        problems.append(Problem(path, message))


def _file(
    table: Mapping[str, object], path: str, read: Callable[[str], str], problems: list[Problem]
) -> Iterator[str | IPNetwork | None]:
    """Read one host from each line; ``#`` begins a comment."""
    for key in table:
        if key != "file":
            hint = did_you_mean(key, ["file"])
            problems.append(Problem(below(path, key), f"there is no such key{hint}"))
    path = f"{path}.file"
    file = read_value(table.get("file", ""), path, values.some_text, problems)
    if file is None:
        return
    try:
        text = read(file)
    except UnicodeDecodeError as error:
        problems.append(Problem(path, f"{file} is not UTF-8 at octet {error.start}"))
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problems.append(Problem(path, f"cannot read {file}: {reason}"))
        return
    wrong = 0
    for number, line in enumerate(text.splitlines(), 1):
        if host := line.partition("#")[0].strip():
            try:
                yield _member(host)
            except (Wrong, AddressError) as error:
                wrong += 1
                if wrong <= _MOST:
                    problems.append(Problem(path, f"{file}:{number}: {error}"))
    if wrong > _MOST:
        problems.append(Problem(path, f"{file}: {wrong - _MOST} more lines are wrong"))


def _member(value: object) -> str | IPNetwork:
    if _is_reference(value):
        raise Wrong(f"{value!r}: a set holds networks and names, but no other set")
    return values.target(value)


def _is_reference(value: object) -> bool:
    return isinstance(value, str) and value.startswith("@")


def known_name(value: object, known: Collection[str], kind: str) -> str:
    """Read a name that must be one of those there are."""
    name = values.some_text(value)
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are: {', '.join(known) or 'none'}"
        raise Wrong(f"no {kind} is named {name!r}{hint}")
    return name


def read_value(
    value: object, path: str, read: Callable[[object], T], problems: list[Problem]
) -> T | None:
    """Read one value; a mistake becomes a problem."""
    try:
        return read(value)
    except (Wrong, AddressError) as error:
        problems.append(Problem(path, str(error)))
        return None


def below(path: str, key: str) -> str:
    """Give the path of a key in the table at *path*."""
    return f"{path}.{key}" if _BARE_KEY.fullmatch(key) else f"{path}.{json.dumps(key)}"

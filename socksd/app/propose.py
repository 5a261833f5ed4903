"""``socksd propose``: a rule list made of what was seen."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from socksd.app.config import Config, load_config
from socksd.app.reading import lines_of
from socksd.app.replay import many, unused_lines
from socksd.errors import ConfigError, Problem
from socksd.facts import Verdict
from socksd.policy.load import load_groups
from socksd.policy.match import Group
from socksd.policy.propose import Proposal, propose
from socksd.policy.rules import Rule

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_LINE = 100  # characters


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of ``socksd``."""
    parser = commands.add_parser(
        "propose",
        help="make rules, and tests for them, of what an access log has seen",
        description="Make the smallest rule list that allows what an access log has seen, with a"
        " test for each rule.",
    )
    parser.add_argument(
        "--log",
        metavar="FILE",
        action="append",
        required=True,
        help='an access log; "-" is the standard input (repeatable)',
    )
    parser.add_argument(
        "--config",
        "-c",
        metavar="FILE",
        help="the configuration that the rules are for: its [guard] and [groups]",
    )
    parser.add_argument(
        "--bound",
        metavar="N",
        type=_bound,
        default=1.0,
        help="how many unseen hosts a suffix or a network may hold for each that was seen"
        " (default 1; 0: none)",
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--user", metavar="U", help="only what this user has done")
    who.add_argument(
        "--group",
        metavar="G",
        help="only what members of this group have done; rules for the group",
    )
    parser.set_defaults(do=run)


def run(parsed: argparse.Namespace) -> None:
    """
    Do what the command line says.

    Raises:
        SystemExit: A file cannot be used, or a name, and why.
    """
    try:
        config = Config() if parsed.config is None else load_config(Path(parsed.config))
        group = None if parsed.group is None else _group(parsed.group, config)
    except ConfigError as error:
        raise SystemExit("\n".join(f"socksd: {problem}" for problem in error.problems)) from error
    # That of any rules at all; a configuration without has none.
    guard = attrs.evolve(config, rule=(Rule("any", Verdict.DENY, ()),)).policy().guard
    proposal = propose(lines_of(parsed.log), parsed.bound, guard, parsed.user, group)
    for line in (*_left_out(proposal), *unused_lines(proposal.unused)):
        sys.stderr.write(f"socksd: {line}\n")
    sys.stdout.write(toml(proposal, parsed.bound, group))


def toml(proposal: Proposal, bound: float, group: Group | None = None) -> str:
    """Write a proposal as a configuration."""
    lines = [
        f"# Allows {many(proposal.sessions, 'session')} by {many(len(proposal.rules), 'rule')}.",
        f"# For each host seen a suffix or a network holds {bound:g} unseen at most.",
        "version = 1",
    ]
    if group is not None:
        lines += ["", "[groups]", _pair(group.name, sorted(group.users))]
    for each in proposal.rules:
        more = f" and holds {each.unseen:,} more" if each.unseen else ""
        decides = f"# Decides {many(each.sessions, 'session')}"
        lines += ["", f"{decides}; is for {many(each.seen, 'host')}{more}.", "[[rule]]"]
        lines += [_pair(key, value) for key, value in each.rule.items()]
    for each in proposal.rules:
        lines += ["", "[[test]]", *(_pair(key, value) for key, value in each.test.items())]
    return "\n".join(lines) + "\n"


def _pair(key: str, value: object) -> str:
    line = f"{_key(key)} = {_value(value)}"
    if len(line) <= _LINE or not isinstance(value, list):
        return line
    return "\n".join([f"{_key(key)} = [", *(f"    {_value(each)}," for each in value), "]"])


def _key(key: str) -> str:
    return key if "." not in key else _value(key)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_value(each)}' for key, each in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    # Names of users are printable, so that the escapes of JSON are TOML's.
    return json.dumps(value, ensure_ascii=False)


def _left_out(proposal: Proposal) -> Iterator[str]:
    for why, count in sorted(proposal.left_out.items()):
        yield f"left out: {many(count, 'session')} that {why}"


def _group(name: str, config: Config) -> Group:
    problems: list[Problem] = []
    groups = load_groups({name: []}, problems)
    if problems:
        raise ConfigError(problems)
    return config.groups.get(name, groups[name])


def _bound(text: str) -> float:
    bound = float(text)
    if not (0 <= bound < math.inf):
        raise ValueError
    return bound

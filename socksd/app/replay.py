"""``socksd replay``: which of yesterday's sessions another policy would treat otherwise."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

from socksd.app.config import load_config
from socksd.app.reading import lines_of
from socksd.errors import ConfigError
from socksd.facts import Verdict
from socksd.observe.lines import word
from socksd.policy.records import Unused
from socksd.policy.replay import Difference, Group, Replayed, Ruling, replay
from socksd.policy.rules import Policy

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_SHOWN = 10  # groups below one heading

_Found = tuple[Difference, Group]


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of ``socksd``."""
    parser = commands.add_parser(
        "replay",
        help="decide the sessions of an access log again, by another configuration",
        description="Decide the sessions of an access log again, and list those that another"
        " configuration would treat otherwise.",
    )
    parser.add_argument("config", metavar="NEW", help="the configuration to try")
    parser.add_argument(
        "--log",
        metavar="FILE",
        action="append",
        required=True,
        help='an access log; "-" is the standard input (repeatable)',
    )
    parser.add_argument(
        "--old", metavar="OLD", help="compare with this configuration, not with the log's verdicts"
    )
    parser.add_argument(
        "--fail-over",
        metavar="N",
        type=_count,
        help="status 1 if more than N sessions would change",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.set_defaults(do=run)


def run(parsed: argparse.Namespace) -> None:
    """
    Do what the command line says.

    Raises:
        SystemExit: With status 1: more sessions would change than are to, or
            a file cannot be used, and why.
    """
    new = policy_of(parsed.config)
    old = None if parsed.old is None else policy_of(parsed.old)
    replayed = replay(lines_of(parsed.log), new, old)
    if parsed.json:
        sys.stdout.write(json.dumps(document(replayed), indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in report(replayed))
    if parsed.fail_over is not None and replayed.changed > parsed.fail_over:
        raise SystemExit(1)


def policy_of(config: str) -> Policy:
    """
    Read the policy of a configuration.

    Raises:
        SystemExit: It has problems: a line for each.
    """
    try:
        return load_config(Path(config)).policy()
    except ConfigError as error:
        raise SystemExit("\n".join(f"socksd: {problem}" for problem in error.problems)) from error


def report(replayed: Replayed) -> Iterator[str]:
    """Write what has come of it for people."""
    yield (
        f"{replayed.changed:,} of {replayed.sessions:,} sessions would change;"
        f" {replayed.other_rule:,} more would be decided by another rule"
    )
    yield from unused_lines(replayed.unused)
    for changes in (True, False):
        found = [each for each in replayed.groups.items() if each[0].verdict_changes is changes]
        for heading, groups in _by_heading(found):
            yield ""
            yield f"{heading}: {sum(group.count for _, group in groups):,}"
            yield from _table(groups)
    if any(difference.after.verdict is Verdict.DEFER for difference in replayed.groups):
        yield ""
        yield "defer: it is not refused any more so early; what comes then the log cannot know"


def unused_lines(unused: dict[Unused, int]) -> Iterator[str]:
    """Say how many lines of a log were not used, and why."""
    for why, count in sorted(unused.items()):
        yield f"not used: {many(count, 'line')} {why}"


def many(count: int, what: str) -> str:
    """Write how many there are of something."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def document(replayed: Replayed) -> dict[str, object]:
    """Write what has come of it for programs."""
    return {
        "sessions": replayed.sessions,
        "changed": replayed.changed,
        "other_rule": replayed.other_rule,
        "unused": {why.name.lower(): count for why, count in sorted(replayed.unused.items())},
        "groups": [
            {
                "before": _ruling(difference.before),
                "after": _ruling(difference.after),
                "user": difference.user,
                "destination": difference.destination or None,
                "count": group.count,
                "example": {
                    "time": group.time,
                    "session": group.session,
                    "client": group.client,
                },
            }
            for difference, group in sorted(replayed.groups.items(), key=_most_first)
        ],
    }


def _ruling(ruling: Ruling) -> dict[str, str | None]:
    return {"verdict": ruling.verdict.value, "rule": ruling.rule or None}


def _by_heading(found: Iterable[_Found]) -> list[tuple[str, list[_Found]]]:
    """Gather what differs by verdicts and rules, the most frequent first."""
    some = sorted(found, key=lambda each: (_heading(each), _most_first(each)))
    gathered = [(heading, list(groups)) for heading, groups in groupby(some, key=_heading)]
    return sorted(gathered, key=lambda each: -sum(group.count for _, group in each[1]))


def _heading(found: _Found) -> str:
    before, after = found[0].before, found[0].after
    if before.verdict is after.verdict:
        return f"{before.verdict.value}, by {word(after.rule)} instead of {word(before.rule)}"
    return f"{_words(before)} -> {_words(after)}"


def _words(ruling: Ruling) -> str:
    return f"{ruling.verdict.value} by {word(ruling.rule)}" if ruling.rule else ruling.verdict.value


def _most_first(found: _Found) -> tuple[int, str, str]:
    difference, group = found
    return -group.count, difference.user or "", difference.destination


def _table(groups: list[_Found]) -> Iterator[str]:
    for difference, group in islice(groups, _SHOWN):
        session = f"{_plain(group.session)} of {_plain(group.client)} at {_plain(group.time)}"
        yield (
            f"  {group.count:>9,}  {word(difference.user)}  {_plain(difference.destination)}"
            f"  as session {session}"
        )
    if len(groups) > _SHOWN:
        more = sum(group.count for _, group in groups[_SHOWN:])
        yield f"  {more:>9,}  of {len(groups) - _SHOWN:,} others"


def _plain(text: str) -> str:
    """Write what a log says so that a terminal takes it for text; nothing is "-"."""
    if text.isascii() and text.isprintable() and " " not in text:
        return text or "-"
    return json.dumps(text)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number

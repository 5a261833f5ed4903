"""
``socksd explain``: why the policy says what it says, and what would turn it.

With ``--json`` one object is written, whose shape is stable; new keys may come::

    {"question": {"client", "listener", "user", "groups", "command", "host", "port", "time",
                  "addresses"},
     "verdict": "deny", "rule": "default", "detail": "", "text": "", "log": true,
     "route": {"name": "direct", "source": []},
     "limit": {"name": "bulk", "bandwidth": 20000000, "idle": 900.0},
     "stages": [{"stage": "request", "address": null, "verdict", "rule", "detail",
                 "reports": [{"rule", "would"}],
                 "rules": [{"id", "action", "report", "matches", "key", "wanted", "fact",
                            "guard"}]}],
     "changes": [{"rule": "dba", "verdict": "allow",
                  "facts": [{"key": "at", "value": "wed 07:00 UTC"}]}],
     "edits": [{"rule": "dba", "key": "ports", "fact": "5433"}]}

``matches`` is true, false, or null where that depends on what is not known
yet; ``key`` is then the condition that fails or is open, else null. ``route``
and ``limit`` are null unless the verdict is "allow", ``limit`` also where none
holds; its bandwidth, null for any, is in octets a second. An edit
with an empty ``key`` is the removal of the rule.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC
from ipaddress import ip_address
from typing import TYPE_CHECKING

from socksd.address import IPAddress, reached
from socksd.app import asked
from socksd.app.config import Config, as_rate
from socksd.app.logged import question_of
from socksd.app.tap import configured
from socksd.codes import COMMANDS, Command
from socksd.errors import ConfigError
from socksd.facts import DIRECT, Decision, Verdict
from socksd.policy.cases import address, zones_of
from socksd.policy.explain import Edit, Explanation, Place, Question, Said, Stage, edits, explain
from socksd.policy.guard import GUARD
from socksd.policy.nearest import Turn, nearest
from socksd.policy.rules import Policy
from socksd.policy.values import Wrong
from socksd.policy.words import UNKNOWN, clock, found, user, wanted

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_SAYS = {Verdict.ALLOW: "allowed", Verdict.DENY: "denied", Verdict.DEFER: "not settled"}
_COLOURS = {Verdict.ALLOW: "32", Verdict.DENY: "31", Verdict.DEFER: "33"}  # ECMA-48 SGR
_DIM = "2"

Paint = Callable[[str, str], str]  # text in a colour


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of ``socksd``."""
    parser = commands.add_parser(
        "explain",
        help="say why the policy allows or denies a request, and what would turn it",
    )
    parser.add_argument("--config", "-c", metavar="FILE", required=True)
    parser.add_argument("--from", dest="client", metavar="ADDRESS", help="where the client is")
    parser.add_argument("--user", help="who has logged in; without it nobody has")
    parser.add_argument(
        "--group", action="append", default=[], help="what an authenticator reports (repeatable)"
    )
    parser.add_argument("--listener", metavar="NAME", help="by default the first one")
    parser.add_argument("--at", metavar="TIME", help='as "tue 22:00" or "tue 22:00 Europe/Berlin"')
    parser.add_argument(
        "--resolves", metavar="ADDRESS", nargs="+", action="extend", help="where the name leads"
    )
    parser.add_argument("--lookup", action="store_true", help="ask the system where it leads")
    parser.add_argument(
        "--log-line", metavar="JSON", help="a line of the access log; -: read one from stdin"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.add_argument("command", nargs="?", choices=sorted(COMMANDS.values()))
    parser.add_argument("destination", nargs="?", metavar="HOST:PORT")
    parser.set_defaults(do=lambda parsed: run(parser, parsed))


def run(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """
    Explain.

    Raises:
        SystemExit: The configuration or the command line has problems.
    """
    try:
        config = configured(parsed.config)
    except ConfigError as error:
        raise SystemExit("\n".join(f"socksd: {each}" for each in error.problems)) from error
    try:
        question = _question(config, parsed)
    except (Wrong, ValueError) as error:
        parser.error(str(error))
    policy = config.policy()
    explanation = explain(policy, question)
    turns, edited = nearest(policy, question), edits(policy, explanation)
    if parsed.json:
        sys.stdout.write(
            json.dumps(asked.as_object(config, explanation, turns, edited), indent=2) + "\n"
        )
        return
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    paint = _paint if colour else _plain
    for line in as_lines(config, policy, explanation, turns, edited, paint):
        sys.stdout.write(line + "\n")


def _question(config: Config, parsed: argparse.Namespace) -> Question:
    """
    Make a question of the command line.

    Raises:
        Wrong: A value is none.
        ValueError: Likewise; or something is missing.
    """
    if parsed.log_line:
        line = sys.stdin.readline() if parsed.log_line == "-" else parsed.log_line
        question = question_of(line)
    else:
        if not (parsed.client and parsed.destination):
            raise ValueError('say --from ADDRESS and what is asked for: connect "HOST:PORT"')
        question = asked.said(
            config,
            client=parsed.client,
            command=parsed.command,
            destination=parsed.destination,
            user=parsed.user,
            groups=parsed.group,
            listener=parsed.listener,
            at=parsed.at,
        )
    host = question.facts.destination and question.facts.destination.host
    if not isinstance(host, str):
        return question
    if parsed.resolves:
        return Question(question.facts, tuple(map(address, parsed.resolves)))
    if parsed.lookup:
        return Question(question.facts, look_up(host))
    return question


def look_up(name: str) -> tuple[IPAddress, ...]:
    """
    Ask the system where a name leads.

    Raises:
        ValueError: Nowhere, or it cannot be asked.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"cannot look up {name}: {error.strerror}") from error
    return tuple(dict.fromkeys(reached(ip_address(where[0])) for *_, where in found))


def _paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _plain(text: str, code: str) -> str:
    return text


def as_lines(
    config: Config,
    policy: Policy,
    explanation: Explanation,
    turns: tuple[Turn, ...],
    edited: tuple[Edit, ...],
    paint: Paint = _plain,
) -> Iterator[str]:
    """Write an explanation for a terminal."""
    question, decisive = explanation.question, explanation.decisive
    yield _headline(policy, question)
    yield ""
    for stage in explanation.stages:
        yield f"{_place(stage, explanation)}: {_word(stage, paint)}"
    verdict = explanation.decision.verdict
    looked_up = question.facts.command is not None and verdict is not Verdict.DENY
    if looked_up and question.addresses is None and question.facts.address is None:
        yield f"address: {UNKNOWN} (--resolves ADDRESS, or --lookup)"
    yield ""
    width = max(len(said.rule.id) for said in decisive.said)
    for said in decisive.said:
        mark = "=>" if said.decides else "  "
        action = said.rule.action.value
        line = f"{mark} {action:5}  {said.rule.id:{width}}  {_clause(said, decisive)}"
        yield line if said.decides or said.answer is None else paint(line, _DIM)
    behind = [rule.id for rule in policy.rules[len(decisive.said) :]]
    if behind:
        yield paint(f"   not asked: {', '.join(behind)}", _DIM)
    yield ""
    yield f"{paint(_SAYS[verdict], _COLOURS[verdict])} by {explanation.decision.rule}"
    if explanation.decision.text:
        yield f"  {explanation.decision.text}"
    if not explanation.decision.log:
        yield "  (such a session leaves no line in the logs)"
    if verdict is Verdict.ALLOW:
        yield from _carried(config, explanation.decision, question.facts.command)
    if turns or edited:
        yield "and otherwise"
        for turn in turns:
            facts = " and ".join(f"{each.key} = {each.text}" for each in turn.changes)
            yield f"  with {facts}: {_SAYS[turn.decision.verdict]} by {turn.decision.rule}"
        for edit in edited:
            what = f"had {edit.fact} in {edit.key}" if edit.key else "was not there"
            yield f"  if rule {edit.rule} {what}"


def _carried(config: Config, decision: Decision, command: Command | None) -> Iterator[str]:
    """Say by which way, and within what."""
    route, limit = asked.carried(config, decision)
    source = f", from {' and '.join(map(str, route.source))}" if route else ""
    yield f"  by route {decision.route}{source}"
    if command not in (None, Command.CONNECT) and decision.route != DIRECT:
        yield f"  by which there is no {COMMANDS[command]}, so it is refused"
    if limit is not None:
        bandwidth = f"{as_rate(limit.bandwidth)}, " if limit.bandwidth else ""
        idle = limit.idle or config.deadlines.idle
        yield f"  within limit {decision.limits}: {bandwidth}{idle:g} s idle"


def _headline(policy: Policy, question: Question) -> str:
    facts = question.facts
    when = clock(facts.time, next(iter(sorted(zones_of(policy.rules), key=str)), UTC))
    words = f"{user(facts)}, from {facts.client} at {facts.listener}, {when}"
    if facts.command is None:
        return f"{words}: no request"
    destination = "" if facts.destination is None else f" {facts.destination}"  # UDP ASSOCIATE
    return f"{words}: {COMMANDS[facts.command]}{destination}"


def _place(stage: Stage, explanation: Explanation) -> str:
    if stage.place is not Place.ADDRESS:
        return stage.place
    # The reading that was decisive may be of what the address stands for.
    index = [each for each in explanation.stages if each.place is Place.ADDRESS].index(stage)
    address = (explanation.question.addresses or ())[index]
    read_as = "" if address == stage.facts.address else f" as {stage.facts.address}"
    return f"address {address}{read_as}"


def _word(stage: Stage, paint: Paint) -> str:
    decision = stage.decision
    words = paint(decision.verdict.value, _COLOURS[decision.verdict]) + f" by {decision.rule}"
    if decision.rule == GUARD and decision.detail:
        words += f" ({decision.detail})"
    for report in decision.reports:
        words += f", {report.rule} would {report.verdict.value}"
    return words


def _clause(said: Said, stage: Stage) -> str:
    """Say why a rule does not match, or what of it is not known; or that it does."""
    if said.condition is not None:
        condition = said.condition
        is_open = f"depends on {condition.key}" if said.answer is None else condition.key
        return f"{is_open} = {wanted(condition)}; this is {found(condition, stage.facts)}"
    if said.objection:
        return f"matches, but the guard says no: {said.objection}"
    return "matches, on trial" if said.rule.on_trial else "matches"

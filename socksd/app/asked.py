"""Questions to the policy, from a command line or a program, and answers for programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from socksd.address import Destination
from socksd.admin.routes import BadBody, Body
from socksd.app.config import Config, Limit, Route
from socksd.codes import COMMANDS
from socksd.errors import did_you_mean
from socksd.facts import ANONYMOUS, Decision, Facts, Principal, Verdict
from socksd.policy import values
from socksd.policy.cases import address, moment, zones_of
from socksd.policy.cases import destination as parse_destination
from socksd.policy.explain import Edit, Explanation, Question, Stage, edits, explain
from socksd.policy.nearest import Turn, nearest
from socksd.policy.values import Wrong
from socksd.policy.words import found, wanted


def said(
    config: Config,
    *,
    client: str,
    command: str | None,
    destination: str,
    user: str | None,
    groups: Sequence[str],
    listener: str | None,
    at: str | None,
) -> Question:
    """
    Make a question of words.

    Args:
        config: Whose listeners and time zones are meant.
        client: An address.
        command: As a rule calls it; ``None`` for the usual one.
        destination: ``HOST:PORT``.
        user: ``None`` for a client without login.
        groups: What an authenticator would report of the user.
        listener: By name; ``None`` for the first.
        at: As ``tue 22:00``; ``None`` for now.

    Raises:
        Wrong: A value is none.
        ValueError: Likewise; or they do not go together.
    """
    listeners = [each.name for each in config.listener]
    listener = listener or listeners[0]
    if listener not in listeners:
        raise ValueError(f"no listener is named {listener!r}{did_you_mean(listener, listeners)}")
    now = time.time()
    if at:
        now = moment(at, zones_of(config.rule), datetime.fromtimestamp(now, UTC))
    principal = Principal(user, frozenset(groups)) if user is not None else ANONYMOUS
    if groups and user is None:
        raise ValueError("--group without --user: who has not logged in has no groups")
    facts = Facts(address(client), listener, principal, time=now)
    return Question(facts.asking(values.command(command), parse_destination(destination)))


def answer(config: Config, body: Body) -> dict[str, Any]:
    """
    Explain what a program asks a running server, and write it as ``--json`` does.

    Args:
        config: By whose policy.
        body: ``from``; ``connect``, ``bind`` or ``udp``; and what else a
            ``[[test]]`` says of whom and where: ``user``, ``group``,
            ``listener``, ``at``, ``resolves``.

    Raises:
        BadBody: It is no question.
    """
    words = {key: _words(key, value) for key, value in body.items()}
    groups, resolves = words.pop("group", []), words.pop("resolves", None)
    commands = [each for each in COMMANDS.values() if each in words]
    for key, value in words.items():
        if key not in (*commands, "from", "user", "listener", "at"):
            raise BadBody(f"there is no {key!r}")
        if len(value) != 1:
            raise BadBody(f"{key} is one string")
    if len(commands) != 1 or "from" not in words:
        raise BadBody('say "from", an address, and "connect", "bind" or "udp", as "HOST:PORT"')
    one = {key: value[0] for key, value in words.items()}
    try:
        question = said(
            config,
            client=one["from"],
            command=commands[0],
            destination=one[commands[0]],
            user=one.get("user"),
            groups=groups,
            listener=one.get("listener"),
            at=one.get("at"),
        )
        if resolves is not None and question.facts.address is None:
            question = Question(question.facts, tuple(map(address, resolves)))
    except (Wrong, ValueError) as error:
        raise BadBody(str(error)) from None
    policy = config.policy()
    explanation = explain(policy, question)
    return as_object(config, explanation, nearest(policy, question), edits(policy, explanation))


def _words(key: str, value: object) -> list[str]:
    given: list[object] = value if isinstance(value, list) else [value]
    words = [each for each in given if isinstance(each, str)]
    if len(words) < len(given):
        raise BadBody(f"{key} is a string, or a list of them")
    return words


def carried(config: Config, decision: Decision) -> tuple[Route | None, Limit | None]:
    """Give what a session that is allowed goes by and keeps within; ``None``: nothing is set."""
    return config.route.get(decision.route), config.limit.get(decision.limits)


def as_object(
    config: Config, explanation: Explanation, turns: tuple[Turn, ...], edited: tuple[Edit, ...]
) -> dict[str, Any]:
    """Write an explanation for programs; see :mod:`socksd.app.explain` for the shape."""
    facts, decision = explanation.question.facts, explanation.decision
    destination: Destination | None = facts.destination
    addresses = explanation.question.addresses
    return {
        "question": {
            "client": str(facts.client),
            "listener": facts.listener,
            "user": facts.principal.name if facts.principal else None,
            "groups": sorted(facts.principal.groups) if facts.principal else [],
            "command": None if facts.command is None else COMMANDS[facts.command],
            "host": None if destination is None else str(destination.host),
            "port": None if destination is None else destination.port,
            "time": datetime.fromtimestamp(facts.time, UTC).isoformat(),
            "addresses": None if addresses is None else list(map(str, addresses)),
        },
        "verdict": decision.verdict.value,
        "rule": decision.rule,
        "detail": decision.detail,
        "text": decision.text,
        "log": decision.log,
        "route": _route_object(config, decision),
        "limit": _limit_object(config, decision),
        "stages": [_stage_object(stage) for stage in explanation.stages],
        "changes": [
            {
                "rule": turn.decision.rule,
                "verdict": turn.decision.verdict.value,
                "facts": [{"key": each.key, "value": each.text} for each in turn.changes],
            }
            for turn in turns
        ],
        "edits": [{"rule": edit.rule, "key": edit.key, "fact": edit.fact} for edit in edited],
    }


def _route_object(config: Config, decision: Decision) -> dict[str, Any] | None:
    if decision.verdict is not Verdict.ALLOW:
        return None
    route, _ = carried(config, decision)
    return {"name": decision.route, "source": list(map(str, route.source)) if route else []}


def _limit_object(config: Config, decision: Decision) -> dict[str, Any] | None:
    _, limit = carried(config, decision)
    if decision.verdict is not Verdict.ALLOW or limit is None:
        return None
    return {
        "name": decision.limits,
        "bandwidth": limit.bandwidth,
        "idle": limit.idle or config.deadlines.idle,
    }


def _stage_object(stage: Stage) -> dict[str, Any]:
    decision, facts = stage.decision, stage.facts
    return {
        "stage": stage.place,
        "address": None if facts.address is None else str(facts.address),
        "verdict": decision.verdict.value,
        "rule": decision.rule,
        "detail": decision.detail,
        "reports": [
            {"rule": report.rule, "would": report.verdict.value} for report in decision.reports
        ],
        "rules": [
            {
                "id": said.rule.id,
                "action": said.rule.action.value,
                "report": said.rule.on_trial,
                "matches": said.answer,
                "key": said.condition and said.condition.key,
                "wanted": said.condition and wanted(said.condition),
                "fact": said.condition and found(said.condition, facts),
                "guard": said.objection,
            }
            for said in stage.said
        ],
    }

"""
``[[test]]``: what the policy's owner expects of it, asked of the policy itself.

A test depends on nothing but the configuration: names lead where it says, and
the time is the one it states or a Wednesday noon.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TypeVar

from socksd.address import Destination, IPAddress, normal_host, reached
from socksd.errors import Problem, did_you_mean
from socksd.facts import ANONYMOUS, Facts, Principal, Report, Verdict
from socksd.policy import values
from socksd.policy.explain import Question, explain, in_short, outcome
from socksd.policy.guard import GUARD
from socksd.policy.load import below, known_name, read_value
from socksd.policy.match import At, ByUser
from socksd.policy.rules import DEFAULT, Policy, Rule
from socksd.policy.values import COMMANDS_BY_WORD, Wrong
from socksd.policy.words import DAYS

T = TypeVar("T")

NOON = "wed 12:00"  # the time of a test that states none

_KEYS = ("as", "resolves", "expect")
_AS = ("from", "user", "group", "listener", *COMMANDS_BY_WORD, "at")
_EXPECT = ("action", "rule", "reports")
_ACTIONS = {Verdict.ALLOW: "allow", Verdict.DENY: "deny"}

_PORT = re.compile(r"[0-9]{1,5}")
_AT = re.compile(r"(?P<day>[a-z]+) (?P<hour>[0-9]{2}):(?P<minute>[0-5][0-9])(?: (?P<zone>\S+))?")


@dataclass(frozen=True, slots=True)
class Case:
    """
    One ``[[test]]``.

    Attributes:
        path: Its key path: ``test[2]``.
        action: The verdict that is expected: ALLOW or DENY.
        rule: The id of the rule that is to decide; ``None``: any.
        reports: What rules on trial are to say; ``None``: anything.
    """

    path: str
    question: Question
    action: Verdict
    rule: str | None = None
    reports: frozenset[Report] | None = None


def load_cases(
    tables: object,
    listeners: Sequence[str],
    groups: Collection[str],
    rules: Sequence[Rule] | None,
    problems: list[Problem],
) -> tuple[Case, ...]:
    """
    Make cases of the parsed ``test`` key.

    Args:
        tables: As ``tomllib`` gives it, whatever was written.
        listeners: What ``listener`` may name; the first is meant where a test
            names none.
        groups: What ``group`` may name.
        rules: Those of the policy; ``None`` where they are not known for
            their problems.
        problems: Added to.
    """
    if not isinstance(tables, Sequence) or isinstance(tables, str):
        problems.append(Problem("test", "must be a list of tables: write [[test]]"))
        return ()
    loader = _Loader(listeners, groups, rules, problems)
    made = [loader.case(table, f"test[{index}]") for index, table in enumerate(tables)]
    return tuple(case for case in made if case is not None)


def failures(policy: Policy, cases: Sequence[Case]) -> Iterator[Problem]:
    """Say of each case that does not come out as expected what comes out instead, and why."""
    for case in cases:
        decision = outcome(policy, case.question)
        if decision.verdict is not case.action or case.rule not in (None, decision.rule):
            expected = _ACTIONS[case.action] + (f" by {case.rule!r}" if case.rule else "")
            why = in_short(explain(policy, case.question), case.rule)
            if decision.verdict is Verdict.DEFER:
                why += '; say where: resolves = ["ADDRESS"]'
            yield Problem(case.path, f"expected {expected}, but it is {why}")
        elif case.reports not in (None, frozenset(decision.reports)):
            expected, told = map(_reports, (case.reports or (), decision.reports))
            yield Problem(case.path, f"expected rules on trial to say {expected}, not {told}")


def zones_of(rules: Sequence[Rule]) -> set[tzinfo]:
    """Give the time zones that rules speak of."""
    return {
        zone
        for rule in rules
        for condition in rule.conditions
        if isinstance(condition, At)
        for zone, _ in condition.zones
    }


def moment(value: object, zones: Collection[tzinfo], week: datetime) -> float:
    """
    Read ``tue 22:00``, or with a zone behind it, in seconds since the epoch.

    Args:
        value: What somebody has written.
        zones: Those of the policy. Where it has just one, its clocks are
            meant; where it has none, the time does not matter.
        week: Any time in the week that is meant.

    Raises:
        Wrong: It is no time, or it is not clear by which clocks.
    """
    text = values.some_text(value)
    found = _AT.fullmatch(text)
    if found is None or int(found["hour"]) > 23:
        raise Wrong(f'{text!r} is no time; write one as "tue 22:00" or "tue 22:00 Europe/Berlin"')
    day = found["day"]
    if day not in DAYS:
        raise Wrong(f"{day!r} is no day: {', '.join(DAYS)}{did_you_mean(day, DAYS)}")
    if found["zone"]:
        zone = values.zone(found["zone"])
    elif len(zones) > 1:
        some = " or ".join(sorted(map(str, zones)))
        raise Wrong(f'{text!r}: by which clocks? Rules speak of {some}; write "{text} ZONE"')
    else:
        zone = next(iter(zones), UTC)
    date = week.date() + timedelta(days=DAYS.index(day) - week.weekday())
    local = datetime(
        date.year, date.month, date.day, int(found["hour"]), int(found["minute"]), tzinfo=zone
    )
    return local.timestamp()


def destination(value: object) -> Destination:
    """
    Read ``host:port``.

    Raises:
        Wrong: It is none.
        AddressError: Its host has no normal form.
    """
    text = values.some_text(value)
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
        raise Wrong(f'{text!r} is no destination; write one as "host:443" or "[2001:db8::1]:443"')
    if ":" in host and not host.startswith("["):
        raise Wrong(f'{text!r}: an IPv6 address stands in brackets: "[{host}]:{port}"')
    return Destination.named(host, int(port))


def address(value: object) -> IPAddress:
    """
    Read an address, in any spelling.

    Raises:
        Wrong: It is none.
        AddressError: It is no host at all.
    """
    text = values.some_text(value)
    host = normal_host(text)
    if isinstance(host, str):
        raise Wrong(f"{text!r} is a name; here stands an address")
    return reached(host)


# Any week would do; this one has no change of clocks near.
_WEEK = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass
class _Loader:
    """One run over all tests; after a problem it goes on to find the next one."""

    listeners: Sequence[str]
    groups: Collection[str]
    rules: Sequence[Rule] | None
    problems: list[Problem]

    def case(self, written: object, path: str) -> Case | None:
        """Read one test; ``None`` where it has problems."""
        before = len(self.problems)
        table = self.table(written, path, _KEYS)
        if table is None:
            return None
        asking = self.table(self.needed(table, path, "as"), f"{path}.as", _AS)
        facts = None if asking is None else self.facts(asking, f"{path}.as")
        addresses = tuple(self.some(table, path, "resolves", address)) or None
        if facts is not None and facts.address is not None and addresses:
            message = "an address leads nowhere else; only names have this key"
            self.problems.append(Problem(f"{path}.resolves", message))
        action = rule = reports = None
        expect = self.table(self.needed(table, path, "expect"), f"{path}.expect", _EXPECT)
        if expect is not None:
            self.needed(expect, f"{path}.expect", "action")
            action = self.one(expect, f"{path}.expect", "action", values.action)
            rule = self.one(expect, f"{path}.expect", "rule", self.rule)
            reports = self.reports(expect.get("reports"), f"{path}.expect.reports")
        if len(self.problems) > before or facts is None or action is None:
            return None
        return Case(path, Question(facts, addresses), action, rule, reports)

    def facts(self, asking: Mapping[str, object], path: str) -> Facts | None:
        """Read who asks for what, and when."""
        self.needed(asking, path, "from")
        client = self.one(asking, path, "from", address)
        user = self.one(asking, path, "user", _user)
        groups = frozenset(self.some(asking, path, "group", self.group))
        if groups and "user" not in asking:
            message = "without 'user' nobody has logged in, and there are no groups"
            self.problems.append(Problem(f"{path}.group", message))
        principal = ANONYMOUS if user is None else Principal(user, groups)
        listener = self.one(asking, path, "listener", self.listener)
        zones = zones_of(self.rules or ())
        at = {"at": NOON if len(zones) < 2 else f"{NOON} UTC"} | dict(asking)
        time = self.one(at, path, "at", lambda value: moment(value, zones, _WEEK))
        commands = [word for word in COMMANDS_BY_WORD if word in asking]
        if len(commands) != 1:
            what = "has several of" if commands else "is missing: write one of"
            self.problems.append(Problem(path, f'{what} connect, bind, udp = "host:port"'))
            return None
        (word,) = commands
        target = self.one(asking, path, word, destination)
        if client is None or time is None or target is None:
            return None
        facts = Facts(client, listener or next(iter(self.listeners), ""), principal, time=time)
        return facts.asking(COMMANDS_BY_WORD[word], target)

    def reports(self, value: object, path: str) -> frozenset[Report] | None:
        """Read what rules on trial are to say, as ``{ ID = "deny" }``."""
        trials = None if self.rules is None else {r.id for r in self.rules if r.on_trial}
        written = self.table(value, path, trials)
        if written is None:
            return None
        verdicts = {rule: self.one(written, path, rule, values.action) for rule in written}
        return frozenset(Report(rule, verdict) for rule, verdict in verdicts.items() if verdict)

    def table(
        self, value: object, path: str, known: Collection[str] | None
    ) -> Mapping[str, object] | None:
        """Give a table as it is; ``None`` where it is none, or not there. No *known*: any key."""
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.problems.append(Problem(path, f"must be a table, not {values.type_of(value)}"))
            return None
        for key in value:
            if known is not None and key not in known:
                hint = did_you_mean(key, known)
                self.problems.append(Problem(below(path, key), f"there is no such key{hint}"))
        return value

    def needed(self, table: Mapping[str, object], path: str, key: str) -> object:
        """Give the value of a key that has to be there."""
        if key not in table:
            self.problems.append(Problem(f"{path}.{key}", "is missing"))
        return table.get(key)

    def one(
        self, table: Mapping[str, object], path: str, key: str, read: Callable[[object], T]
    ) -> T | None:
        """Read a value; ``None`` where it is not there, or wrong."""
        return self.read(table[key], f"{path}.{key}", read) if key in table else None

    def some(
        self, table: Mapping[str, object], path: str, key: str, read: Callable[[object], T]
    ) -> list[T]:
        """Read a value or a list of them."""
        if key not in table:
            return []
        path, written = f"{path}.{key}", table[key]
        if not isinstance(written, list):
            found = [self.read(written, path, read)]
        else:
            if not written:
                self.problems.append(Problem(path, "is empty; leave it out"))
            found = [self.read(v, f"{path}[{index}]", read) for index, v in enumerate(written)]
        return [value for value in found if value is not None]

    def read(self, value: object, path: str, read: Callable[[object], T]) -> T | None:
        return read_value(value, path, read, self.problems)

    def group(self, value: object) -> str:
        return known_name(value, self.groups, "group")

    def listener(self, value: object) -> str:
        return known_name(value, self.listeners, "listener")

    def rule(self, value: object) -> str:
        if self.rules is None:
            return values.some_text(value)
        ids = (*(rule.id for rule in self.rules if not rule.on_trial), DEFAULT, GUARD)
        return known_name(value, ids, "rule")


def _user(value: object) -> str:
    user = values.some_text(value)
    if user == ByUser.ANY:
        raise Wrong(f"{user!r} is nobody in particular: write a name")
    if user == ByUser.NONE:
        raise Wrong(f"{user!r} is how rules call a client without login: leave 'user' out")
    return user


def _reports(reports: Iterable[Report]) -> str:
    listed = sorted(f"{report.rule} = {report.verdict.value}" for report in reports)
    return ", ".join(listed) or "nothing"

"""
Yesterday's sessions, decided again: which verdicts would another policy change?

Every question is put as the server puts it, in the same order, and answered
by the same ``decide()``. Where the log lacks the facts for an answer, because
a session was refused before they were known, that is what is said: DEFER.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from socksd.events import Asked
from socksd.facts import Decision, Facts, Verdict
from socksd.policy.match import Answer, At
from socksd.policy.records import Key, Record, Unusable, Unused, moment, read, record
from socksd.policy.rules import Policy

_REMEMBERED = 300_000  # keys, of some 500 octets each; then it begins anew


_SHARED = (str, tuple)  # numbers are small, and 1 equals True


@dataclass(frozen=True, slots=True)
class Ruling:
    """
    A verdict and the rule that spoke.

    Attributes:
        rule: Its id; '' where the verdict is DEFER.
    """

    verdict: Verdict
    rule: str


@dataclass(frozen=True, slots=True)
class Difference:
    """
    What another policy changes.

    Attributes:
        before: What the log says, or what the old policy would.
        after: What the new policy would decide; DEFER where that would depend
            on what the log cannot know.
        user: As the log has it; ``None`` without login, or not known yet.
        destination: HOST:PORT; '' of a client refused before it asked.
    """

    before: Ruling
    after: Ruling
    user: str | None
    destination: str

    @property
    def verdict_changes(self) -> bool:
        """Whether it is more than the same verdict by another rule."""
        return self.before.verdict is not self.after.verdict


@dataclass(slots=True)
class Group:
    """
    The sessions that differ in the same way.

    Attributes:
        count: How many.
        time, session, client: Of the first, as the log writes them.
    """

    count: int
    time: str
    session: str
    client: str


@dataclass(slots=True)
class Replayed:
    """
    What has come of a log.

    Attributes:
        sessions: How many were decided again.
        unused: How many lines were not, by reason.
        groups: Those that differ, in the order of the log.
    """

    sessions: int = 0
    unused: Counter[Unused] = field(default_factory=Counter)
    groups: dict[Difference, Group] = field(default_factory=dict)

    def add(self, difference: Difference, written: Mapping[str, object]) -> None:
        """Count a session that differs; *written* is its line."""
        group = self.groups.get(difference)
        if group is not None:
            group.count += 1
            return
        time, session, client = map(written.get, ("time", "session", "client"))
        self.groups[difference] = Group(1, str(time), str(session), str(client))

    @property
    def changed(self) -> int:
        """How many sessions would meet another verdict."""
        return sum(g.count for d, g in self.groups.items() if d.verdict_changes)

    @property
    def other_rule(self) -> int:
        """How many would meet the same verdict by another rule."""
        return sum(g.count for d, g in self.groups.items() if not d.verdict_changes)


def replay(lines: Iterable[str], new: Policy, old: Policy | None = None) -> Replayed:
    """
    Decide the sessions of an access log again.

    Args:
        lines: As :mod:`socksd.observe.access` writes them.
        new: The policy to try.
        old: What to compare it with; without, the verdicts of the log.
    """
    replayed = Replayed()
    hours = _Hours(new, old)
    known: dict[Hashable, Difference | Unused | None] = {}
    parts: dict[Any, Any] = {}
    for line in lines:
        try:
            written, key = read(line)
            time, inside = hours.at(written)
        except Unusable as unusable:
            replayed.unused[unusable.why] += 1
            continue
        try:
            found = known[key, inside]
        except KeyError:
            if len(known) >= _REMEMBERED:
                known.clear()
                parts.clear()
            # The same few users and hosts in every key: once in memory, not each time.
            key = tuple(
                parts.setdefault(part, part) if type(part) in _SHARED else part for part in key
            )
            found = known[key, inside] = _compare(key, time, new, old)
        if isinstance(found, Unused):
            replayed.unused[found] += 1
            continue
        replayed.sessions += 1
        if found is not None:
            replayed.add(found, written)
    return replayed


def again(policy: Policy, record: Record, time: float) -> Decision:
    """
    Decide about one session as far as its facts are known.

    Returns:
        What would stand at the end, as in ``server/connect.py``. DEFER, or
        ALLOW before an address is known: it would have gone on.
    """
    if record.dialled is not None and record.asked is not Asked.CLIENT:
        # Most sessions were served, and most still would be. An ALLOW here means
        # that no question before it was answered DENY, for that would have stood.
        decision = policy.decide(record.asking(time, record.dialled))
        if decision.verdict is Verdict.ALLOW:
            return decision
    decision = policy.decide(record.connecting(time))
    if decision.verdict is Verdict.DENY or record.asked is Asked.CLIENT:
        return decision
    decision = policy.decide(record.asking(time))
    if decision.verdict is Verdict.DENY or not record.addresses:
        return decision
    answers = [policy.decide(record.asking(time, address)) for address in record.addresses]
    permitted = [answer for answer in answers if answer.verdict is Verdict.ALLOW]
    if record.unlisted and not permitted:
        return Decision(Verdict.DEFER, "")
    return (permitted or answers)[0]


def _compare(key: Key, time: float, new: Policy, old: Policy | None) -> Difference | Unused | None:
    try:
        found = record(key)
    except Unusable as unusable:
        return unusable.why
    before = Ruling(found.verdict, found.rule) if old is None else _ruling(old, found, time)
    after = _ruling(new, found, time)
    if before == after:
        return None
    if Verdict.DENY not in (before.verdict, after.verdict) and not found.settled:
        return None  # it goes on, the one way or the other
    if before.verdict is Verdict.DENY and after.verdict is Verdict.DEFER and found.unlisted:
        return Unused.UNLISTED
    asked = "" if found.destination is None else str(found.destination)
    return Difference(before, after, found.user, asked)


def _ruling(policy: Policy, record: Record, time: float) -> Ruling:
    decision = again(policy, record, time)
    return Ruling(decision.verdict, "" if decision.verdict is Verdict.DEFER else decision.rule)


class _Hours:
    """
    When a session was, as far as rules ask: in which of the hours they name.

    Minutes are all that rules know, so one look for each minute is enough.
    """

    def __init__(self, *policies: Policy | None) -> None:
        self._conditions = [
            condition
            for policy in policies
            if policy is not None
            for rule in policy.rules
            for condition in rule.conditions
            if isinstance(condition, At)
        ]
        self._minutes: dict[str, tuple[float, tuple[Answer, ...]]] = {}

    def at(self, written: Mapping[str, object]) -> tuple[float, tuple[Answer, ...]]:
        """
        Give the time of a session, and what the rules' hours say to it.

        Raises:
            Unusable: It says none.
        """
        if not self._conditions:
            return 0.0, ()
        if "time" not in written:
            raise Unusable(Unused.LACKING)
        text = written["time"]
        minute = str(text)[:16]  # 2026-01-01T00:00
        found = self._minutes.get(minute)
        if found is None:
            time = moment(text)
            facts = Facts(_ANYBODY, "", time=time)
            answers = tuple(condition.matches(facts) for condition in self._conditions)
            found = self._minutes[minute] = time, answers
        return found


_ANYBODY = IPv4Address(0)

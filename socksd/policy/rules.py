"""The ordered rule list, and how it decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from zope.interface import implementer

from socksd.address import IPAddress, embedded
from socksd.facts import DIRECT, Decision, Facts, Report, Verdict
from socksd.interfaces import IPolicy
from socksd.policy.guard import GUARD, PRIVATE, Guard
from socksd.policy.index import Bits, Index, members
from socksd.policy.match import Answer, Condition

DEFAULT = "default"  # the id of what decides when no rule matches: deny


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One rule: a verdict, and when to give it.

    Attributes:
        id: What the log calls it.
        action: ALLOW or DENY.
        conditions: All must match; none at all match everything.
        on_trial: ``mode = "report"``: told what it would have decided, never followed.
        text: What a person may be told whom it refuses; else ''.
        route: By which way to go where it allows.
        limits: The name of the limits that then hold; '' for none.
        log: Whether the sessions it decides have their line in the logs.
        unasked: Whether datagrams may come from where it allows, although the
            client has not sent any there.
    """

    id: str
    action: Verdict
    conditions: tuple[Condition, ...]
    on_trial: bool = False
    text: str = ""
    route: str = DIRECT
    limits: str = ""
    log: bool = True
    unasked: bool = False

    def matches(self, facts: Facts) -> Answer:
        """Answer as a condition does; one definite mismatch beats all that is unknown."""
        answer: Answer = True
        for condition in self.conditions:
            matched = condition.matches(facts)
            if matched is False:
                return False
            if matched is None:
                answer = None
        return answer

    def decision(self) -> Decision:
        """Give what it says where it decides."""
        return Decision(
            self.action,
            self.id,
            self.text,
            route=self.route,
            limits=self.limits,
            log=self.log,
            unasked=self.unasked,
        )


_LAST = Rule(DEFAULT, Verdict.DENY, ())


@implementer(IPolicy)
@dataclass(frozen=True, slots=True)
class Policy:
    """
    An ordered list of rules: the first that matches decides; none is DENY.

    Attributes:
        guard: What takes an ALLOW back; ``None``: nothing does.
    """

    rules: tuple[Rule, ...]
    guard: Guard | None = None
    # In the sets of rules bit i is rule i, and the bit behind them the default.
    _index: Index = field(init=False, repr=False, compare=False)
    _decisions: tuple[Decision, ...] = field(init=False, repr=False, compare=False)
    _allowing: Bits = field(init=False, repr=False, compare=False)
    _on_trial: Bits = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rules = (*self.rules, _LAST)
        made = {
            "_index": Index([rule.conditions for rule in rules]),
            "_decisions": tuple(rule.decision() for rule in rules),
            "_allowing": sum(1 << i for i, r in enumerate(rules) if r.action is Verdict.ALLOW),
            "_on_trial": sum(1 << i for i, r in enumerate(rules) if r.on_trial),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def decide(self, facts: Facts) -> Decision:
        """
        Judge by the facts so far.

        An address that may stand for another on its way (NAT64, 6to4, ...) is
        judged as each of them: all must be allowed.
        """
        others = () if facts.address is None else embedded(facts.address)
        if not others:
            return self._judge(facts)
        readings = [self._judge(each) for each in (facts, *map(facts.at, others))]
        decision = min(readings, key=lambda each: _STRICTEST.index(each.verdict))
        if decision.verdict is Verdict.DEFER or not any(each.reports for each in readings):
            return decision
        return replace(decision, reports=_reports_of(readings))

    def _judge(self, facts: Facts) -> Decision:
        """
        Judge by the facts as they stand.

        Of the rules that may match, the first that surely does, or else the
        default, is the last that can decide. Where it and all those before it
        would say the same, that is the verdict now, and the rule it names is
        that last one, the only one known to match.
        """
        may, does = self._index.answers(facts)
        sure = does & ~self._on_trial
        last = sure & -sure
        can = may & ~self._on_trial & (last << 1) - 1
        opening = can & self._allowing
        taken_back = ""
        if opening and self.guard is not None:
            if facts.address is None:
                if opening == can:
                    return _GUARD_ASKS
            else:
                opening, taken_back = self._guarded(opening, facts.address)
        first = can & -can
        if opening and opening != can:
            return Decision(Verdict.DEFER, self._decisions[first.bit_length() - 1].rule)
        decision = self._decisions[last.bit_length() - 1]
        if not opening and decision.verdict is Verdict.ALLOW:
            decision = Decision(Verdict.DENY, GUARD, detail=taken_back)
        if trials := does & self._on_trial & first - 1:
            decision = replace(decision, reports=self._reports(trials, facts.address))
        return decision

    def _guarded(self, allowing: Bits, address: IPAddress) -> tuple[Bits, str]:
        """Give those rules whose ALLOW the guard lets stand, and why the others' does not."""
        guard = self.guard
        if guard is None:
            return allowing, ""
        if forbidden := guard.forbids(address):
            return 0, forbidden
        width = guard.private_width(address)
        if width < 0:
            return allowing, ""
        return allowing & self._index.naming(address, width), PRIVATE

    def _reports(self, trials: Bits, address: IPAddress | None) -> tuple[Report, ...]:
        """Give what the rules *trials*, which match, would each have decided."""
        open_ = trials & self._allowing
        if address is not None:
            open_, _ = self._guarded(open_, address)
        return tuple(
            Report(
                self.rules[position].id,
                Verdict.ALLOW if open_ >> position & 1 else Verdict.DENY,
            )
            for position in members(trials)
        )


def _reports_of(readings: Sequence[Decision]) -> tuple[Report, ...]:
    """Give what each rule on trial would have made of all readings together."""
    trials = dict.fromkeys(report.rule for each in readings for report in each.reports)
    told = [{report.rule: report.verdict for report in each.reports} for each in readings]
    return tuple(
        Report(
            rule,
            min(
                (would.get(rule, each.verdict) for would, each in zip(told, readings, strict=True)),
                key=_STRICTEST.index,
            ),
        )
        for rule in trials
    )


_STRICTEST = (Verdict.DENY, Verdict.DEFER, Verdict.ALLOW)
_GUARD_ASKS = Decision(Verdict.DEFER, GUARD)

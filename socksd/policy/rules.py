"""The ordered rule list, and how it decides."""

from __future__ import annotations

from dataclasses import dataclass

from zope.interface import implementer

from socksd.facts import Decision, Facts, Verdict
from socksd.interfaces import IPolicy
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
    """

    id: str
    action: Verdict
    conditions: tuple[Condition, ...]

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


@implementer(IPolicy)
@dataclass(frozen=True, slots=True)
class Policy:
    """An ordered list of rules: the first that matches decides; none is DENY."""

    rules: tuple[Rule, ...]

    def decide(self, facts: Facts) -> Decision:
        """
        Judge by the facts so far.

        The rules that may match are remembered. The first that surely does,
        or else the default, is the last that can decide: where all those
        before it would say the same, that is the verdict now, and the rule
        it names is that last one, the only one known to match.
        """
        pending: Rule | None = None
        for rule in self.rules:
            answer = rule.matches(facts)
            if answer is False:
                continue
            if pending is not None and pending.action is not rule.action:
                return Decision(Verdict.DEFER, pending.id)
            if answer:
                return Decision(rule.action, rule.id)
            if pending is None:
                pending = rule
        if pending is not None and pending.action is not Verdict.DENY:
            return Decision(Verdict.DEFER, pending.id)
        return Decision(Verdict.DENY, DEFAULT)

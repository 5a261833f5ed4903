"""
Why: what a session asks the policy, and what each rule says to it.

Nothing here decides: every verdict is decide()'s own, asked as the server
asks it, and beside it stands what the conditions answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_network

from socksd.address import IPAddress, embedded
from socksd.facts import Decision, Facts, Verdict
from socksd.policy.guard import GUARD, PRIVATE
from socksd.policy.match import Answer, Condition, ResolvesTo
from socksd.policy.rules import DEFAULT, Policy, Rule
from socksd.policy.sets import HostSet
from socksd.policy.words import found, wanted

_LAST = Rule(DEFAULT, Verdict.DENY, ())
_EDITS = 12  # policies that are made to see whether an edit would do


@dataclass(frozen=True, slots=True)
class Question:
    """
    All that the policy is asked about one session.

    Attributes:
        facts: Those of the request; without a command it never got that far.
        addresses: Where the name leads, in the order of the answer; ``None``:
            not known, or no name.
    """

    facts: Facts
    addresses: tuple[IPAddress, ...] | None = None


class Place(StrEnum):
    """Where in a session the policy is asked."""

    OPENING = "first octets"
    REQUEST = "request"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Said:
    """
    What one rule says to some facts.

    Attributes:
        answer: Whether it matches; ``None``: that depends on what is not known yet.
        condition: The first that fails or, where none does, that is not known
            yet; ``None``: all match.
        objection: The class of address for which the guard takes its ALLOW back; else ''.
    """

    rule: Rule
    answer: Answer
    condition: Condition | None
    objection: str = ""

    @property
    def decides(self) -> bool:
        """Whether no rule behind it is asked."""
        return self.answer is True and not self.rule.on_trial


@dataclass(frozen=True, slots=True)
class Stage:
    """
    One question and its answer.

    Attributes:
        facts: What was known. Of an address that may stand for another, the
            reading that was decisive.
        said: By each rule in order, down to the first that surely matches.
    """

    place: Place
    facts: Facts
    decision: Decision
    said: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    What a session would ask, stage by stage.

    Attributes:
        decisive: The stage whose answer stands.
    """

    question: Question
    stages: tuple[Stage, ...]
    decisive: Stage

    @property
    def decision(self) -> Decision:
        """What stands; DEFER where it depends on addresses that are not known."""
        return self.decisive.decision


@dataclass(frozen=True, slots=True)
class Edit:
    """
    A change of one rule that would turn the verdict.

    Attributes:
        key: The rule's key that would have to hold *fact*; '' where the rule
            would have to go.
    """

    rule: str
    key: str
    fact: str


def asked(policy: Policy, question: Question) -> Iterator[tuple[Place, Facts, Decision]]:
    """Ask what a session asks, in its order, until it is refused or all is asked."""
    facts = question.facts
    opening = Facts(facts.client, facts.listener, time=facts.time)
    decision = policy.decide(opening)
    yield Place.OPENING, opening, decision
    if decision.verdict is Verdict.DENY or facts.command is None:
        return
    decision = policy.decide(facts)
    yield Place.REQUEST, facts, decision
    if decision.verdict is Verdict.DENY or facts.address is not None:
        return
    for address in question.addresses or ():
        candidate = facts.at(address)
        yield Place.ADDRESS, candidate, policy.decide(candidate)


def standing(decisions: list[Decision]) -> int:
    """
    Give which of the decisions stands, of those that were asked for in order.

    Of the addresses' that on the first permitted, or on the first of all.
    """
    for index in range(2, len(decisions)):
        if decisions[index].verdict is Verdict.ALLOW:
            return index
    return min(2, len(decisions) - 1)


def outcome(policy: Policy, question: Question) -> Decision:
    """Give the decision that stands at the end."""
    decisions = [decision for _, _, decision in asked(policy, question)]
    return decisions[standing(decisions)]


def explain(policy: Policy, question: Question) -> Explanation:
    """Lay beside each decision what the rules say."""
    stages = tuple(
        _stage(policy, place, facts, decision) for place, facts, decision in asked(policy, question)
    )
    return Explanation(question, stages, stages[standing([stage.decision for stage in stages])])


def in_short(explanation: Explanation, rule: str | None = None) -> str:
    """
    Say in a clause or two who has decided what, and why not *rule*, if it was passed over.
    """
    decision = explanation.decision
    what = {Verdict.ALLOW: "allowed", Verdict.DENY: "denied"}.get(decision.verdict)
    if what is None:
        return f"undecided: {decision.rule!r} depends on where the name leads"
    words = [f"{what} by {decision.rule!r}"]
    stage = explanation.decisive
    if decision.rule == GUARD:
        words.append(f"{stage.facts.address} is {decision.detail}, and {stage.said[-1].rule.id!r}")
        words[-1] += " does not name it" if decision.detail == PRIVATE else " cannot open it"
    for said in stage.said:
        if said.rule.id == rule and said.condition is not None:
            condition = said.condition
            words.append(
                f"{rule!r} has {condition.key} = {wanted(condition)},"
                f" and this is {found(condition, stage.facts)}"
            )
    return "; ".join(words)


def edits(policy: Policy, explanation: Explanation) -> tuple[Edit, ...]:
    """Give the edits of one rule that would turn the verdict, each tried out."""
    stage, verdict = explanation.decisive, explanation.decision.verdict
    if verdict is Verdict.DEFER:
        return ()
    tried = list(_edited(policy, stage))[:_EDITS]
    return tuple(
        edit
        for edit, rules in tried
        if outcome(replace(policy, rules=rules), explanation.question).verdict is not verdict
    )


def _stage(policy: Policy, place: Place, facts: Facts, decision: Decision) -> Stage:
    reading = _reading(policy, facts, decision)
    said = []
    for rule in policy.rules:
        said.append(_said(policy, rule, reading))
        if said[-1].decides:
            break
    else:
        said.append(_said(policy, _LAST, reading))
    return Stage(place, reading, decision, tuple(said))


def _reading(policy: Policy, facts: Facts, decision: Decision) -> Facts:
    """Give what the address was taken for when it was decided so."""
    if facts.address is not None and decision.verdict is not Verdict.ALLOW:
        for address in embedded(facts.address):
            reading = policy.decide(facts.at(address))
            if replace(reading, reports=decision.reports) == decision:
                return facts.at(address)
    return facts


def _said(policy: Policy, rule: Rule, facts: Facts) -> Said:
    unknown = None
    for condition in rule.conditions:
        answer = condition.matches(facts)
        if answer is False:
            return Said(rule, False, condition)
        if answer is None and unknown is None:
            unknown = condition
    objection = ""
    if rule.action is Verdict.ALLOW and policy.guard is not None and facts.address is not None:
        objection = policy.guard.objects(facts.address, rule.conditions)
    return Said(rule, True if unknown is None else None, unknown, objection)


def _edited(policy: Policy, stage: Stage) -> Iterator[tuple[Edit, tuple[Rule, ...]]]:
    """Give edits that may do, with the rules as they would then be."""
    rules, facts = policy.rules, stage.facts
    for position, said in enumerate(stage.said):
        before, after, rule = rules[:position], rules[position + 1 :], said.rule
        if rule.on_trial or rule.id == DEFAULT:
            continue
        failing = [c for c in rule.conditions if c.matches(facts) is False]
        if said.decides and said.objection != PRIVATE:
            yield Edit(rule.id, "", ""), (*before, *after)
        elif facts.address and (said.decides or [*map(type, failing)] == [ResolvesTo]):
            landing = _landing_at(rule, facts.address)
            yield Edit(rule.id, ResolvesTo.key, str(facts.address)), (*before, landing, *after)
        elif rule.action is not stage.decision.verdict and len(failing) == 1:
            kept = tuple(c for c in rule.conditions if c is not failing[0])
            edit = Edit(rule.id, failing[0].key, found(failing[0], facts))
            yield edit, (*before, replace(rule, conditions=kept), *after)


def _landing_at(rule: Rule, address: IPAddress) -> Rule:
    """Give the rule with *address* in its ``resolves_to``."""
    here = HostSet.of([ip_network(address)])
    sets = [c.sets for c in rule.conditions if isinstance(c, ResolvesTo)]
    kept = tuple(c for c in rule.conditions if not isinstance(c, ResolvesTo))
    return replace(rule, conditions=(*kept, ResolvesTo(frozenset({here}).union(*sets))))

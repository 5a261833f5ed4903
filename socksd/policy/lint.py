"""
What is allowed to stand in a policy, and is probably not meant.

What is called unreachable is proved to be; what is called open by address has
been put to decide(). The others say what a rule leaves open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from socksd.address import Destination, IPAddress
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Facts, Principal, Verdict
from socksd.policy.cover import addresses_inside, contradiction, has_names, hidden_by, of_kind
from socksd.policy.explain import Question, outcome
from socksd.policy.match import (
    ByUser,
    Condition,
    FromNetworks,
    Hostname,
    InGroup,
    NotFrom,
    NotTo,
    OnListener,
    ResolvesTo,
    ToHost,
)
from socksd.policy.nearest import (
    ANY_NAME,
    SOMEBODY,
    Change,
    addresses_of,
    changed,
    options,
)
from socksd.policy.rules import Policy, Rule
from socksd.policy.words import wanted

_ABOUT_CLIENTS = (OnListener, ByUser, InGroup, FromNetworks, NotFrom)
_ABOUT_HOSTS = (ToHost, NotTo, ResolvesTo, Hostname)
_ANYBODY = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
# Public addresses that stand for any other; nothing is sent there.
_ANYWHERE = (ip_address("192.88.98.1"), ip_address("2600::1"))
_PAIRS = 2_000  # of rules that are tried together


class Code(StrEnum):
    """What kind of thing it is, for scripts."""

    UNREACHABLE = "unreachable"
    GUARDED = "guarded"
    BY_ADDRESS = "by-address"
    UNBOUNDED = "unbounded"
    OPEN = "open"
    ADDRESSES_SENT = "addresses-sent"
    NO_TESTS = "no-tests"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that is probably not meant.

    Attributes:
        rule: The id of the rule that it is about; '' for the whole policy.
        because: The ids of other rules that it follows from.
    """

    code: Code
    rule: str
    message: str
    because: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"rule {self.rule!r} {self.message}" if self.rule else self.message


def lint(policy: Policy, *, tested: bool, requests: Iterable[Facts] = ()) -> list[Finding]:
    """
    Look for what is probably not meant.

    Args:
        policy: Of the configuration, not the built-in one.
        tested: Whether there are tests.
        requests: What clients have asked for, as the access log has it.
    """
    found = [finding for rule in policy.rules for finding in _of_rule(policy, rule)]
    found += _by_address(policy)
    found += _addresses_sent(policy, requests)
    if not tested:
        found.append(Finding(Code.NO_TESTS, "", "no [[test]] says what these rules are to do"))
    return found


def _of_rule(policy: Policy, rule: Rule) -> Iterator[Finding]:
    unreachable = _unreachable(policy, rule)
    if unreachable is not None:
        yield unreachable
        return
    if rule.action is not Verdict.ALLOW or rule.on_trial:
        return
    to, lands = of_kind(rule, ToHost), of_kind(rule, ResolvesTo)
    if policy.guard is not None:
        never = frozenset(policy.guard.never)
        goes = lands or (None if to is None or has_names(to) else to)
        if goes is not None and addresses_inside(goes.sets, never):
            message = f"allows nothing: the guard takes back all of {goes.key} = {wanted(goes)}"
            yield Finding(Code.GUARDED, rule.id, message)
            return
    if not rule.conditions:
        yield Finding(Code.OPEN, rule.id, "allows everybody everything")
    elif lands is None and to is not None and _is_wide(to):
        message = f"has no 'resolves_to': names in {wanted(to)} may lead anywhere"
        if not _private_is_open(policy):
            message += " but into private space"
        yield Finding(Code.UNBOUNDED, rule.id, message)
    elif lands is None and to is None and _private_is_open(policy):
        message = "has neither 'to' nor 'resolves_to': it opens private space as well"
        yield Finding(Code.UNBOUNDED, rule.id, message)


def _unreachable(policy: Policy, rule: Rule) -> Finding | None:
    never = "can never be reported" if rule.on_trial else "can never match"
    if keys := contradiction(rule):
        message = f"{never}: no request has what {keys[0]!r} and {keys[1]!r} ask for together"
        return Finding(Code.UNREACHABLE, rule.id, message)
    position = policy.rules.index(rule)
    before = [other for other in policy.rules[:position] if not other.on_trial]
    if not (hiding := hidden_by(rule, before)):
        return None
    ids = tuple(other.id for other in hiding)
    listed = " and ".join(map(repr, ids))
    message = f"{never}: {listed} before it {'take' if len(ids) > 1 else 'takes'} all that it would"
    return Finding(Code.UNREACHABLE, rule.id, message, ids)


def _is_wide(to: ToHost) -> bool:
    return any(each.names.suffixes or each.names.globs for each in to.sets)


def _private_is_open(policy: Policy) -> bool:
    return policy.guard is None or not policy.guard.private


def _by_address(policy: Policy) -> Iterator[Finding]:
    """Find names that are denied, while the same client may ask for an address itself."""
    enforced = [rule for rule in policy.rules if not rule.on_trial]
    allowing = [rule for rule in enforced if rule.action is Verdict.ALLOW and _by_literal(rule)]
    pairs = 0
    for rule in enforced:
        to = of_kind(rule, ToHost)
        # With networks beside the names somebody has thought of the addresses.
        if rule.action is Verdict.ALLOW or to is None or any(each.networks for each in to.sets):
            continue
        for other in allowing:
            pairs += 1
            if pairs > _PAIRS:
                return
            if finding := _open_by_address(policy, rule, other):
                yield finding
                break


def _open_by_address(policy: Policy, rule: Rule, other: Rule) -> Finding | None:
    """Look for somebody to whom *rule* denies a name, and who gets to an address by *other*."""
    to = of_kind(rule, ToHost)
    who = [c for c in (*rule.conditions, *other.conditions) if not isinstance(c, _ABOUT_HOSTS)]
    for somebody in _somebody():
        asking = _meeting(somebody, who)
        named = asking and to and _meeting(asking, [to])
        if asking is None or not named or outcome(policy, named).rule != rule.id:
            continue
        for address in (*_literals(other), *_ANYWHERE):
            literal = changed(asking, [Change("host", str(address), address)])
            decision = outcome(policy, literal)
            if decision.verdict is Verdict.ALLOW:
                message = (
                    "denies a name, and not its address: who asks for an address itself,"
                    f" as {literal.facts.destination}, gets there by {decision.rule!r}"
                )
                return Finding(Code.BY_ADDRESS, rule.id, message, (decision.rule,))
    return None


def _by_literal(rule: Rule) -> bool:
    """Say whether a rule may match who asks for an address."""
    to = of_kind(rule, ToHost)
    return of_kind(rule, Hostname) is None and (
        to is None or any(each.networks for each in to.sets)
    )


def _literals(rule: Rule) -> Iterator[IPAddress]:
    for condition in rule.conditions:
        if isinstance(condition, (ToHost, ResolvesTo)):
            yield from addresses_of(condition.sets)


def _somebody() -> Iterator[Question]:
    """Give clients, with and without login, that ask for a name."""
    for client in _ANYBODY:
        for principal in (ANONYMOUS, Principal(SOMEBODY)):
            facts = Facts(client, "", principal)
            asking = facts.asking(Command.CONNECT, Destination(ANY_NAME, 443))
            yield Question(asking, _ANYWHERE[:1])


def _meeting(question: Question, conditions: Sequence[Condition]) -> Question | None:
    """Change the facts until all the conditions match; ``None`` where that did not succeed."""
    for condition in conditions:
        tried = (question, *(changed(question, [each]) for each in options(condition, question)))
        met = (each for each in tried if condition.matches(each.facts))
        question = next(met, question)
    return question if all(c.matches(question.facts) for c in conditions) else None


def _addresses_sent(policy: Policy, requests: Iterable[Facts]) -> Iterator[Finding]:
    """Find rules about names whose clients ask for addresses."""
    asked: Counter[Facts] = Counter()
    literal: Counter[Facts] = Counter()
    for facts in requests:
        if facts.destination is not None:
            who = Facts(facts.client, facts.listener, facts.principal)
            asked[who] += 1
            literal[who] += not isinstance(facts.destination.host, str)
    for rule in policy.rules:
        to = of_kind(rule, ToHost)
        if to is None or not has_names(to):
            continue
        conditions = [c for c in rule.conditions if isinstance(c, _ABOUT_CLIENTS)]
        its = [who for who in asked if all(c.matches(who) for c in conditions)]
        by_address = sum(literal[who] for who in its)
        if by_address:
            most = max(its, key=literal.__getitem__)
            message = (
                f"is about names, but {by_address} of {sum(asked[who] for who in its)} requests"
                f" of its clients were for addresses; {literal[most]} of {most.client} alone"
            )
            yield Finding(Code.ADDRESSES_SENT, rule.id, message)

"""What the policy has said lately, for those who ask the same again."""

from __future__ import annotations

from typing import Final

from zope.interface import implementer

from socksd.facts import Decision, Facts
from socksd.interfaces import IPolicy
from socksd.policy.match import At, ByUser, FromNetworks, InGroup, NotFrom, Share
from socksd.policy.rules import Policy

MOST: Final = 4096  # questions, of which each takes some 500 octets

_ABOUT_CLIENTS = {FromNetworks, NotFrom, Share}
_ABOUT_USERS = {ByUser, InGroup, Share}


@implementer(IPolicy)
class Remembered:
    """
    Decide as *policy* does, and remember it.

    Clients come again and again, and ask for the same few hosts; to find a
    question takes a fifth of the time that twenty rules take to answer it. By
    what no rule looks at, questions do not differ. Where a rule has hours,
    nothing is remembered: what it says depends on the minute.

    It is forgotten all at once when there are MOST, as by somebody who asks
    for ever other hosts: then it costs what it would have cost without.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        kinds = {type(condition) for rule in policy.rules for condition in rule.conditions}
        self._by_client = not kinds.isdisjoint(_ABOUT_CLIENTS)
        self._by_user = not kinds.isdisjoint(_ABOUT_USERS)
        self._by_time = At in kinds
        self._said: dict[object, Decision] = {}

    def decide(self, facts: Facts) -> Decision:
        """See :class:`~socksd.interfaces.IPolicy`."""
        if self._by_time:
            return self.policy.decide(facts)
        principal, destination, address = facts.principal, facts.destination, facts.address
        # Addresses by their octets, of which 4 are never taken for 16: to hash three
        # addresses takes longer than all the rest of this.
        host: str | bytes | None = None
        port = None
        if destination is not None:
            port = destination.port
            asked = destination.host
            host = asked if isinstance(asked, str) else asked.packed
        question = (
            facts.client.packed if self._by_client else None,
            facts.listener,
            (principal.name, principal.groups) if self._by_user and principal else None,
            facts.command,
            host,
            port,
            None if address is None else address.packed,
        )
        decision = self._said.get(question)
        if decision is None:
            decision = self.policy.decide(facts)
            if len(self._said) >= MOST:
                self._said.clear()
            self._said[question] = decision
        return decision

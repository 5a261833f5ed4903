"""Which rules decide, how often, and since when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from socksd.events import Denied, Event, Outcome, SessionClosed
from socksd.facts import Report


@dataclass(slots=True)
class Hits:
    """
    The sessions that one rule has decided, and the targets of datagrams that it has denied.

    A session counts when it has ended; one that still runs is not in here. A
    target counts at its first datagram.

    Attributes:
        since: When counting began, in seconds since the epoch.
        count: How many.
        last: When the latest session began or datagram came, in seconds since
            the epoch; ``None`` without any.
        outcomes: How they ended.
    """

    since: float
    count: int = 0
    last: float | None = None
    outcomes: Counter[Outcome] = field(default_factory=Counter)


class RuleCounters:
    """
    Count the decisions that stood: one for each session, by the rule it ended with,
    and one for each target of datagrams that was denied.

    A rule on trial counts the sessions that it would have decided otherwise.

    Ids come from configurations and not from clients, and each call of
    follow() forgets those that are no longer there, so what is kept is bounded.

    Args:
        now: Gives the time in seconds since the epoch.

    Attributes:
        hits: By rule id.
    """

    hears = (Denied, SessionClosed)

    def __init__(self, now: Callable[[], float]) -> None:
        self.hits: dict[str, Hits] = {}
        self._now = now

    def follow(self, rules: Collection[str]) -> None:
        """Count for these ids from now on; those that were there before go on."""
        now = self._now()
        self.hits = {rule: self.hits.get(rule) or Hits(now) for rule in rules}

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if isinstance(event, SessionClosed):
            self._count(event.rule, event.outcome, event.started)
            if event.reports:
                self._report(event.reports, event.outcome, event.started)
        elif isinstance(event, Denied) and event.datagram:
            decision = event.decision
            self._count(decision.rule, Outcome.DENIED, event.started)
            self._report(decision.reports, Outcome.DENIED, event.started)

    def _report(self, reports: Iterable[Report], outcome: Outcome, time: float) -> None:
        for report in reports:
            self._count(report.rule, outcome, time)

    def _count(self, rule: str | None, outcome: Outcome, time: float) -> None:
        hits = self.hits.get(rule) if rule is not None else None
        if hits is not None:  # else a rule that its last sessions have outlived
            hits.count += 1
            hits.outcomes[outcome] += 1
            if hits.last is None or hits.last < time:
                hits.last = time

"""Which rules decide, how often, and since when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from socksd.events import Event, Outcome, SessionClosed


@dataclass(slots=True)
class Hits:
    """
    The sessions that one rule has decided.

    A session counts when it has ended; one that still runs is not in here.

    Attributes:
        since: When counting began, in seconds since the epoch.
        count: How many sessions.
        last: When the latest of them began, in seconds since the epoch;
            ``None`` without any.
        outcomes: How they ended.
    """

    since: float
    count: int = 0
    last: float | None = None
    outcomes: Counter[Outcome] = field(default_factory=Counter)


class RuleCounters:
    """
    Count the decisions that stood: one for each session, by the rule it ended with.

    A rule on trial counts the sessions that it would have decided otherwise.

    Ids come from configurations and not from clients, and each call of
    follow() forgets those that are no longer there, so what is kept is bounded.

    Args:
        now: Gives the time in seconds since the epoch.

    Attributes:
        hits: By rule id.
    """

    hears = (SessionClosed,)

    def __init__(self, now: Callable[[], float]) -> None:
        self.hits: dict[str, Hits] = {}
        self._now = now

    def follow(self, rules: Collection[str]) -> None:
        """Count for these ids from now on; those that were there before go on."""
        now = self._now()
        self.hits = {rule: self.hits.get(rule) or Hits(now) for rule in rules}

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if not isinstance(event, SessionClosed):
            return
        if event.rule is not None:
            self._count(event.rule, event)
        for report in event.reports:
            self._count(report.rule, event)

    def _count(self, rule: str, event: SessionClosed) -> None:
        hits = self.hits.get(rule)
        if hits is None:  # a rule that its last sessions have outlived
            return
        hits.count += 1
        hits.outcomes[event.outcome] += 1
        hits.last = max(event.started, hits.last or 0.0)

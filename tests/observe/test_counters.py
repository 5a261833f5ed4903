"""Rules are counted by the decisions that stood."""

from __future__ import annotations

from dataclasses import replace

from socksd.events import Outcome, SessionOpened
from socksd.facts import Report, Verdict
from socksd.observe.counters import RuleCounters
from tests.observe.closed import DENIED, SERVED


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_session_counts_once_for_the_rule_it_ended_with() -> None:
    counters = RuleCounters(Time())
    counters.follow(["local", "other"])
    counters(SessionOpened(1, SERVED.client, 1, "office"))
    counters(replace(SERVED, started=300.0))
    counters(replace(SERVED, started=200.0, outcome=Outcome.RESET))
    counters(replace(SERVED, rule=None))
    local = counters.hits["local"]
    assert (local.since, local.count, local.last) == (100.0, 2, 300.0)
    assert local.outcomes == {Outcome.SERVED: 1, Outcome.RESET: 1}
    other = counters.hits["other"]
    assert (other.since, other.count, other.last) == (100.0, 0, None)


def test_a_reload_goes_on_counting_for_ids_that_persist() -> None:
    now = Time()
    counters = RuleCounters(now)
    counters.follow(["local", "gone"])
    counters(SERVED)
    now.now = 200.0
    counters.follow(["local", "new"])
    assert list(counters.hits) == ["local", "new"]
    assert (counters.hits["local"].count, counters.hits["local"].since) == (1, 100.0)
    assert (counters.hits["new"].count, counters.hits["new"].since) == (0, 200.0)


def test_a_rule_that_its_last_sessions_have_outlived_takes_no_memory() -> None:
    counters = RuleCounters(Time())
    counters.follow(["local"])
    counters(replace(SERVED, rule="gone"))
    assert list(counters.hits) == ["local"]


def test_a_rule_on_trial_counts_what_it_would_have_decided() -> None:
    counters = RuleCounters(Time())
    counters.follow(["local", "trial"])
    counters(replace(SERVED, reports=(Report("trial", Verdict.DENY), Report("gone", Verdict.DENY))))
    assert (counters.hits["local"].count, counters.hits["trial"].count) == (1, 1)


def test_a_denied_target_of_datagrams_counts_at_once() -> None:
    """The session that it was sent in goes on, and counts for the rule that has let it in."""
    counters = RuleCounters(Time())
    counters.follow(["local", "no-web", "trial"])
    trial = (Report("trial", Verdict.ALLOW),)
    denied = replace(DENIED, started=300.0, decision=replace(DENIED.decision, reports=trial))
    counters(denied)
    assert counters.hits["no-web"].count == 0, "a session that was denied counts when it has ended"
    counters(replace(denied, datagram=True))
    for rule in ("no-web", "trial"):
        hits = counters.hits[rule]
        assert (hits.count, hits.last, hits.outcomes) == (1, 300.0, {Outcome.DENIED: 1})

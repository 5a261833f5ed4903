"""How the service is doing, in numbers, beside what its sessions tell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Protocol

import socksd
from socksd.app.reload import Reloader
from socksd.app.service import Gateway
from socksd.egress.cache import CachingResolver
from socksd.identity.portal import Authenticator
from socksd.observe.access import AccessLog
from socksd.observe.counters import RuleCounters
from socksd.observe.journal import Journal
from socksd.observe.metrics import Family, Kind, Metrics, Together
from socksd.observe.sinks import OutputLog

STARTED: Final = time.time()


class Measures:
    """Asks all that a scrape wants to know; to be called in the reactor's thread."""

    def __init__(
        self, gateway: Gateway, reloader: Reloader, counters: RuleCounters, metrics: Metrics
    ) -> None:
        self._gateway = gateway
        self._reloader = reloader
        self._counters = counters
        self._metrics = metrics

    def __call__(self) -> tuple[Family, ...]:
        """Give everything, as it is now."""
        return (
            *self._metrics.families(),
            *self._sessions(),
            *self._rules(),
            *self._parts(),
            *service(self._reloader),
        )

    def _sessions(self) -> Iterator[Family]:
        metrics, sessions = self._metrics, self._gateway.sessions
        up, down = sessions.carried()
        begun = sessions.begun - sessions.before
        yield _counter("socksd_sessions_opened", "Sessions that have begun.", begun)
        yield _gauge("socksd_sessions", "Sessions that live.", len(sessions))
        yield Family(
            Kind.COUNTER,
            "socksd_octets",
            "Octets relayed: up from clients to targets, down to clients.",
            {("up",): metrics.up + up, ("down",): metrics.down + down},
            ("direction",),
        )
        yield _gauge(
            "socksd_accepting",
            "1 while new clients are accepted; 0 while descriptors or sessions have run out.",
            int(sessions.door.is_open),
            Together.GREATEST,
        )

    def _rules(self) -> Iterator[Family]:
        on_trial = {
            rule for rule, action in self._gateway.generation.rules if action.startswith("would")
        }
        hits = self._counters.hits.items()
        yield Family(
            Kind.COUNTER,
            "socksd_rule_sessions",
            "Sessions that have ended and denied UDP targets, by the rule that decided and by how.",
            {
                (rule, outcome.value): count
                for rule, each in hits
                if rule not in on_trial
                for outcome, count in each.outcomes.items()
            },
            ("rule", "outcome"),
        )
        yield Family(
            Kind.COUNTER,
            "socksd_trial_sessions",
            "Sessions that a rule on trial would have decided otherwise.",
            {(rule,): each.count for rule, each in hits if rule in on_trial},
            ("rule",),
        )

    def _parts(self) -> Iterator[Family]:
        lost = 0
        for part in self._gateway.parts():
            if isinstance(part.what, AccessLog | Journal | OutputLog):
                lost += part.what.lost
        yield _counter(
            "socksd_access_log_lines_lost",
            "Lines that the access log could not take.",
            lost,
        )
        for part in self._gateway.generation.parts:
            if isinstance(part.what, CachingResolver):
                yield from _names(part.what)
            elif isinstance(part.what, Authenticator):
                verified = part.what.verified
                yield Family(
                    Kind.COUNTER,
                    "socksd_login_cache_questions",
                    "Logins, by whether they were verified a short while ago already.",
                    {("hit",): verified.hits, ("miss",): verified.misses},
                    ("result",),
                )


class Reloads(Protocol):
    """What is told of the configuration; see :class:`socksd.app.reload.Reloader`."""

    loaded: float
    reloads: int
    failed: int
    unconfirmed_until: float | None
    rolled_back: bool


def service(reloader: Reloads) -> Iterator[Family]:
    """Say what does not depend on who serves: of workers, their parent tells it."""
    yield Family(
        Kind.COUNTER,
        "socksd_reloads",
        "Configurations loaded after the first one, by whether they could be.",
        {("done",): reloader.reloads, ("failed",): reloader.failed},
        ("result",),
    )
    yield _gauge(
        "socksd_config_loaded_timestamp_seconds",
        "When the configuration in force was loaded.",
        reloader.loaded,
        Together.GREATEST,
    )
    yield _gauge(
        "socksd_config_unconfirmed",
        "1 while a configuration is on trial, or was rolled back.",
        int(reloader.unconfirmed_until is not None or reloader.rolled_back),
        Together.GREATEST,
    )
    yield _gauge("process_start_time_seconds", "When the process began.", STARTED, Together.APART)
    yield Family(
        Kind.GAUGE,
        "socksd_build_info",
        "1.",
        {(socksd.__version__,): 1},
        ("version",),
        Together.GREATEST,
    )


def _names(resolver: CachingResolver) -> Iterator[Family]:
    yield Family(
        Kind.COUNTER,
        "socksd_name_cache_questions",
        "Names to look up: known (hit), being looked up already (joined), or not (miss).",
        {
            ("hit",): resolver.hits,
            ("joined",): resolver.joined,
            ("miss",): resolver.misses,
        },
        ("result",),
    )
    yield _gauge("socksd_name_cache_entries", "Names whose answers are kept.", len(resolver))


def _counter(name: str, what: str, value: float) -> Family:
    return Family(Kind.COUNTER, name, what, {(): value})


def _gauge(name: str, what: str, value: float, together: Together = Together.SUM) -> Family:
    return Family(Kind.GAUGE, name, what, {(): value}, together=together)
